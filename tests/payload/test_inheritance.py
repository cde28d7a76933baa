"""What a child inherits, as it is pickled and counted here; with processes see system/test_inheritance.py."""

from __future__ import annotations

import ctypes
import multiprocessing
import os

import pytest

from ipevents._exceptions import Unpicklable
from ipevents._payload.forms import decode
from ipevents._payload.inheritance import Inheritance
from ipevents._payload.pickled import dumps, pickle_call


def test_what_a_child_inherits_keeps_its_numbers_over_two_attempts_and_two_pickles():
    """Plain pickle fails at the function, cloudpickle does it."""
    inherited = Inheritance()
    here, there = multiprocessing.Pipe()
    with here, there:
        dumps(lambda: there, "the target", inherited=inherited)
        pickle_call(((lambda: here), there), {}, inherited=inherited)
        (passed,) = inherited.passed("spawn")
        assert sorted(passed._descriptors) == sorted([here.fileno(), there.fileno()])
    with pytest.raises(Unpicklable, match="was closed in this process"):
        inherited.passed("spawn")


def test_what_refers_to_a_descriptor_by_its_number_only_is_passed_on_by_a_copy():
    from multiprocessing import reduction

    class Wrapper:
        def __reduce__(self):
            return list, ((reduction.DupFd(descriptor),),)

    descriptor = os.open(os.devnull, os.O_RDONLY)
    inherited = Inheritance()
    pickle_call((Wrapper(),), {}, inherited=inherited)
    os.close(descriptor)
    (passed,) = inherited.passed("spawn")
    assert [os.readlink(f"/proc/self/fd/{number}") for number in passed._descriptors] == [os.devnull]


def test_values_of_ctypes_that_are_not_shared_travel_as_copies():
    from multiprocessing import sharedctypes

    sharedctypes.RawValue("i", 1)  # makes multiprocessing know the type
    inherited = Inheritance()
    payload, _ = pickle_call((ctypes.c_int(7),), {}, inherited=inherited)
    ((value,), _) = decode(payload)
    assert value.value == 7
    assert not inherited
