"""The signal of an event by way of a dispatcher: what is connected, found, and let go of."""

from __future__ import annotations

import gc
import threading

import blinker
import pytest
from dispatching import CEILING, hears

from ipevents._exceptions import InvalidListener

# Finding one of many


def test_the_newest_registration_goes_first(dispatcher, heard):
    listener = hears(heard, "twice")
    dispatcher.add("x", listener)
    dispatcher.add("x", hears(heard, "between"))
    dispatcher.add("x", listener)
    dispatcher.remove("x", listener)
    dispatcher.emit("x")
    assert heard == ["twice", "between"]


def test_a_bound_method_is_found_again(dispatcher):
    class Thing:
        def method(self, message):
            """Nothing."""

    thing = Thing()
    dispatcher.add("x", thing.method)
    dispatcher.remove("x", thing.method)
    assert dispatcher.count("x") == 0


class Thing:
    """Its methods are made anew at each look; two of them are equal if they are of the same thing."""

    def method(self, message):
        """Nothing."""


class Named:
    """Equal ones need not be the same."""

    def __init__(self, name):
        self.name = name

    def __call__(self, message):
        """Nothing."""

    def __eq__(self, other):
        return isinstance(other, Named) and self.name == other.name

    def __hash__(self):
        return hash(self.name)


class Unhashable(Named):
    __hash__ = None


@pytest.mark.parametrize("kind", [Named, Unhashable])
def test_a_listener_that_equals_a_registered_one_is_that_one(dispatcher, kind):
    dispatcher.add("x", kind("a"))
    dispatcher.add("x", kind("b"))
    dispatcher.add("x", kind("a"))
    dispatcher.remove("x", kind("a"))
    assert [listener.name for listener in dispatcher.listeners("x")] == ["a", "b"]
    dispatcher.remove("x", kind("c"))
    dispatcher.remove("x", kind("a"))
    assert [listener.name for listener in dispatcher.listeners("x")] == ["b"]


def test_a_listener_whose_hash_has_changed_is_found_all_the_same(dispatcher):
    listener = Named("a")
    dispatcher.add("x", listener)
    listener.name = "b"
    dispatcher.remove("x", listener)
    assert dispatcher.count("x") == 0


def test_a_method_of_a_list_is_found_again(dispatcher, heard):
    dispatcher.add("x", heard.append)
    dispatcher.remove("x", [].append)
    assert dispatcher.count("x") == 1
    dispatcher.remove("x", heard.append)
    assert dispatcher.count("x") == 0


@pytest.mark.parametrize("first", ["on", "connect"])
def test_the_newest_goes_first_however_it_was_connected(dispatcher, heard, first):
    listener, other = hears(heard, "x"), hears(heard, "other")
    calls = [
        lambda: dispatcher.add("x", listener),
        lambda: dispatcher.signal("x").connect(listener),
    ]
    for call in calls if first == "on" else reversed(calls):
        call()
        dispatcher.add("x", other)
    dispatcher.remove("x", listener)
    assert dispatcher.listeners("x") == [listener, other, other]
    dispatcher.remove("x", listener)
    assert dispatcher.listeners("x") == [other, other]


class Walked(dict):
    """A table that counts how many of its entries somebody walked over."""

    steps = 0

    def _walk(self):
        Walked.steps += len(self)

    def __iter__(self):
        self._walk()
        return super().__iter__()

    def __reversed__(self):
        self._walk()
        return super().__reversed__()

    def keys(self):
        self._walk()
        return super().keys()

    def values(self):
        self._walk()
        return super().values()

    def items(self):
        self._walk()
        return super().items()


class WalkedSenders(Walked):
    def __missing__(self, key):
        self[key] = bucket = set()
        return bucket


def functions(count):
    return [hears([], number) for number in range(count)]


def methods(count):
    things = [Thing() for _ in range(count)]
    return [thing.method for thing in things]


def callables(count):
    return [Named(number) for number in range(count)]


def one_function(count):
    return [print] * count


@pytest.mark.parametrize("make", [functions, methods, callables, one_function])
@pytest.mark.parametrize("way", ["on", "once", "sender", "connect"])
def test_what_is_done_for_one_listener_does_not_look_at_the_others(dispatcher, monkeypatch, make, way):
    signal = dispatcher.signal("x")
    signal.receivers, signal._by_sender = Walked(), WalkedSenders()
    monkeypatch.setattr(Walked, "steps", 0)
    listeners = make(100)
    for number, listener in enumerate(listeners):
        if way == "connect":
            signal.connect(listener)
        else:
            dispatcher.add("x", listener, once=way == "once", sender=str(number) if way == "sender" else None)
    assert dispatcher.count("x") == (1 if way == "connect" and make is one_function else 100)
    for listener in listeners:
        dispatcher.remove("x", listener)
    assert dispatcher.count("x") == 0
    assert Walked.steps == 0
    assert dispatcher.interest[0] == ("x", True)
    assert signal._same == {}


def test_once_listeners_that_fire_do_not_look_at_the_others(dispatcher, monkeypatch, heard):
    signal = dispatcher.signal("x")
    signal.receivers, signal._by_sender = Walked(), WalkedSenders()
    for number in range(100):
        dispatcher.add("x", hears(heard, number), once=True)
    monkeypatch.setattr(Walked, "steps", 0)
    dispatcher.emit("x")
    assert heard == list(range(100))
    assert Walked.steps == 100  # to find out whom to call
    assert dispatcher.count("x") == 0


def test_weak_receivers_that_are_collected_do_not_look_at_the_others(dispatcher, monkeypatch):
    signal = dispatcher.signal("x")
    signal.receivers, signal._by_sender = Walked(), WalkedSenders()
    things = [Thing() for _ in range(100)]
    for thing in things:
        signal.connect(thing.method)
    del thing
    monkeypatch.setattr(Walked, "steps", 0)
    while things:
        things.pop()
    gc.collect()
    assert dispatcher.count("x") == 0
    assert Walked.steps == 0


def test_what_is_put_into_a_place_that_is_just_taken_away_is_found(dispatcher, monkeypatch):
    """Between the look whether anything is left of a listener and the end of its place, it comes again."""
    dispatcher.add("x", print)
    signal = dispatcher.signal("x")

    class Table(dict):
        def pop(self, *args):
            if not again:
                again.append(1)
                dispatcher.add("x", print)
            return super().pop(*args)

    again = []
    signal._same = Table(signal._same)
    dispatcher.remove("x", print)
    assert dispatcher.count("x") == 1
    dispatcher.remove("x", print)
    assert dispatcher.count("x") == 0
    assert signal._same == {}


def test_what_is_put_into_a_place_that_was_taken_away_is_found(dispatcher):
    """As above, but the place goes after it was looked up and before it is filled."""
    dispatcher.add("x", print)
    signal = dispatcher.signal("x")

    class Table(dict):
        def setdefault(self, *args):
            found = super().setdefault(*args)
            if not again:
                again.append(1)
                dispatcher.remove("x", print)
            return found

    again = []
    signal._same = Table(signal._same)
    dispatcher.add("x", print)
    assert dispatcher.count("x") == 1
    dispatcher.remove("x", print)
    assert dispatcher.count("x") == 0
    assert signal._same == {}


def test_a_receiver_that_is_removed_while_it_is_connected_leaves_nothing(dispatcher, monkeypatch):
    signal = dispatcher.signal("x")

    class Table(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            dispatcher.remove("x", None)  # another thread, before blinker has filled its other tables

    signal.receivers = Table()
    dispatcher.add("x", print)
    assert dispatcher.count("x") == 0
    assert not any(signal._by_sender.values())
    assert not any(signal._by_receiver.values())
    assert signal._same == {}


# As a signal of blinker


def test_who_connects_to_the_signal_is_called_like_a_listener(dispatcher, heard):
    def receiver(message, *args, **kwargs):
        heard.append((message.event, args, kwargs))

    dispatcher.add("x", hears(heard, "first"))
    dispatcher.signal("x").connect(receiver)
    dispatcher.add("x", hears(heard, "last"))
    dispatcher.emit("x", 1, key=2)
    assert heard == ["first", ("x", (1,), {"key": 2}), "last"]
    assert dispatcher.count("x") == 3
    assert receiver in dispatcher.listeners("x")


def test_the_signal_is_blinkers_and_always_the_same(dispatcher):
    assert isinstance(dispatcher.signal("x"), blinker.Signal)
    assert dispatcher.signal("x") is dispatcher.signal("x")


def test_a_receiver_for_a_sender_hears_that_origin_only(dispatcher, heard):
    receiver = hears(heard, "you")
    dispatcher.signal("x").connect(receiver, sender="you")
    dispatcher.emit("x", origin="me")
    dispatcher.emit("x", origin="you")
    assert heard == ["you"]


@pytest.mark.parametrize("receiver", [None, 5, lambda: None])
def test_what_cannot_take_a_message_is_no_receiver(dispatcher, receiver):
    with pytest.raises(InvalidListener, match="receiver"):
        dispatcher.signal("x").connect(receiver)
    assert not dispatcher.listens_to("x")


@pytest.mark.parametrize("sender", [None, 4711, b"4711"])
def test_a_sender_that_no_event_has_is_refused(dispatcher, sender):
    with pytest.raises(TypeError, match=f"a pid, a str, not {sender!r}"):
        dispatcher.signal("x").connect(print, sender=sender)
    assert not dispatcher.listens_to("x")


def test_a_receiver_that_left_its_only_sender_does_not_count(dispatcher, heard):
    receiver = hears(heard, "you")
    signal = dispatcher.signal("x")
    signal.connect(receiver, sender="you")
    signal.disconnect(receiver, sender="you")
    assert not dispatcher.listens_to("x")
    assert dispatcher.interest == [("x", True), ("x", False)]


def test_a_receiver_can_be_removed_like_a_listener(dispatcher, heard):
    receiver = hears(heard, "x")
    dispatcher.signal("x").connect(receiver)
    dispatcher.remove("x", receiver)
    assert not dispatcher.listens_to("x")


def test_a_weak_receiver_is_called_while_it_lives(dispatcher, heard):
    receiver = hears(heard, "weak")
    dispatcher.signal("x").connect(receiver)
    dispatcher.emit("x")
    del receiver
    gc.collect()
    assert not dispatcher.emit("x")
    assert heard == ["weak"]
    assert dispatcher.interest == [("x", True), ("x", False)]


def test_a_weak_method_is_called_while_its_object_lives(dispatcher, heard):
    class Thing:
        def method(self, message):
            heard.append("method")

    thing = Thing()
    dispatcher.signal("x").connect(thing.method)
    dispatcher.emit("x")
    dispatcher.emit("x")
    del thing
    gc.collect()
    dispatcher.emit("x")
    assert heard == ["method", "method"]


def test_a_muted_signal_calls_nobody(dispatcher, heard):
    dispatcher.add("x", hears(heard, "x"))
    dispatcher.emit("x")
    with dispatcher.signal("x").muted():
        assert not dispatcher.emit("x")
    dispatcher.emit("x")
    assert heard == ["x", "x"]


def test_threads_that_connect_and_disconnect_disturb_nobody_who_emits(dispatcher, heard):
    stop = threading.Event()
    failures = []

    def change(number):
        try:
            while not stop.is_set():
                for sender in (None, f"you {number}", f"another {number}"):
                    listener = hears([], number)
                    dispatcher.add("x", listener, sender=sender)
                    dispatcher.remove("x", listener)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        dispatcher.add("x", hears(heard, "x"))
        for _ in range(500):
            dispatcher.emit("x")
            dispatcher.listeners("x")
    finally:
        stop.set()
        for thread in threads:
            thread.join(CEILING)
    assert failures == []
    assert dispatcher.failures == []
    assert heard == ["x"] * 500
