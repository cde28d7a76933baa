"""What one life of an emitter must not do to the next one."""

from __future__ import annotations

import threading

from ipevents import Emitter

CEILING_SECONDS = 30.0


def notices_thread(emitter: Emitter) -> threading.Thread:
    (found,) = (t for t in threading.enumerate() if t.name == f"ipevents-notices-{emitter.pid}")
    return found


def test_a_listener_of_stopping_that_outlives_its_stop_ends_no_wait_of_the_next_life():
    emitter = Emitter().options(useSocket=False)
    goes_on = threading.Event()
    emitter.once("stopping", lambda message: goes_on.wait(CEILING_SECONDS))
    emitter.start()
    former = notices_thread(emitter)
    emitter.stop(0.0)
    starter = threading.Thread(target=emitter.start)  # it waits for that listener to return
    starter.start()
    goes_on.set()
    starter.join(CEILING_SECONDS)
    former.join(CEILING_SECONDS)
    with emitter.expecting("stopping", CEILING_SECONDS) as got:
        assert not got._came.is_set()
        emitter.stop()
    assert got.message.event == "stopping"
