"""What keeps a child whose function has returned; for how children end see system/test_exits.py."""

from __future__ import annotations

import pytest

from ipevents import Emitter

CEILING_SECONDS = 30.0


@pytest.fixture
def emitter():
    with Emitter().options(useSocket=False) as emitter:
        yield emitter


def assert_it_is_done_and_finishes(emitter, work):
    with emitter.expecting("done", CEILING_SECONDS):
        child = emitter.worker(work)
    assert child.join(CEILING_SECONDS)
    assert (child.exitcode, child.restarts) == (0, 0)


def test_a_thread_of_the_user_keeps_a_child_and_its_link_until_it_ends(emitter):
    def work() -> None:
        import threading

        from ipevents import ipem

        function_is_over = threading.Event()

        class Waited(threading.Thread):
            def join(self, timeout: float | None = None) -> None:
                function_is_over.set()  # only then something waits for its end
                super().join(timeout)

        def go_on() -> None:
            function_is_over.wait()
            ipem.sendToParents("done")

        Waited(target=go_on).start()

    assert_it_is_done_and_finishes(emitter, work)


def test_an_executor_that_was_left_open_finishes_its_work_and_keeps_no_child(emitter):
    def work() -> None:
        import time
        from concurrent.futures import ThreadPoolExecutor

        import ipevents

        pool = ipevents.pool_of_the_test = ThreadPoolExecutor(2)  # referred to until the end
        pool.submit(time.sleep, 0.2)  # work that lasts longer than the function
        pool.submit(lambda: None).result()
        pool.submit(lambda: ipevents.ipem.sendToParents("done"))

    assert_it_is_done_and_finishes(emitter, work)


def test_a_child_that_a_thread_keeps_is_stopped_in_time(emitter):
    def work() -> None:
        import threading

        threading.Thread(target=threading.Event().wait).start()

    with emitter.expecting("online", CEILING_SECONDS):
        child = emitter.worker(work)
    child.stop(timeout=1.0)
    assert child.join(CEILING_SECONDS)
    assert not child.alive
