"""The wait of one thread for one answer."""

from __future__ import annotations

import threading

import pytest

from ipevents._ask.outcome import Question
from ipevents._ask.reply import Reply
from ipevents._core.requests import VALUE
from ipevents._exceptions import Closed, NoAnswerer, UnknownProcess
from ipevents._payload.numbered import numbered

CEILING = 20.0  # reached only in a deadlock
ASKED = Question("resize", "4711", None)


def test_a_wait_without_an_answer_ends_when_the_time_is_over():
    assert Reply(lambda: ASKED).wait(0) is False


def test_the_waiting_thread_goes_on_with_the_value():
    reply = Reply(lambda: ASKED)
    values = []
    thread = threading.Thread(target=lambda: values.append((reply.wait(CEILING), reply.value())))
    thread.start()
    reply.came("4711", "worker", VALUE, numbered(5, VALUE, ("value",)), True)
    thread.join(CEILING)
    assert values == [(True, "value")]


def test_a_value_is_read_in_the_thread_that_waits():
    reply = Reply(lambda: ASKED)
    read = []

    class Payload(tuple):
        def __len__(self):
            read.append(threading.get_ident())
            return super().__len__()

    thread = threading.Thread(target=reply.came, args=("4711", "", VALUE, Payload((5, VALUE, "value")), True))
    thread.start()
    thread.join(CEILING)
    assert read == []
    reply.wait(CEILING)


@pytest.mark.parametrize(
    ("error", "raised"), [(Closed("stopped"), Closed), (UnknownProcess("resize", "4711", "why"), NoAnswerer)]
)
def test_an_error_in_place_of_an_answer_is_raised(error, raised):
    reply = Reply(lambda: ASKED)
    reply.failed(error)
    assert reply.wait(0) is True
    with pytest.raises(raised):
        reply.value()
