"""What a child inherits, as it is pickled and counted here; with processes see system/test_inheritance.py."""

from __future__ import annotations

import ctypes
import functools
import gc
import multiprocessing
import os
import socket
import weakref

import pytest

from ipevents._exceptions import Unpicklable, WorkerRefused
from ipevents._payload import inheritance as module
from ipevents._payload.forms import decode
from ipevents._payload.inheritance import Inheritance, refuse
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


# Objects that only a process can pass on


def inherited(*args):
    """The Inheritance of these arguments, and their pickle."""
    inheritance = Inheritance()
    payload, _ = pickle_call(args, {}, inherited=inheritance)
    return inheritance, payload


@pytest.fixture
def context():
    return multiprocessing.get_context("spawn")


@pytest.fixture
def in_the_child(monkeypatch):
    """Rebuild pickled arguments as a child does that was started with what is passed on."""
    monkeypatch.setattr(module, "_made", type(module._made)())
    monkeypatch.setattr(module, "_descriptors", [])

    def rebuild(inheritance, *payloads):
        numbers = [os.dup(number) for passed in inheritance.passed("spawn") for number in passed._descriptors]
        for number in numbers:
            os.set_inheritable(number, True)  # as those of a start are
        module.receive(numbers)
        return [decode(payload)[0] for payload in payloads]

    return rebuild


def test_nothing_is_kept_of_what_any_message_can_carry():
    inheritance, _ = inherited(1, "x", [2.5], {"a": None}, print, functools.partial(print, 1), b"".join)
    assert not inheritance
    inheritance.keep(object())
    assert not inheritance
    assert inheritance.passed("spawn") == ()


def test_what_has_no_descriptor_is_kept_alive_and_passes_none(context):
    inheritance, _ = inherited(context.Lock())
    assert inheritance
    assert inheritance.passed("spawn") == ()


def test_what_a_lock_was_found_in_is_kept_alive_as_long_as_the_inheritance(context):
    class Holder:
        def __init__(self):
            self.lock = context.Lock()

    holder = Holder()
    gone = weakref.ref(holder)
    inheritance, _ = inherited(holder.lock)
    inheritance.keep(holder)
    del holder
    gc.collect()
    assert gone() is not None
    del inheritance
    gc.collect()
    assert gone() is None


def test_an_object_is_passed_on_once_however_often_it_stands_in_the_arguments(in_the_child):
    here, there = multiprocessing.Pipe()
    inheritance = Inheritance()
    first, _ = pickle_call((there, [there]), {}, inherited=inheritance)
    second, _ = pickle_call(({"again": there},), {}, inherited=inheritance)
    (passed,) = inheritance.passed("spawn")
    assert passed._descriptors == [there.fileno()]
    (one, (same,)), (again,) = in_the_child(inheritance, first, second)
    there.close()
    assert one is same is again["again"]
    with here, one:
        one.send("from the child")
        assert here.recv() == "from the child"
        assert not os.get_inheritable(one.fileno())


def test_an_array_and_its_lock_are_the_same_ones_there(context, in_the_child):
    array, lock = context.Array("i", 3), context.Lock()
    inheritance, payload = inherited(array, lock)
    ((rebuilt, other),) = in_the_child(inheritance, payload)
    rebuilt[1] = 7
    assert array[:] == [0, 7, 0]
    with lock:
        assert not other.acquire(block=False)
    assert other.acquire(block=False)
    other.release()


def test_descriptors_stand_in_the_order_in_which_the_pickle_numbers_them(in_the_child):
    pipes = [multiprocessing.Pipe() for _ in range(3)]
    inheritance, payload = inherited(*(there for _, there in pipes))
    (passed,) = inheritance.passed("spawn")
    assert passed._descriptors == [there.fileno() for _, there in pipes]
    (rebuilt,) = in_the_child(inheritance, payload)
    for number, ((here, there), mine) in enumerate(zip(pipes, rebuilt, strict=True)):
        there.close()
        mine.send(number)
        assert here.recv() == number
        here.close()
        mine.close()


def test_a_start_passes_a_number_of_descriptors_and_says_which(monkeypatch):
    monkeypatch.setattr(module, "MAX_DESCRIPTORS", {"forkserver": 1, "spawn": 2})
    here, there = multiprocessing.Pipe()
    with here, there:
        inheritance, _ = inherited(here, there)
        assert len(inheritance.passed("spawn")) == 1
        for method in ("forkserver", "of another kind"):
            with pytest.raises(WorkerRefused, match=f"2 connections .* start method {method} passes 1 on"):
                inheritance.passed(method)


def test_a_copy_of_a_descriptor_is_closed_when_the_child_has_ended_for_good():
    descriptor = os.open(os.devnull, os.O_RDONLY)
    inheritance = Inheritance()
    before = len(os.listdir("/dev/fd"))
    assert inheritance.duplicate_for_child(descriptor) == 0
    assert inheritance.duplicate_for_child(descriptor) == 1, "another copy: the number may mean another file"
    assert len(os.listdir("/dev/fd")) == before + 2
    del inheritance
    gc.collect()
    os.close(descriptor)
    assert len(os.listdir("/dev/fd")) == before - 1


def test_while_it_is_pickled_and_only_then_this_thread_starts_a_process():
    from multiprocessing import context

    def interrupted(inheritance):
        with inheritance.pickling():
            assert context.get_spawning_popen() is inheritance
            raise KeyboardInterrupt

    outer = Inheritance()
    with outer.pickling():
        with pytest.raises(KeyboardInterrupt):
            interrupted(Inheritance())
        assert context.get_spawning_popen() is outer
    assert context.get_spawning_popen() is None


# What is refused


def test_a_lock_for_fork_is_refused_with_the_way_out():
    text = r'start method fork, .* make it with multiprocessing.get_context\("spawn"\)'
    with pytest.raises(Unpicklable, match=text):
        inherited(multiprocessing.get_context("fork").Lock())


@pytest.mark.parametrize(
    "make",
    [
        lambda context: context.Lock(),
        lambda context: context.Condition(),
        lambda context: context.Barrier(2),
        lambda context: context.Event(),
        lambda context: context.SimpleQueue(),
        lambda context: context.Value("i"),
    ],
)
def test_no_event_carries_what_a_process_gets_at_its_start(context, make):
    value = make(context)
    with pytest.raises(TypeError, match="can be given to a process only at its start"):
        refuse(value)


def test_a_subclass_is_refused_and_a_class_of_the_same_name_is_not(context):
    class Event:
        """The user's own."""

    class Mine(socket.socket):
        pass

    assert refuse(Event()) is NotImplemented
    for kind in (socket.socket, Mine):
        with kind() as one, pytest.raises(TypeError, match="only at its start"):
            refuse(one)
