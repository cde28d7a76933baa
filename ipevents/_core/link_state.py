"""The states of a link: its connection, the right to write to it, and what its writer thread was asked for.

Three small state machines, each with all its transitions in a table. ``Connection`` changes a few times in
the life of a link, by ``LinkState.change``, which raises for a step that the table does not have. ``Right``
and ``Summons`` change with every frame. So the code in ``_links`` assigns them without a check, and the tests
of links compare each of these assignments with the table. Pure: the caller holds the state lock.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["CONNECTIONS", "RIGHTS", "SUMMONS", "Connection", "LinkEvent", "LinkState", "Right", "Summons"]


class Connection(Enum):
    """Whether a link has a connection, and whether it will ever have another one."""

    NONE = "no connection yet, or none between two of them"
    OPEN = "a connection that the reader reads; whether it can still be written to is Stream.failed"
    ENDING = "no other connection will follow; the reader reads this one to its end"
    ENDED = "no connection any more; both threads end"


class LinkEvent(Enum):
    """What takes a link from one state of its connection to the next."""

    ATTACHED = "there is a new connection"
    READ = "the reader has read the connection to its end"
    END = "nobody needs the link any more"


CONNECTIONS: dict[Connection, dict[LinkEvent, Connection]] = {
    Connection.NONE: {
        LinkEvent.ATTACHED: Connection.OPEN,
        LinkEvent.END: Connection.ENDED,
    },
    Connection.OPEN: {
        LinkEvent.READ: Connection.NONE,
        LinkEvent.END: Connection.ENDING,
    },
    Connection.ENDING: {
        LinkEvent.READ: Connection.ENDED,
        LinkEvent.END: Connection.ENDING,  # end() may be called twice
    },
    Connection.ENDED: {
        LinkEvent.END: Connection.ENDED,
    },
}


class LinkState:
    """The state of one link's connection, and whether the link has ended: no other connection will follow.

    Only ``change`` changes them. The caller holds the state lock.
    """

    __slots__ = ("connection", "ended")

    def __init__(self) -> None:
        self.connection = Connection.NONE
        self.ended = False

    def allows(self, event: LinkEvent) -> bool:
        """Return whether the table has a row for this event in the present state."""
        return event in CONNECTIONS[self.connection]

    def change(self, event: LinkEvent) -> Connection:
        """Go to the state that follows on an event, and return it.

        Raises RuntimeError if the table has no such row.
        """
        following = CONNECTIONS[self.connection].get(event)
        if following is None:
            raise RuntimeError(f"{event.name} cannot happen to a link that is {self.connection.name}")
        ended = following is Connection.ENDING or following is Connection.ENDED
        # Nothing is called between the two: no signal handler may raise there.
        self.connection = following
        self.ended = ended
        return following

    def __repr__(self) -> str:
        return f"<LinkState {self.connection.name}>"


class Right(Enum):
    """The right to write to a link's socket. At most one thread has it at a time."""

    FREE = "nobody writes"
    CLAIMED = "a thread has taken a frame out of the outbox, and is about to write it"
    WRITING = "a thread is writing"
    LEFT = "a thread has left something unwritten; the writer thread goes on with it"


RIGHTS: dict[Right, dict[Right, str]] = {
    Right.FREE: {
        Right.CLAIMED: "claim(), claim_now(), or the writer thread when it finds something to write",
    },
    Right.CLAIMED: {
        Right.FREE: "nothing was waiting, or give_back() after the link has ended",
        Right.WRITING: "write_now(), or the writer thread",
        Right.LEFT: "give_back(): an exception of a signal handler, and the claimed frame is still unwritten",
    },
    Right.WRITING: {
        Right.FREE: "everything is written",
        Right.CLAIMED: "the writer thread takes the next frame; or an exception of a signal handler is about "
        "to leave write_now(), and give_back() follows",
        Right.LEFT: "the kernel did not take everything at once",
    },
    Right.LEFT: {
        Right.WRITING: "the writer thread goes on",
        Right.FREE: "the writer thread finds that the link has ended",
    },
}


class Summons(Enum):
    """What the writer thread was asked to do. Only that thread itself sets ASLEEP and LINGERS."""

    ASLEEP = "nothing; it waits until it is woken, or until an acknowledgement is due"
    LINGERS = "nothing; it looks by itself in a moment, or is looking now"
    CALLED = "it has been woken: something waits that may linger"
    PROMPTED = "it has been woken: what waits is to be written now"


SUMMONS: dict[Summons, dict[Summons, str]] = {
    Summons.ASLEEP: {
        Summons.CALLED: "defer()",
        Summons.PROMPTED: "prompt(), or an acknowledgement will be due",
        Summons.LINGERS: "an acknowledgement is due",
    },
    Summons.LINGERS: {
        Summons.ASLEEP: "it found nothing to do several times in a row",
        Summons.PROMPTED: "prompt()",
    },
    Summons.CALLED: {
        Summons.PROMPTED: "prompt()",
        Summons.LINGERS: "it has woken up",
    },
    Summons.PROMPTED: {
        Summons.LINGERS: "it has woken up",
    },
}
