"""Every exception of the library, one tree.

::

    IPEventsError
    ├── OptionsError (ValueError)         options() got an unknown name or a wrong value
    ├── InvalidEvent (ValueError)         an event name that is no non-empty str
    │   └── ReservedEvent                 a name of the library's own
    ├── InvalidListener (TypeError)       a listener that cannot take a message
    ├── NotStarted (RuntimeError)         used before start()
    ├── Closed (RuntimeError)             used after stop()
    ├── ForkedError (RuntimeError)        used in a process made by os.fork()
    ├── WouldDeadlock (RuntimeError)      a listener tried to wait for an event or an answer
    ├── SendError                         a send that the caller got wrong, or has no room for
    │   ├── UnknownProcess (LookupError)  no such child, no such next hop
    │   ├── NotConnected (ConnectionError)  the server is away just now
    │   ├── Unpicklable (TypeError)       an argument or target that pickle refuses
    │   ├── MessageTooLarge (ValueError)  more than the socket's maxMessage
    │   └── OutboxFull                    a listener sent faster than the peer reads, or has too many requests
    ├── DeliveryError                     what happened to an event later, elsewhere
    │   ├── Undeliverable                 a route that broke further on
    │   ├── UnreadablePayload             arguments that cannot be unpickled here
    │   └── SlowPeer                      events dropped for a peer that reads nothing
    ├── ProcessError                      what happened to a child process
    │   ├── StartFailed                   it ended before it was online
    │   ├── TargetFailed                  its program raised after it was online
    │   ├── Hung                          its listener ran for longer than hangTimeout
    │   ├── GaveUp                        it died young maxRestarts times
    │   ├── ChildEnded                    it ended before what was waited for came
    │   └── WorkerRefused (RuntimeError)  worker() or fork() where it cannot work
    ├── RequestError                      what another process was to answer came to nothing
    │   ├── NoAnswerer (LookupError)      nobody answers such requests there
    │   ├── AnswererLost                  the process that had the request is gone
    │   ├── RequestTimeout (TimeoutError) no answer came in time
    │   ├── PoolFailed                    the workers of a pool do not start, or do not stay
    │   └── RemoteError                   what another process raised
    ├── LinkError (ConnectionError)       what happened to a connection
    │   ├── AddressInUse                  something that is not ipevents answers there
    │   ├── AuthenticationFailed          the two ends have different keys
    │   ├── HandshakeTimeout (TimeoutError)  the other end said nothing, or too slowly
    │   ├── SilentPeer (TimeoutError)     the other end is dead, or stopped within a frame
    │   └── ProtocolError                 bytes that make no sense
    │       └── Forged                    an origin or a path that cannot be
    └── KeyFileError (OSError)            the user's key file cannot be read or made

The second base, in brackets, is the builtin exception with the same meaning, so that code which knows only
that one can catch it. A mistake in a call is raised by the call, or becomes an ``error`` event if there is a
listener for ``error`` (``Emitter`` says for which calls). What fails later or elsewhere is always an
``error`` event. A RequestError is neither: it is raised where the answer is waited for.
"""

from __future__ import annotations

__all__ = [
    "AddressInUse",
    "AnswererLost",
    "AuthenticationFailed",
    "ChildEnded",
    "Closed",
    "DeliveryError",
    "Forged",
    "ForkedError",
    "GaveUp",
    "HandshakeTimeout",
    "Hung",
    "IPEventsError",
    "InvalidEvent",
    "InvalidListener",
    "KeyFileError",
    "LinkError",
    "MessageTooLarge",
    "NoAnswerer",
    "NotConnected",
    "NotStarted",
    "OptionsError",
    "OutboxFull",
    "PoolFailed",
    "ProcessError",
    "ProtocolError",
    "RemoteError",
    "RequestError",
    "RequestTimeout",
    "ReservedEvent",
    "SendError",
    "SilentPeer",
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
    """Return a value's ``repr`` for the text of an error, cut to ``most`` characters.

    If the ``repr`` fails with an Exception, the class and address of the value are shown instead. Other
    exceptions pass through: Ctrl-C, or one by which a signal handler ends the program.
    """
    try:
        text = str.__str__(repr(_begin(value, most)))  # a plain one: repr may return any subclass of str
    except Exception:  # __repr__ is code of the user, which may raise anything
        text = f"<{_class_name(value)} object at {id(value):#x}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _begin(value: object, most: int, levels: int = 6) -> object:
    """Return the beginning of a long plain value, whose ``repr`` is the same up to ``most`` characters.

    What a peer has sent may be long; its whole ``repr`` would take four times as much memory.
    """
    if isinstance(value, str | bytes | bytearray) and type(value) in (str, bytes, bytearray):
        return value[:most]
    if isinstance(value, tuple | list) and type(value) in (tuple, list) and levels:
        return type(value)([_begin(item, most, levels - 1) for item in value[:most]])
    return value


def _class_name(value: object) -> str:
    """Return the name of a value's class, even if a metaclass redefines ``__name__``."""
    return str(type.__dict__["__name__"].__get__(type(value)))


class IPEventsError(Exception):
    """The base of all exceptions that the library raises or reports."""


class OptionsError(IPEventsError, ValueError):
    """An option has an unknown name or a wrong value, or can no longer take effect."""


class InvalidEvent(IPEventsError, ValueError):
    """An event name is not a non-empty string of at most 256 bytes."""


class ReservedEvent(InvalidEvent):
    """The event's name is the library's own: ready, online, offline, parent, stopping; error when sent."""


class InvalidListener(IPEventsError, TypeError):
    """The listener is not callable, or its parameters cannot take a message."""


class NotStarted(IPEventsError, RuntimeError):
    """Something was sent before ``start()``."""


class Closed(IPEventsError, RuntimeError):
    """The emitter was stopped or is stopping, so it cannot send, ask, wait or start children."""


class ForkedError(IPEventsError, RuntimeError):
    """This process was made by ``os.fork()``: the emitter it inherited belongs to its parent."""


class WouldDeadlock(IPEventsError, RuntimeError):
    """A listener, or a callback of an Answer, tried to wait. What it waits for cannot come while it runs.

    What it tried to wait for is an event, an answer or an end.
    """

    def __str__(self) -> str:
        return f"{super().__str__()}; register a listener for what is to come, or wait in the main thread"


class SendError(IPEventsError):
    """A send was refused by the call itself. Nothing was sent."""


class UnknownProcess(SendError, LookupError):
    """This process has no child with this pid, or no neighbour that is the next hop of the route."""


class NotConnected(SendError, ConnectionError):
    """There is no connection to the server at this moment; it may come back."""


class Unpicklable(SendError, TypeError):
    """An argument, or the target of a worker, cannot be pickled."""


class MessageTooLarge(SendError, ValueError):
    """The message is larger than the option ``socket.maxMessage`` of one of the two ends allows."""


class OutboxFull(SendError):
    """A listener sent over a link whose outbox is full. In a listener a send never waits for room.

    Or 100,000 requests are open over a link, wherever the next one is made.
    """


class DeliveryError(IPEventsError):
    """An event was lost after the send had returned, here or in another process."""


class Undeliverable(DeliveryError):
    """An event did not arrive. Reported in the process that sent it.

    Attributes: ``event``, its name; ``at``, the pid of the process where it stopped; ``target``, the pid that
    it was to go to from there (or None); ``cause``, a short text.
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
    """The arguments of an event, or the function of a job, could not be unpickled in this process.

    Only this event or job is lost.
    """


class SlowPeer(DeliveryError):
    """A peer took nothing for a second while the outbox to it was full. Events to it are being dropped."""


class ProcessError(IPEventsError):
    """Something went wrong with a child process."""


class StartFailed(ProcessError):
    """A child ended before it was online, or could not be started again.

    Attributes: ``pid``; ``exitcode`` (None if it is not known); ``traceback``, that of the child (or "");
    ``why`` it could not be started again (or ""); ``name``, the child's. The text of the exception has only
    the last line of the traceback, because the child itself has printed all of it to stderr.
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
            return f"{child} could not be started again: {_printable(self.why)}"
        return _ended(f"{child} ended before it was online", self.exitcode, self.traceback)


class TargetFailed(ProcessError):
    """The function or script of a child raised an exception after the child was online.

    Attributes: ``pid``; ``exitcode`` (None if it is not known); ``traceback``, that of the child; ``name``,
    the child's. The text of the exception has only the last line of the traceback, because the child itself
    has printed all of it to stderr.
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
    """Return what a child is called in texts for people: ``child resize (4718)``."""
    return f"child {name} ({pid})" if name else f"child {pid}"


def _ended(text: str, exitcode: int | None, traceback: str) -> str:
    """Return the text with the exit code and the last line of the traceback."""
    text = f"{text}, exit code {exitcode}"
    words = last_words(traceback)
    return f"{text}: {_printable(words)}" if words else text


def _printable(text: str) -> str:
    """Return a text of another process with escapes for what is not printable."""
    return "".join([char if char.isprintable() else repr(char)[1:-1] for char in text])


def last_words(traceback: str) -> str:
    """Return the exception at the end of a traceback, and of its text the first line."""
    lines = traceback.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    return next(iter(lines[frames[-1] + 1 :] if frames else lines), "")


class GaveUp(ProcessError):
    """A child died young ``maxRestarts`` times in a row, and is not started again.

    Young means within 10 s of its start (``_core/restarts.py``).
    """


class ChildEnded(ProcessError):
    """A child has ended for good before what was waited for came.

    Attributes: ``pid``, that of its last process; ``name``, the child's; ``exitcode`` (None if it is not
    known). The cause of the exception is the last error about the child, if there was one.
    """

    def __init__(self, pid: str, name: str, exitcode: int | None) -> None:
        super().__init__(pid, name, exitcode)
        self.pid = pid
        self.name = name
        self.exitcode = exitcode

    def __str__(self) -> str:
        return f"{child_title(self.name, self.pid)} has ended, exit code {self.exitcode}"


class RequestError(IPEventsError):
    """Something that another process was to answer came to nothing.

    It has subclasses for what may come of a request. This class itself is raised where the answerer, or a
    process on the way, has refused the request or the answer: too much waits there, or an answer is larger
    than ``socket.maxMessage``. The text says which.
    """


class NoAnswerer(RequestError, LookupError):
    """Nobody answers such a request there: no function is registered for it, or there is no such process.

    Attributes: ``event``; ``pid``, that of the process that was asked, or could not be; ``why``, a short
    text; ``attempts``, how often the request was given out.
    """

    def __init__(self, event: str, pid: str, why: str, attempts: int = 1) -> None:
        super().__init__(event, pid, why, attempts)
        self.event = event
        self.pid = pid
        self.why = why
        self.attempts = attempts

    def __str__(self) -> str:
        return f"request {self.event!r} has no answerer: {_printable(self.why)}"


class AnswererLost(RequestError):
    """The process that had the request is gone, and will not answer.

    Attributes: ``event``; ``pid`` and ``name`` of the process that is gone, or behind which the answerer was;
    ``exitcode`` (None if it is not known); ``begun``, whether it had begun with the request: False is
    certain, True means that it may also have finished, None that it is not known; ``attempts``.
    """

    def __init__(
        self,
        event: str,
        pid: str,
        name: str = "",
        exitcode: int | None = None,
        begun: bool | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(event, pid, name, exitcode, begun, attempts)
        self.event = event
        self.pid = pid
        self.name = name
        self.exitcode = exitcode
        self.begun = begun
        self.attempts = attempts

    def __str__(self) -> str:
        begun = {True: "it was begun", False: "it was not begun", None: "it may have been begun"}[self.begun]
        title = child_title(self.name, self.pid) if self.name else f"process {self.pid}"
        code = "" if self.exitcode is None else f", exit code {self.exitcode}"
        times = "" if self.attempts == 1 else f"; given out {self.attempts} times"
        return f"request {self.event!r} is not answered, {begun}: {title} is gone{code}{times}"


class RequestTimeout(RequestError, TimeoutError):
    """No answer came in time. What runs in the answerer goes on, and sees ``ipem.cancelled()``.

    Attributes: ``event``; ``pid`` of the process that was asked ("" for several, or for the one at the top);
    ``seconds``, the limit; ``attempts``, how often the request was given out.
    """

    def __new__(cls, *args: object, **kwargs: object) -> RequestTimeout:  # noqa: ARG004  # for __init__
        return super().__new__(cls)  # OSError would take them for an errno, its text and the name of a file

    def __init__(self, event: str, pid: str, seconds: float, attempts: int = 1) -> None:
        super().__init__()
        self.args = (event, pid, seconds, attempts)
        self.event = event
        self.pid = pid
        self.seconds = seconds
        self.attempts = attempts

    def __str__(self) -> str:
        who = f" of {self.pid}" if self.pid else ""
        return f"request {self.event!r}: no answer{who} within {self.seconds:g} s"


class RemoteError(RequestError):
    """What another process raised: itself where it cannot be rebuilt here, otherwise the cause of it.

    Attributes: ``typeName``, with its module; ``text``; ``traceback``, that of the other process; ``pid`` and
    ``name`` of that process; ``event``, that of the request ("" for the function of a child); ``attempts``.
    """

    def __init__(
        self,
        typeName: str,  # noqa: N803  # as public
        text: str,
        traceback: str,
        pid: str,
        name: str = "",
        event: str = "",
        attempts: int = 1,
    ) -> None:
        super().__init__(typeName, text, traceback, pid, name, event, attempts)
        self.typeName = typeName
        self.text = text
        self.traceback = traceback
        self.pid = pid
        self.name = name
        self.event = event
        self.attempts = attempts

    def __str__(self) -> str:
        where = child_title(self.name, self.pid) if self.name else self.pid
        asked = f", asked for {self.event!r}" if self.event else ""
        return f"{self.typeName} in {where}{asked}: {self.text}\n{self.traceback}"


class PoolFailed(RequestError):
    """A pool can start no worker: three starts in a row have failed, by its ``initializer`` for example.

    ``__cause__`` is the last of these failures. All jobs that were open have this error.
    """


class Hung(ProcessError):
    """A listener of a child ran for longer than ``hangTimeout``, or the child gave no answer for so long.

    The child is killed. Attributes: ``pid``; ``name``, the child's; ``seconds``; ``listener``, a text that
    tells its name and place (or ""); ``stacks``, those of all threads of the child, or "" where it gave no
    answer; ``why`` it may have given none (or "").
    """

    def __init__(
        self, pid: str, name: str, seconds: float, listener: str = "", stacks: str = "", why: str = ""
    ) -> None:
        super().__init__(pid, name, seconds, listener, stacks, why)
        self.pid = pid
        self.name = name
        self.seconds = seconds
        self.listener = listener
        self.stacks = stacks
        self.why = why

    def __str__(self) -> str:
        title = child_title(self.name, self.pid)
        if self.why:
            return f"{title} hangs: it gave no answer for {self.seconds} s; {self.why}"
        listener = self.listener or "a listener"
        return f"{title} hangs: {listener}, has been running for {self.seconds} s"


class WorkerRefused(ProcessError, RuntimeError):
    """``worker()`` or ``fork()`` was called where it cannot work. The text says what to do instead."""


class LinkError(IPEventsError, ConnectionError):
    """Something went wrong with a connection."""


class AddressInUse(LinkError):
    """A program that does not speak the protocol of ipevents answers at the address."""


class AuthenticationFailed(LinkError):
    """The two ends hold different keys."""


class HandshakeTimeout(LinkError, TimeoutError):
    """The connection was made, but the other end did not finish the handshake in time (5 s)."""


class SilentPeer(LinkError, TimeoutError):
    """A peer over TCP did not answer for ``socket.deadAfter``, or stopped so long in the middle of a frame.

    Its machine is off, or the network between it and this process is cut. The connection ends; where there is
    a session, the next connection goes on with it.
    """


class ProtocolError(LinkError):
    """A peer sent bytes that are no frame or no record, or a record that is not allowed at this point."""


class Forged(ProtocolError):
    """What came is not what its sender can have sent.

    A record claims a path that cannot be: its last hop is not the peer, or its origin is not below it. Or a
    frame over TCP has a wrong seal or number: something between the two ends has changed, repeated or removed
    frames.
    """


class KeyFileError(IPEventsError, OSError):
    """The user's key file cannot be read or made. The text names the ways to do without it."""
