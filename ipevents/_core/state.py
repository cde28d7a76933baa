"""The states of one emitter, and every way from one to the next, as a table.

Two threads may call ``start()`` and ``stop()`` at the same moment, a listener or a signal handler may call
``stop()`` in the middle of a ``start()``, and a start may fail at each of its steps. ``TRANSITIONS`` has a
row for each of these cases. A step that is in no row is a fault of the library and raises RuntimeError.

The usual way is ``NEW JOINING STARTING STARTED STOPPING ENDING CLOSED``, and from there to JOINING again.
``worker()`` before ``start()`` leads through OPEN instead of JOINING. Pure: the caller holds the state lock.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["STAGES", "TRANSITIONS", "Event", "LifeState", "Stage", "State"]


class State(Enum):
    """Where an emitter is between two of its lives."""

    NEW = "nothing runs; start() was not called, or has failed"
    JOINING = "start() connects to the socket or listens there; nothing else runs"
    OPEN = "threads run and children are possible; start() was not called"
    STARTING = "threads run and children are possible; start() is not done"
    STARTED = "start() has opened everything"
    STOPPING = "children end, and what is queued is sent"
    ENDING = "nothing comes in any more; links and threads end"
    CLOSED = "stopped; nothing runs"
    FORKED = "this process is a fork of the one that the emitter belongs to"


class Event(Enum):
    """What moves an emitter on."""

    START = "start() was called"
    OPENED = "the threads were started"
    JOINED = "start() has the socket, or needs none"
    FAILED = "start() gives up; what was there before it stays"
    UNDONE = "what is stopped begins from nothing: after a failed start, or in a fork"
    STOP = "a stop begins"
    GOODBYE = "all children have ended, and what was queued is written or lost"
    ENDED = "links and threads have ended"
    FORK = "os.fork() was called, this is the new process, and what ran belongs to the other"


class Stage(Enum):
    """What the state means for a send, a listener and a link, which need to know less."""

    NEW = "not started"
    OPEN = "running: threads, links, children"
    STOPPING = "stop() was asked for"
    CLOSED = "stopped"
    FORKED = "this process is a fork of the one that it belongs to"


STAGES: dict[State, Stage] = {
    State.NEW: Stage.NEW,
    State.JOINING: Stage.NEW,
    State.OPEN: Stage.OPEN,
    State.STARTING: Stage.OPEN,
    State.STARTED: Stage.OPEN,
    State.STOPPING: Stage.STOPPING,
    State.ENDING: Stage.CLOSED,
    State.CLOSED: Stage.CLOSED,
    State.FORKED: Stage.FORKED,
}

TRANSITIONS: dict[State, dict[Event, State]] = {
    State.NEW: {
        Event.START: State.JOINING,
        Event.OPENED: State.OPEN,
        Event.FORK: State.NEW,  # nothing runs that could belong to the parent
    },
    State.JOINING: {
        Event.OPENED: State.STARTING,
        Event.FAILED: State.NEW,
        Event.STOP: State.CLOSED,  # nothing was opened; start() notices and gives up
        Event.FORK: State.FORKED,
    },
    State.OPEN: {
        Event.START: State.STARTING,
        Event.STOP: State.STOPPING,
        Event.FORK: State.FORKED,
    },
    State.STARTING: {
        Event.JOINED: State.STARTED,
        Event.FAILED: State.OPEN,
        Event.STOP: State.STOPPING,
        Event.FORK: State.FORKED,
    },
    State.STARTED: {
        Event.STOP: State.STOPPING,
        Event.FORK: State.FORKED,
    },
    State.STOPPING: {
        Event.GOODBYE: State.ENDING,
        Event.FORK: State.FORKED,
    },
    State.ENDING: {
        Event.ENDED: State.CLOSED,
        Event.FORK: State.FORKED,
    },
    State.CLOSED: {
        Event.START: State.JOINING,  # only in a top process; a child ends with its emitter
        Event.UNDONE: State.NEW,
        Event.FORK: State.FORKED,
    },
    State.FORKED: {
        Event.FORK: State.FORKED,
    },
}


class LifeState:
    """The state of one emitter and its stage. Only ``change`` changes them, under the state lock."""

    __slots__ = ("stage", "state")

    def __init__(self) -> None:
        self.state = State.NEW
        self.stage = STAGES[self.state]

    def allows(self, event: Event) -> bool:
        """Return whether the table has a row for this event in the present state."""
        return event in TRANSITIONS[self.state]

    def change(self, event: Event) -> State:
        """Go to the state that follows on an event, and return it.

        Raises RuntimeError if the table has no such row.
        """
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            raise RuntimeError(f"{event.name} cannot happen to an emitter that is {self.state.name}")
        stage = STAGES[following]
        # Two plain assignments, between which no signal handler can run and raise.
        self.state = following
        self.stage = stage
        return following

    def __repr__(self) -> str:
        return f"<LifeState {self.state.name}>"
