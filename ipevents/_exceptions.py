"""Every exception of the library, one tree.

::

    IPEventsError
    ├── OptionsError (ValueError)         options() got an unknown name or a wrong value
    ├── InvalidEvent (ValueError)         an event name that is no non-empty str
    │   └── ReservedEvent                 ready, online, offline, parent; error when sent
    ├── InvalidListener (TypeError)       a listener that cannot take a message
    ├── NotStarted (RuntimeError)         used before start()
    ├── Closed (RuntimeError)             used after stop()
    ├── ForkedError (RuntimeError)        used in a process made by os.fork()
    ├── WouldDeadlock (RuntimeError)      a listener tried to wait for an event
    ├── SendError                         a send that the caller got wrong, or has no room for
    │   ├── UnknownProcess (LookupError)  no such child, no such next hop
    │   ├── NotConnected (ConnectionError)  the server is away just now
    │   ├── Unpicklable (TypeError)       an argument or target that pickle refuses
    │   ├── MessageTooLarge (ValueError)  more than the socket's maxMessage
    │   └── OutboxFull                    a listener sent faster than the peer reads
    ├── DeliveryError                     what happened to an event later, elsewhere
    │   ├── Undeliverable                 a route that broke further on
    │   ├── UnreadablePayload             arguments that cannot be unpickled here
    │   └── SlowPeer                      events dropped for a peer that reads nothing
    ├── ProcessError                      what happened to a child process
    │   ├── StartFailed                   it ended before it was online
    │   ├── TargetFailed                  its program raised after it was online
    │   ├── GaveUp                        it died young maxRestarts times
    │   └── WorkerRefused (RuntimeError)  worker() or fork() where it cannot work
    ├── LinkError (ConnectionError)       what happened to a connection
    │   ├── AddressInUse                  something that is not ipevents answers there
    │   ├── AuthenticationFailed          the two ends have different keys
    │   ├── HandshakeTimeout (TimeoutError)  the other end said nothing, or too slowly
    │   └── ProtocolError                 bytes that make no sense
    │       └── Forged                    an origin or a path that cannot be
    └── KeyFileError (OSError)            the user's key file cannot be read or made

The second base, in brackets, is the builtin that means the same. What the caller did wrong is
raised at the call, or is an ``error`` event if somebody listens to ``error``; what goes wrong later
or elsewhere is always an ``error`` event.
"""

from __future__ import annotations

__all__ = [
    "AddressInUse",
    "AuthenticationFailed",
    "Closed",
    "DeliveryError",
    "Forged",
    "ForkedError",
    "GaveUp",
    "HandshakeTimeout",
    "IPEventsError",
    "InvalidEvent",
    "InvalidListener",
    "KeyFileError",
    "LinkError",
    "MessageTooLarge",
    "NotConnected",
    "NotStarted",
    "OptionsError",
    "OutboxFull",
    "ProcessError",
    "ProtocolError",
    "ReservedEvent",
    "SendError",
    "SlowPeer",
    "StartFailed",
    "TargetFailed",
    "Undeliverable",
    "UnknownProcess",
    "Unpicklable",
    "UnreadablePayload",
    "WorkerRefused",
    "WouldDeadlock",
]


_SHOWN = 80  # characters


def shown(value: object, most: int = _SHOWN) -> str:
    """A value as the text of an error names it: at most so many characters, whatever its ``repr`` does.

    What is no Exception comes out of it: Ctrl-C, perhaps, or what a signal handler raises to end the program.
    """
    try:
        text = str.__str__(repr(value))  # a plain one: repr may return any subclass of str
    except Exception:  # the user's code, which raises what it likes
        text = f"<{_class_name(value)} object at {id(value):#x}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _class_name(value: object) -> str:
    """The name of its class, also where a metaclass makes something else of that attribute."""
    return str(type.__dict__["__name__"].__get__(type(value)))


class IPEventsError(Exception):
    """Base of everything the library raises or reports."""


class OptionsError(IPEventsError, ValueError):
    """An option has an unknown name, a wrong type, or can no longer take effect."""


class InvalidEvent(IPEventsError, ValueError):
    """An event name is not a non-empty string of at most 256 bytes."""


class ReservedEvent(InvalidEvent):
    """The name belongs to the library: ready, online, offline, parent, and error when sent."""


class InvalidListener(IPEventsError, TypeError):
    """The listener is not callable, or cannot be called with a message."""


class NotStarted(IPEventsError, RuntimeError):
    """The emitter sends only after ``start()``."""


class Closed(IPEventsError, RuntimeError):
    """The emitter was stopped, or is stopping."""


class ForkedError(IPEventsError, RuntimeError):
    """This process was made by ``os.fork()``: the emitter it inherited belongs to its parent."""


class WouldDeadlock(IPEventsError, RuntimeError):
    """A listener tried to wait for an event; no event is delivered while a listener runs."""

    def __str__(self) -> str:
        return f"{super().__str__()}; register a listener for what is to come, or wait in the main thread"


class SendError(IPEventsError):
    """A send that was refused at the call; nothing was sent."""


class UnknownProcess(SendError, LookupError):
    """There is no such child, or no such next hop, at this process."""


class NotConnected(SendError, ConnectionError):
    """The way up is interrupted: the server is away and may come back."""


class Unpicklable(SendError, TypeError):
    """An argument, or the target of a worker, cannot be pickled."""


class MessageTooLarge(SendError, ValueError):
    """The message is larger than ``socket.maxMessage`` of one of the two ends."""


class OutboxFull(SendError):
    """A listener sent to a link that has no room; a listener never waits."""


class DeliveryError(IPEventsError):
    """Something that happened to an event after the send had returned."""


class Undeliverable(DeliveryError):
    """An event did not arrive.

    Attributes: ``event`` its name, ``at`` the pid where it stopped, ``target`` the pid that was
    wanted there (or None), ``cause`` a short text.
    """

    def __init__(self, event: str, at: str, target: str | None, cause: str) -> None:
        super().__init__(event, at, target, cause)
        self.event = event
        self.at = at
        self.target = target
        self.cause = cause

    def __str__(self) -> str:
        to = f" for {self.target}" if self.target else ""
        return f"event {self.event!r}{to} was not delivered: it stopped at {self.at}, {self.cause}"


class UnreadablePayload(DeliveryError):
    """The arguments of an event could not be unpickled here; only this event is lost."""


class SlowPeer(DeliveryError):
    """A peer took nothing for a second while its outbox was full; events to it are dropped."""


class ProcessError(IPEventsError):
    """Something that happened to a child process."""


class StartFailed(ProcessError):
    """A child ended before it was online, or could not be started again.

    Attributes: ``pid``, ``exitcode`` (None where it is not known), ``traceback`` the child's own
    (or ``""``), ``why`` it could not be started again (or ``""``), ``name`` the child's. The child has shown
    its traceback on stderr itself, so the text of the exception has the last line of it only.
    """

    def __init__(
        self, pid: str, exitcode: int | None, traceback: str = "", why: str = "", name: str = ""
    ) -> None:
        super().__init__(pid, exitcode, traceback, why, name)
        self.pid = pid
        self.exitcode = exitcode
        self.traceback = traceback
        self.why = why
        self.name = name

    def __str__(self) -> str:
        child = child_title(self.name, self.pid)
        if self.why:
            return f"{child} could not be started again: {self.why}"
        return _ended(f"{child} ended before it was online", self.exitcode, self.traceback)


class TargetFailed(ProcessError):
    """What a child ran, a function or a script, raised an exception after the child was online.

    Attributes: ``pid``, ``exitcode`` (None where it is not known), ``traceback`` the child's own, ``name``
    the child's. The child has shown its traceback on stderr itself, so the text of the exception has the last
    line of it only.
    """

    def __init__(self, pid: str, exitcode: int | None, traceback: str = "", name: str = "") -> None:
        super().__init__(pid, exitcode, traceback, name)
        self.pid = pid
        self.exitcode = exitcode
        self.traceback = traceback
        self.name = name

    def __str__(self) -> str:
        return _ended(f"{child_title(self.name, self.pid)} failed", self.exitcode, self.traceback)


def child_title(name: str, pid: str) -> str:
    """A child as texts for people name it: ``child resize (4718)``."""
    return f"child {name} ({pid})" if name else f"child {pid}"


def _ended(text: str, exitcode: int | None, traceback: str) -> str:
    # Not the whole traceback: the child has shown it on stderr.
    text = f"{text}, exit code {exitcode}"
    words = _last_words(traceback)
    return f"{text}: {words}" if words else text


def _last_words(traceback: str) -> str:
    """The exception at the end of a traceback, the first line of its text."""
    lines = traceback.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    return next(iter(lines[frames[-1] + 1 :] if frames else lines), "")


class GaveUp(ProcessError):
    """A child died young ``maxRestarts`` times and is not started again."""


class WorkerRefused(ProcessError, RuntimeError):
    """``worker()`` or ``fork()`` was called where it cannot work; the text says what to do."""


class LinkError(IPEventsError, ConnectionError):
    """Something that happened to a connection."""


class AddressInUse(LinkError):
    """Something that does not speak this protocol answers at the address."""


class AuthenticationFailed(LinkError):
    """The two ends hold different keys."""


class HandshakeTimeout(LinkError, TimeoutError):
    """The other end connected, or accepted, and did not finish its handshake in time."""


class ProtocolError(LinkError):
    """A peer sent bytes that are no frame, no record, or do not belong here."""


class Forged(ProtocolError):
    """A record names a last hop that is not the peer, or an origin that is not below it."""


class KeyFileError(IPEventsError, OSError):
    """The user's key file cannot be read or made; the text names the ways to do without it."""
