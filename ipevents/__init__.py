"""ipevents: an inter-process event emitter. ``on`` in one process, ``emit`` in another.

``from ipevents import ipem`` gives the emitter of this process. Its attributes are those of the module as
well.
"""

from __future__ import annotations

import sys
from typing import Any

if sys.platform not in ("linux", "darwin"):
    raise ImportError(f"ipevents runs on Linux (and macOS, untested), not on {sys.platform}")

from ._child import Child
from ._core.messages import Message
from ._emitter import Emitter
from ._exceptions import (
    AddressInUse,
    AnswererLost,
    AuthenticationFailed,
    ChildEnded,
    Closed,
    DeliveryError,
    Forged,
    ForkedError,
    GaveUp,
    HandshakeTimeout,
    Hung,
    InvalidEvent,
    InvalidListener,
    IPEventsError,
    KeyFileError,
    LinkError,
    MessageTooLarge,
    NoAnswerer,
    NotConnected,
    NotStarted,
    OptionsError,
    OutboxFull,
    PoolFailed,
    ProcessError,
    ProtocolError,
    RemoteError,
    RequestError,
    RequestTimeout,
    ReservedEvent,
    SendError,
    SilentPeer,
    SlowPeer,
    StartFailed,
    TargetFailed,
    Undeliverable,
    UnknownProcess,
    Unpicklable,
    UnreadablePayload,
    WorkerRefused,
    WouldDeadlock,
)

__version__ = "0.1.0"

ipem = Emitter()

__all__ = [
    "AddressInUse",
    "AnswererLost",
    "AuthenticationFailed",
    "Child",
    "ChildEnded",
    "Closed",
    "DeliveryError",
    "Emitter",
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
    "Message",
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
    "__version__",
    "ipem",
]


def __getattr__(name: str) -> Any:
    """Look a name up in this process's emitter, so that ``import ipevents as ipem`` works as well."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(ipem, name)
