from __future__ import annotations

import functools
import threading

import pytest

from ipevents._dispatch.dispatcher import Dispatcher
from ipevents._dispatch.listeners import Registration, Wait, check_listener, key_of, listener_of
from ipevents._exceptions import InvalidListener


@pytest.fixture
def changed():
    """The events whose listeners have changed."""
    return []


@pytest.fixture
def dispatcher(changed):
    return Dispatcher(on_interest=changed.append, on_failure=print, on_exit=print, on_idle=print)


class Takes:
    def __call__(self, message):
        """Takes a message."""

    def method(self, message):
        """Takes a message."""

    def nothing(self):
        """Takes none."""

    async def waits(self, message):
        """A coroutine."""

    @staticmethod
    def static(message):
        """Takes a message."""

    @classmethod
    def of_class(cls, message):
        """Takes a message."""


class Awaits:
    async def __call__(self, message):
        """A coroutine."""


class Makes:
    def __init__(self, message):
        """Takes a message."""


class Empty:
    def __init__(self):
        """Takes none."""


async def coroutine(message):
    """A coroutine."""


def generator(message):
    yield message


async def stream(message):
    yield message


def positional(message, /):
    """Takes a message."""


def takes_all(*args):
    """Takes a message."""


def with_default(message=None, *, key=1):
    """Takes a message."""


def required_key(message, *, key):
    """Takes a message if the sender gives the key."""


def nothing():
    """Takes none."""


def only_keys(*, message):
    """Takes none that is positional."""


def only_keywords(**kwargs):
    """Takes none that is positional."""


@pytest.mark.parametrize(
    "listener",
    [
        positional,
        takes_all,
        with_default,
        required_key,
        lambda message: None,
        Takes(),
        Takes().method,
        Takes.static,
        Takes.of_class,
        Takes().static,
        Makes,
        print,
        [].append,
        int,
        dict,
        functools.partial(with_default),
        functools.partial(required_key, key=1),
        functools.lru_cache(positional),
        threading.Event().wait,
    ],
)
def test_what_takes_a_message_is_a_listener(listener):
    check_listener(listener)


@pytest.mark.parametrize(
    "listener",
    [
        None,
        5,
        "name",
        nothing,
        only_keys,
        only_keywords,
        lambda: None,
        lambda **kwargs: None,
        Takes().nothing,
        Empty,
        functools.partial(positional, 1),
        functools.partial(nothing),
        threading.Event().set,
        [].clear,
        coroutine,
        Takes().waits,
        Awaits(),
        functools.partial(coroutine),
        generator,
        stream,
        functools.partial(generator),
    ],
)
def test_what_can_take_none_is_refused_and_not_registered(dispatcher, changed, listener):
    with pytest.raises(InvalidListener):
        dispatcher.add("x", listener)
    assert dispatcher.count("x") == 0
    assert changed == []


def test_a_registration_stands_for_its_listener_and_a_wait_for_itself():
    registration, wait = Registration(None, positional, False), Wait(None, positional, False)
    assert [listener_of(item) for item in (registration, wait, positional)] == [positional, wait, positional]


class Unhashable:
    __hash__ = None

    def __call__(self, message):
        """Takes a message."""


def test_what_has_no_hash_is_found_by_its_identity():
    one, other = Unhashable(), Unhashable()
    assert key_of(one) == key_of(one) != key_of(other)
    assert key_of(positional) is positional
