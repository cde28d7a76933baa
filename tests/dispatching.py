"""Dispatchers that note what they are told, for tests."""

from __future__ import annotations

from ipevents._core.messages import Envelope, Message
from ipevents._dispatch.dispatcher import Dispatcher

CEILING = 30.0  # reached only in a deadlock


class Recording(Dispatcher):
    """A dispatcher that keeps what it tells."""

    def __init__(self):
        self.interest = []
        self.failures = []
        self.exits = []
        self.idle = 0
        super().__init__(
            on_interest=lambda event: self.interest.append((event, self.listens_to(event))),
            on_failure=lambda exc, message, listener: self.failures.append((exc, message.event, listener)),
            on_exit=self.exits.append,
            on_idle=self.count_idle,
        )

    def count_idle(self):
        self.idle += 1

    def emit(self, event, *args, origin="me", **kwargs):
        return self.deliver(Message(Envelope(0, (origin,), event, print), args, kwargs), kwargs)


def hears(heard, name):
    """A listener that notes its name."""

    def listener(message, *args, **kwargs):
        heard.append(name)

    return listener


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


def methods(count):
    things = [Thing() for _ in range(count)]
    return [thing.method for thing in things]


def exits(code):
    def listener(message, *args, **kwargs):
        raise SystemExit(code)

    return listener


def holds_nothing(dispatcher):
    return (dispatcher._signals, dispatcher.kept) == ({}, {})
