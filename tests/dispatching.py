"""A dispatcher that keeps what it reports, and listeners that note that they were called."""

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
