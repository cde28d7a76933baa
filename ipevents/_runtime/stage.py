"""The stages of an emitter's life."""

from __future__ import annotations

from enum import Enum


class Stage(Enum):
    """NEW -> OPEN -> STOPPING -> CLOSED (-> OPEN again in a top process); FORKED in a fork of it."""

    NEW = "not started"
    OPEN = "running: threads, links, children"
    STOPPING = "stop() was asked for"
    CLOSED = "stopped"
    FORKED = "this process is a fork of the one that it belongs to"
