"""Emitters of the test's own process, for the public socket: each a server or a client of its own."""

from __future__ import annotations

import threading
from typing import Any

from ipevents import Emitter, Message
from ipevents._dispatch.floor import Floor

CEILING_SECONDS = 30.0  # of every wait; reached only in a deadlock
LIFECYCLE = ("ready", "online", "offline", "parent", "error", "stopping")


class Recorder:
    """An emitter that notes what it hears: lifecycle, ``evt``, and further events."""

    def __init__(self, *events: str, **socket: Any) -> None:
        self.emitter = Emitter().options(socket={"host": "127.0.0.1", "delayReconnect": 50, **socket})
        self.emitter._node.dispatcher.floor = Floor()  # it stands for a process
        self.heard: list[Message] = []
        self.changed = threading.Condition()
        for event in (*LIFECYCLE, "evt", *events):
            self.emitter.on(event, self.hear)

    def hear(self, message: Message, *args: Any, **kwargs: Any) -> None:
        with self.changed:
            self.heard.append(message)
            self.changed.notify_all()

    def start(self) -> Recorder:
        self.emitter.start()
        return self

    @property
    def pid(self) -> str:
        return self.emitter.pid

    def of(self, event: str, origin: str | None = None) -> list[Message]:
        """The messages of an event so far, of one origin or of all."""
        with self.changed:
            return [item for item in self.heard if item.event == event and origin in (None, item.from_)]

    def args(self, event: str) -> list[Any]:
        """The first arguments of an event's messages so far."""
        return [item.args[0] for item in self.of(event)]

    def wait(self, event: str, origin: str | None = None, count: int = 1) -> Message:
        """Wait until so many of an event have come; returns the last of them."""
        with self.changed:
            arrived = self.changed.wait_for(lambda: len(self.of(event, origin)) >= count, CEILING_SECONDS)
            assert arrived, f"waited in vain for {count} {event!r} of {origin}; heard: {self.heard}"
        return self.of(event, origin)[count - 1]

    def forget(self) -> None:
        with self.changed:
            self.heard.clear()

    def joined(self) -> Recorder:
        """Start, and wait until the server has answered."""
        self.start()
        self.wait("parent")
        return self


def fence(*recorders: Recorder) -> None:
    """Wait until everything that was sent so far has arrived: all broadcast a mark, twice."""
    for number in range(2):
        before = {recorder: len(recorder.of("mark")) for recorder in recorders}
        for recorder in recorders:
            recorder.emitter.broadcast("mark", number)
        for recorder in recorders:
            recorder.wait("mark", count=before[recorder] + len(recorders) - 1)
