from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys

import numpy
import pytest

from ipevents._exceptions import Unpicklable
from ipevents._payload.forms import decode
from ipevents._payload.pickled import dumps, pickle_call


def sent(*args, **kwargs):
    """The arguments as a listener elsewhere gets them."""
    return decode(pickle_call(args, kwargs)[0])


# What pickle alone cannot


def test_lambdas_and_closures_travel():
    factor = 3
    ((function,), _) = sent(lambda value: value * factor)
    assert function(4) == 12


def test_what_main_defines_travels_by_value():
    # A process of its own, where __main__ is a script: classes and functions of it, also with a large array
    # beside.
    script = """
import sys, pickle, numpy
from ipevents._payload import pickled
class Thing:
    def __init__(self, data): self.data = data
    def first(self): return float(self.data[0])
made, _ = pickled.pickle_call((Thing(numpy.full(20_000, 7.0)), numpy.full(20_000, 8.0), lambda: 9), {})
pickle.dump([made[0], [bytes(item) for item in made[1]]], sys.stdout.buffer)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    meta, buffers = pickle.loads(done.stdout)
    assert len(buffers) == 2
    (thing, array, function), _ = decode([meta, [bytearray(item) for item in buffers]])
    assert (thing.first(), float(array[0]), function()) == (7.0, 8.0, 9)


def test_buffers_of_a_first_attempt_that_failed_are_not_sent():
    first, second = numpy.full(20_000, 1), numpy.full(20_000, 2)
    # plain pickle meets the first array, then fails at the lambda; cloudpickle takes it all
    payload, _ = pickle_call((first, lambda: None, second), {})
    assert len(payload[1]) == 2
    arrived, _ = decode(payload)
    assert (arrived[0] == 1).all()
    assert (arrived[2] == 2).all()


# What cannot be sent


class Stubborn:
    """Refuses to be pickled, and to be shown."""

    def __reduce__(self):
        raise RuntimeError("not me")

    def __repr__(self):
        raise RuntimeError("not me either")


@pytest.mark.parametrize(
    ("args", "kwargs", "culprit"),
    [
        ((1, sys._getframe(), 3), {}, "argument 2"),
        ((Stubborn(),), {}, "argument 1"),
        ((), {"good": 1, "bad": (item for item in ())}, "argument 'bad'"),
    ],
)
def test_the_culprit_is_named(args, kwargs, culprit):
    with pytest.raises(Unpicklable, match=culprit) as caught:
        pickle_call(args, kwargs)
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value, TypeError)


def test_the_culprit_is_shown_in_short():
    with pytest.raises(Unpicklable) as caught:
        pickle_call(([sys._getframe()] + ["x" * 1000],), {})
    assert len(str(caught.value)) < 400


def test_a_value_that_is_nested_too_deep_is_refused():
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Unpicklable):
        pickle_call((value,), {})
    while value:  # taken apart by hand: its repr and its end would go as deep
        value = value[0]


def test_a_single_value_is_refused_with_what_it_is():
    with pytest.raises(Unpicklable, match="the target"):
        dumps(Stubborn(), "the target")
    assert pickle.loads(dumps(lambda: 5, "the target"))() == 5


class Sent:
    """Of a module, so that it is pickled plainly."""

    def __init__(self, value: object) -> None:
        self.value = value


@pytest.mark.parametrize(
    "nested", [lambda value: value, lambda value: [Sent(value)], lambda value: lambda: value]
)
def test_a_connection_is_refused_and_not_sent_as_the_number_of_its_descriptor(nested):
    here, there = multiprocessing.Pipe()
    with here, there, pytest.raises(Unpicklable, match=r"argument 2, .* pass it to worker\(args=\.\.\.\)"):
        pickle_call(("x", nested(there)), {})


def test_a_text_that_names_the_module_of_connections_is_a_text():
    payload, _ = pickle_call((["multiprocessing.connection", Sent(1)],), {})
    ((text, sent),), _ = decode(payload)
    assert (text, sent.value) == ("multiprocessing.connection", 1)
