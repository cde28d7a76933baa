"""The states of a child, and every way from one to the next, as two tables.

``Phase`` follows a child over all its restarts: whether it has a process, and whether there will be another
one. ``Contact`` follows one start: how far its process has come with its link. They are two tables because
neither waits for the other: a process may connect before the call that starts it has returned, and what a
process has written is still read after its end. A step that is in no row is a fault of the library and raises
RuntimeError. Pure: the caller holds the state lock.
"""

from __future__ import annotations

from enum import Enum

__all__ = [
    "CONTACTS",
    "PHASES",
    "Contact",
    "ContactEvent",
    "Phase",
    "PhaseEvent",
    "next_contact",
    "next_phase",
]


class Phase(Enum):
    """Where a child is between its first start and its final end."""

    NEW = "nothing was started yet"
    STARTING = "a process is being started; it may connect already"
    RUNNING = "a process runs"
    EXITED = "its process has ended; what that wrote is still read"
    WAITING = "no process; the next one starts after a delay"
    ENDED = "no process, and there will be none"


class PhaseEvent(Enum):
    """What takes a child from one phase to the next."""

    START = "a process is about to be started"
    STARTED = "the process runs"
    EXITED = "the process has ended"
    AGAIN = "another start follows: the process is read to its end, or its start has failed"
    END = "no other start follows"


PHASES: dict[Phase, dict[PhaseEvent, Phase]] = {
    Phase.NEW: {
        PhaseEvent.START: Phase.STARTING,
        PhaseEvent.END: Phase.ENDED,
    },
    Phase.STARTING: {
        PhaseEvent.STARTED: Phase.RUNNING,
        PhaseEvent.AGAIN: Phase.WAITING,
        PhaseEvent.END: Phase.ENDED,
    },
    Phase.RUNNING: {
        PhaseEvent.EXITED: Phase.EXITED,
        PhaseEvent.END: Phase.ENDED,  # the supervisor has failed, and has killed it
    },
    Phase.EXITED: {
        PhaseEvent.AGAIN: Phase.WAITING,
        PhaseEvent.END: Phase.ENDED,
    },
    Phase.WAITING: {
        PhaseEvent.START: Phase.STARTING,
        PhaseEvent.END: Phase.ENDED,
    },
    Phase.ENDED: {},
}


class Contact(Enum):
    """How far the process of one start has come with its link to its parent, this process."""

    AWAITED = "it has not connected"
    ADMITTED = "it has proved its token; its link gets the connection in a moment"
    CONNECTED = "it has its link"
    ONLINE = "it has said online"
    READ = "its link is read to the end: nothing comes from this start any more"


class ContactEvent(Enum):
    """What takes the contact of one start a step further."""

    ADMITTED = "the handshake has succeeded"
    CONNECTED = "the connection is the link's, or will be as soon as the start has returned"
    ONLINE = "its online has come"
    READ = "the link's reader has come to the end"


CONTACTS: dict[Contact, dict[ContactEvent, Contact]] = {
    Contact.AWAITED: {
        ContactEvent.ADMITTED: Contact.ADMITTED,
    },
    Contact.ADMITTED: {
        ContactEvent.CONNECTED: Contact.CONNECTED,
    },
    Contact.CONNECTED: {
        ContactEvent.ONLINE: Contact.ONLINE,
        ContactEvent.READ: Contact.READ,
    },
    Contact.ONLINE: {
        ContactEvent.READ: Contact.READ,
    },
    Contact.READ: {},
}


def next_phase(phase: Phase, event: PhaseEvent) -> Phase:
    """Return the phase that follows on an event. Raises RuntimeError if the table has no such row."""
    following = PHASES[phase].get(event)
    if following is None:
        raise RuntimeError(f"{event.name} cannot happen to a child that is {phase.name}")
    return following


def next_contact(contact: Contact, event: ContactEvent) -> Contact:
    """Return the contact that follows on an event. Raises RuntimeError if the table has no such row."""
    following = CONTACTS[contact].get(event)
    if following is None:
        raise RuntimeError(f"{event.name} cannot happen to a start that is {contact.name}")
    return following
