"""What travels between processes, and the ``Message`` that a listener gets.

A *record* is the unit on the wire: a tuple whose first item is its kind. There are two sorts.

A message record is ``(kind, path, event, to, payloads)``. It carries one or more messages that were sent one
after the other, all of the same kind, path and ``to``. ``path`` has the pids of the processes that they have
passed, the origin first. ``to`` is ``(target, hops still to go)`` for a ``sendTo`` and None for the other
kinds. ``payloads`` is a list with the arguments of each message. ``event`` is the one name that all of them
have, or a list with a name for each.

A control record carries what the library's own processes announce to each other. User code can make none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .._exceptions import InvalidEvent, ProtocolError, ReservedEvent, shown
from .callable_names import described

# Kinds of message records. A new one goes before LAST_MESSAGE, and into TYPE_NAMES.
TO_PARENTS = 1
TO_CHILDS = 2
TO_SIBLINGS = 3
TO_GRAND_MASTER = 4
BROADCAST = 5
TO_CHILD = 6
SEND_TO = 7
LAST_EVENT = SEND_TO  # a greater kind is that of a request or an answer
# Requests: to one process, along a route; to the process at the very top; to all that answer; to any one that
# does. And what comes back. Their payloads begin with a number, see _payload/numbered.py.
REQUEST = 8
REQUEST_GRAND_MASTER = 9
REQUEST_ALL = 10
ANSWER = 11
REQUEST_ANY = 12
LAST_MESSAGE = REQUEST_ANY  # a greater kind is that of a control record: see is_message

# What message.type says for each kind: the original's spelling (README, Message).
TYPE_NAMES = {
    TO_PARENTS: "toParents",
    TO_CHILDS: "toChilds",
    TO_SIBLINGS: "toSiblings",
    TO_GRAND_MASTER: "toGM",
    BROADCAST: "broadcast",
    TO_CHILD: "toChild",
    SEND_TO: "sendTo",
    REQUEST: "request",
    REQUEST_GRAND_MASTER: "requestGM",
    REQUEST_ALL: "requestAll",
    ANSWER: "answer",
    REQUEST_ANY: "requestAny",
}

# Kinds of control records. Their further items are in CONTROL_ITEMS.
INTEREST = 16  # the peer's subtree began or ceased to listen to an event
INTERESTS = 17  # all that the peer's subtree listens to; replaces what was known
MORE_INTERESTS = 26  # adds to INTERESTS, whose names are too many for one record
EVERYTHING = 31  # the peer's subtree wants every event; INTERESTS ends that
ONLINE = 18  # the origin of the path is online
OFFLINE = 19  # the origin of the path has noticed that gone[0] is gone, and gone is the way to it from there
PARENT = 20  # the parent's answer to ONLINE, and the news of its new name
STOP = 21  # end your part of the tree within this time
REPORT = 22  # an event that the route's target sent did not arrive; it was lost in the process ``at``
PROGRAM = 23  # what a child process is to run; has the items of a message record, for it has a payload, too
FAILED = 24  # the child's traceback; refused means that a restart is pointless
# This process ends by itself, after its target has returned or by stop(). goes_on: its main thread has called
# stop() and continues with the program afterwards.
FINISHED = 25
# The peer's frames up to this number were handled, and these are the outcomes of all its events in this
# session (books.py). A frame of it alone has no number.
ACKNOWLEDGED = 28
RESUMED = 29  # a session goes on with this connection: the same as ACKNOWLEDGED, and the next frame follows
GOODBYE = 30  # no other connection of this session follows
FAULT = 27  # the library or the system has failed in this process, which therefore ends
# Between two supervisors, over the control channel (control_channel.py); STOP comes there as well.
PROBE = 32  # the parent asks what runs in the child
# The child's answer: for how long one listener has been running (None: none runs), which one it is, and, if
# that is as long as the question says, the stacks of all threads. Not asked for, with number 0: one begins to
# run; or, with None, this process stops, and answers no more.
RUNS = 33
# What the function of a child came to, as the payload of a record that has the items of a message record.
RETURNED = 34
RAISED = 35
# So many processes of the peer's subtree answer requests of this event, and work on so many at once.
ANSWERS = 36
CANCEL = 37  # nobody waits for the answers to these requests any more; also over a control channel
# The process that has given out these requests takes back those that have not begun, because another one is
# idle; what is taken is answered as cancelled. Also over a control channel.
TAKE_BACK = 39
# No listener is told of the process with this path, whose ONLINE follows, nor of its end. Its parent says so:
# in a process above that, this comes directly before the ONLINE.
QUIET = 38

# The items of a control record after its kind: their names, in this order. See control() and items_of().
CONTROL_ITEMS: dict[int, tuple[str, ...]] = {
    INTEREST: ("event", "wanted"),
    INTERESTS: ("events",),
    MORE_INTERESTS: ("events",),
    EVERYTHING: (),
    ONLINE: ("path",),
    OFFLINE: ("path", "gone", "exitcode"),
    PARENT: ("pid",),
    STOP: ("milliseconds",),
    REPORT: ("route", "event", "at", "target", "cause"),
    FAILED: ("text", "refused"),
    FINISHED: ("goes_on",),
    FAULT: ("text",),
    ACKNOWLEDGED: ("number", "outcomes"),
    RESUMED: ("number", "outcomes"),
    GOODBYE: (),
    ANSWERS: ("event", "answerers", "capacity"),
    CANCEL: ("ids",),
    TAKE_BACK: ("event", "ids"),
    QUIET: ("path",),
}
# The same for those that come over a control channel only.
CHANNEL_ITEMS: dict[int, tuple[str, ...]] = {
    PROBE: ("number", "limit"),
    RUNS: ("number", "running", "listener", "text"),
}
# They have the items of a message record: a kind, nothing, and a payload.
WITH_PAYLOAD = frozenset({PROGRAM, RETURNED, RAISED})
_UNNUMBERED = frozenset({ACKNOWLEDGED, RESUMED})
# The places of items that may still change while their record waits.
NUMBER = 1 + CONTROL_ITEMS[ACKNOWLEDGED].index("number")
OUTCOMES = 1 + CONTROL_ITEMS[ACKNOWLEDGED].index("outcomes")

# The items of a message record.
KIND, PATH, EVENT, TO, PAYLOADS = range(5)
MESSAGE_ITEMS = 5
Header = tuple[int, tuple[str, ...], Any]  # kind, path, to
Record = Any  # tuple, or list where a pending record may still change; see outbox.py
Payload = Any  # tuple | bytes | list; see _payload/forms.py

RESERVED_EVENTS = frozenset({"ready", "online", "offline", "parent", "stopping"})
_NEVER_SENT = RESERVED_EVENTS | {"error"}
POOL_EVENT = "ipevents.pool."  # what the event begins with to which a pool sends its jobs
MAX_EVENT_BYTES = 256  # so that tables of names stay small
MAX_ROUTE = 64  # also the greatest depth of a tree
MAX_PATH = 2 * MAX_ROUTE  # up to the top and down again
MAX_INTEREST = 4096  # names of events that one neighbour wants; with more it counts as wanting every event
MAX_ANSWERERS = 1 << 20  # below one neighbour, of one event
MAX_CAPACITY = 1 << 30  # requests that one neighbour's subtree works on at once
MAX_IDS = 1024  # requests that are cancelled, or taken back, with one record
MAX_PID = 128  # characters; the handshake allows less
MAX_CAUSE = 1024  # characters of why an event was lost
MAX_TEXT = 1 << 20  # characters of what a child reports of its end, a traceback for example

_NO_KWARGS: Mapping[str, Any] = {}


def check_name(event: object) -> str:
    """Return an event's name as a plain str. Raises InvalidEvent for what cannot be one.

    A member of an enum of str becomes its value, because headers carry plain values only.
    """
    if not isinstance(event, str) or not event:
        raise InvalidEvent(f"an event name is a non-empty str, not {shown(event)}")
    if _is_long(event):
        raise InvalidEvent(f"an event name has at most {MAX_EVENT_BYTES} bytes, {event[:40]!r}... has more")
    return str.__str__(event)


def check_event(event: object, *, sending: bool) -> str:
    """Return the plain name of an event that user code wants to emit, or to send if ``sending``.

    Raises InvalidEvent as ``check_name`` does, and ReservedEvent for the library's own names. ``error`` is
    refused only when sending.
    """
    name = check_name(event)
    if name in RESERVED_EVENTS or (sending and name == "error"):
        verb = "sent" if sending else "emitted"
        raise ReservedEvent(
            f"the event {name!r} is the library's own and cannot be {verb}; choose another name"
        )
    return name


def check_received(kind: object, event: object, to: object, messages: object) -> None:
    """Raise ProtocolError if no router of ours makes a message record with these items.

    ``path`` is checked by ``Topology.accept``, which knows what is below the peer.
    """
    if type(kind) is not int or kind not in TYPE_NAMES:
        raise ProtocolError(f"a record of the kind {shown(kind)}, which there is not")
    if type(event) is not str or not event or _is_long(event):
        raise ProtocolError(f"a record with {shown(event)} as the name of its event")
    if event in _NEVER_SENT:
        raise ProtocolError(f"a record that claims to be the library's own event {event!r}")
    if type(messages) is not list or not messages:
        raise ProtocolError(f"a record with {shown(messages)} as its messages")
    if to is not None and not (kind in (SEND_TO, REQUEST) and _is_rest(to)):
        raise ProtocolError(f"a record of the kind {TYPE_NAMES[kind]} with {shown(to)} as its route")


def is_message(record: Record) -> bool:
    """Return whether this is a message record, as opposed to a control record.

    Also for a record of a peer, whose kind may be anything. Code that runs for each event compares without a
    call: ``record[KIND] <= LAST_MESSAGE``.
    """
    kind = record[KIND]
    return type(kind) is int and kind <= LAST_MESSAGE


def control(kind: int, **items: Any) -> Record:
    """A control record with these items, which are those of its kind in the tables above."""
    names = CONTROL_ITEMS[kind] if kind in CONTROL_ITEMS else CHANNEL_ITEMS[kind]
    assert len(items) == len(names)
    return (kind, *[items[name] for name in names])


def with_payload(kind: int, payload: Payload) -> Record:
    """Return a control record of one of the kinds in WITH_PAYLOAD."""
    return (kind, (), "", None, [payload])


def items_of(record: Record) -> dict[str, Any]:
    """The items of a control record by their names.

    Raises KeyError for a kind that CONTROL_ITEMS does not have, and ValueError where there are more items or
    fewer. The items themselves are whatever the peer has sent.
    """
    return dict(zip(CONTROL_ITEMS[record[KIND]], record[1:], strict=True))


def has_number(records: Iterable[Record]) -> bool:
    """Return whether the frame of these records has a number, see ``window.py``."""
    return any(record[KIND] not in _UNNUMBERED for record in records)


def count_messages(records: Iterable[Record]) -> int:
    """Return how many messages these records carry; control records count 0."""
    return sum(len(record[PAYLOADS]) for record in records if record[KIND] <= LAST_MESSAGE)


def make_record(header: Header | None, event: str | list[str], payloads: list[Payload]) -> Record:
    """Return a message record. ``event`` is a list if the messages have different events."""
    assert header is not None  # only plans for messages that pass have none, and no record is made from those
    kind, path, to = header
    return (kind, path, event, to, payloads)


def runs(record: Record) -> Iterator[Record]:
    """Split a record with a name for each message into records of one event each, in the same order."""
    kind, path, events, to, messages = record
    begin = 0
    for index, event in enumerate(events):
        if event != events[begin]:
            yield (kind, path, events[begin], to, messages[begin:index])
            begin = index
    yield (kind, path, events[begin], to, messages[begin:])


def check_names(events: object) -> tuple[str, ...]:
    """Return the names of events that a peer announces. Raises ProtocolError if they are none."""
    if type(events) is not tuple or not all(map(is_name, events)):
        raise ProtocolError(f"an announcement of interest in {shown(events)}, which are no names of events")
    return events


def is_name(value: object) -> bool:
    """Return whether a peer may have sent this as the name of an event."""
    return type(value) is str and value != "" and not _is_long(value)


def is_pid(value: object) -> bool:
    """Return whether a process can have this pid: printable ASCII without a space.

    A peer chooses its pid, and it is printed, logged and compared by people.
    """
    return (
        type(value) is str
        and 0 < len(value) <= MAX_PID
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def is_pids(value: object, most: int) -> bool:
    """Return whether ``value`` is a tuple of 1 to ``most`` pids."""
    return type(value) is tuple and 0 < len(value) <= most and all(map(is_pid, value))


def _is_rest(to: object) -> bool:
    """Return whether ``to`` is a target and the hops still to go to it."""
    return type(to) is tuple and len(to) == 2 and is_pid(to[0]) and is_pids(to[1], MAX_ROUTE)


def _is_long(event: str) -> bool:
    return len(event) * 4 > MAX_EVENT_BYTES and len(event.encode("utf-8", "surrogatepass")) > MAX_EVENT_BYTES


class Envelope:
    """What all messages of one kind, path and event have in common. Made once and kept, for speed.

    ``Message.reply`` calls ``send_to(pids, event, args, kwargs)``.
    """

    __slots__ = ("event", "exitcode", "kind", "pids", "send_to", "to")

    failed: Message | None = None
    listener: Callable[..., Any] | None = None
    child: Any = None

    def __init__(
        self,
        kind: int,
        pids: tuple[str, ...],
        event: str,
        send_to: Callable[..., Any],
        to: str | None = None,
        exitcode: int | None = None,
    ) -> None:
        self.kind = kind
        self.pids = pids
        self.event = event
        self.send_to = send_to
        self.to = to
        self.exitcode = exitcode


class ErrorEnvelope(Envelope):
    """The envelope of an ``error`` event, which also has what the error is about.

    When it is pickled, ``failed`` goes along as any message does. ``listener`` and ``child`` belong to this
    process, so they are None elsewhere.
    """

    __slots__ = ("child", "failed", "listener")

    def __init__(
        self,
        pids: tuple[str, ...],
        send_to: Callable[..., Any],
        failed: Message | None = None,
        listener: Callable[..., Any] | None = None,
        child: Any = None,
    ) -> None:
        super().__init__(0, pids, "error", send_to)
        self.failed = failed
        self.listener = listener
        self.child = child

    def __reduce__(self) -> tuple[Any, ...]:
        return ErrorEnvelope, (self.pids, self.send_to, self.failed)


class Message:
    """One event and where it comes from: the first argument of every listener. Immutable.

    An event of this process has one as well, whose ``pids`` are the own pid alone and whose ``type`` is "".
    Messages can be compared, hashed and pickled.
    """

    __slots__ = ("_args", "_envelope", "_kwargs")

    def __init__(
        self, envelope: Envelope, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _NO_KWARGS
    ) -> None:
        self._envelope = envelope
        self._args = args
        self._kwargs = kwargs

    @property
    def from_(self) -> str:
        """The pid of the process that sent the event."""
        return self._envelope.pids[0]

    @property
    def pids(self) -> tuple[str, ...]:
        """The pids of all processes on the way: the origin first, this process last.

        ``sendTo`` takes them as the route of a reply.
        """
        return self._envelope.pids

    @property
    def to(self) -> str | None:
        """The pid that the event was addressed to, for ``toChild`` and ``sendTo``; otherwise None."""
        return self._envelope.to

    @property
    def route(self) -> tuple[str, ...] | None:
        """The hops still to go: ``()`` for a ``sendTo``, which has arrived here; otherwise None."""
        return () if self._envelope.kind == SEND_TO else None

    @property
    def type(self) -> str:
        """How the event was sent: ``toParents toChilds toSiblings toGM broadcast toChild sendTo``.

        ``""`` for an event of this process. The names are those of the original for Node.
        """
        return TYPE_NAMES.get(self._envelope.kind, "")

    @property
    def event(self) -> str:
        """The event's name."""
        return self._envelope.event

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments of the event."""
        return self._args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments of the event, in a new dict each time."""
        return dict(self._kwargs)

    @property
    def exitcode(self) -> int | None:
        """On an ``offline``: the exit code of that process, as multiprocessing has it. None if not known."""
        return self._envelope.exitcode

    @property
    def failed(self) -> Message | None:
        """On an ``error`` about an event: its message, for example the one whose listener raised."""
        return self._envelope.failed

    @property
    def listener(self) -> Callable[..., Any] | None:
        """On an ``error`` that a listener raised: that listener. None after the message was pickled."""
        return self._envelope.listener

    @property
    def child(self) -> Any:
        """On an ``error`` about a child: the Child that ``worker()`` or ``fork()`` returned.

        None after the message was pickled.
        """
        return self._envelope.child

    def reply(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Send an event back to the origin of this one, as ``sendTo(message.pids, event, ...)``.

        For an event of this process that is a local ``emit``. Blocks and raises as ``sendTo`` does; in a
        listener it never blocks.
        """
        self._envelope.send_to(self._envelope.pids, event, args, kwargs)

    def _fields(self) -> tuple[Any, ...]:
        envelope = self._envelope
        return (
            envelope.kind,
            envelope.pids,
            envelope.event,
            envelope.to,
            envelope.exitcode,
            envelope.failed,
            envelope.listener,
            envelope.child,
            self._args,
            dict(self._kwargs),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((self._envelope.kind, self._envelope.pids, self._envelope.event))

    def __repr__(self) -> str:
        how = f"{self.type} " if self.type else ""
        more = f" kwargs={dict(self._kwargs)!r}" if self._kwargs else ""
        if self.failed is not None:
            more += f" failed={self.failed!r}"
        if self.listener is not None:
            more += f" listener={described(self.listener)}"
        if self.child is not None:
            more += f" child={self.child!r}"
        return f"<Message {how}{self.event!r} {'>'.join(self.pids)} args={self._args!r}{more}>"
