"""Waits for an event, where a stop, another life or a signal comes in between; see also test_emitter.py."""

from __future__ import annotations

import signal
import threading

import pytest

from ipevents import Closed, Emitter, ipem

CEILING_SECONDS = 30.0


@pytest.fixture
def started():
    emitter = Emitter().options(useSocket=False).start()
    yield emitter
    emitter.stop()


@pytest.mark.parametrize("event", ["x", "stopping"])
@pytest.mark.parametrize("timeout", [None, CEILING_SECONDS])
def test_a_wait_that_a_stop_has_ended_is_closed_also_where_another_life_has_begun(started, event, timeout):
    def wait():
        with started.expecting(event, timeout, where=lambda message: False):
            started.stop()
            started.start()

    with pytest.raises(Closed):
        wait()


def test_ctrl_c_in_the_filter_of_another_threads_wait_interrupts_the_main_thread():
    """The filter runs in the main thread, because that emits; the exception is not meant for the waiter."""
    came = []

    def interrupted(message, number):
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        return True

    def wait():
        with ipem.expecting("x", CEILING_SECONDS, interrupted) as got:
            listens.set()
        came.append(got.message.args)

    ipem.options(useSocket=False).start()
    try:
        listens = threading.Event()
        waiter = threading.Thread(target=wait)
        waiter.start()
        listens.wait(CEILING_SECONDS)
        with pytest.raises(KeyboardInterrupt):
            ipem.emit("x", 1)
        ipem.emit("x", 2)
        waiter.join(CEILING_SECONDS)
        assert came == [(2,)]
    finally:
        ipem.stop()
