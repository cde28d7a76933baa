"""Control records as they arrive: which a peer may send at all, and what each of their items can be.

Whoever holds the key can send any bytes as a record. So its kind, its sender and the type and size of each
item are checked here, before anything is hashed, stored, shown or changed. Whether a record fits what is
known of the tree is for ``Topology`` to say, and whether an acknowledgement fits what was written, for
``Written``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._exceptions import Forged, ProtocolError, shown
from .books import are_outcomes
from .messages import (
    ANSWERS,
    CANCEL,
    CHANNEL_ITEMS,
    CONTROL_ITEMS,
    EVERYTHING,
    FAILED,
    FAULT,
    FINISHED,
    GOODBYE,
    INTEREST,
    INTERESTS,
    KIND,
    MAX_ANSWERERS,
    MAX_CAPACITY,
    MAX_CAUSE,
    MAX_IDS,
    MAX_PATH,
    MAX_TEXT,
    MORE_INTERESTS,
    OFFLINE,
    ONLINE,
    PARENT,
    PROBE,
    PROGRAM,
    QUIET,
    RAISED,
    RETURNED,
    RUNS,
    STOP,
    TAKE_BACK,
    WITH_PAYLOAD,
    Record,
    is_name,
    is_pid,
    is_pids,
    with_payload,
)

_FROM_BELOW = frozenset(
    {
        INTEREST,
        INTERESTS,
        MORE_INTERESTS,
        EVERYTHING,
        ONLINE,
        QUIET,
        OFFLINE,
        FAILED,
        FINISHED,
        FAULT,
        RETURNED,
        RAISED,
        ANSWERS,
    }
)
_FROM_ABOVE = frozenset({PARENT, STOP, PROGRAM, TAKE_BACK})
# About a process and the one that has started it, so never between a client and a server.
_PRIVATE = frozenset({STOP, PROGRAM, FAILED, FINISHED, FAULT, RETURNED, RAISED})
_PUBLIC = frozenset({GOODBYE})
# Over a control channel: from the parent, and from a child.
_DOWN_CHANNEL = frozenset({PROBE, STOP, CANCEL, TAKE_BACK})
_UP_CHANNEL = frozenset({RUNS, CANCEL})

_MAX_COUNT = 1 << 64  # frames, events, milliseconds
_MAX_EXITCODE = 1 << 32

Check = Callable[[Any], bool]


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def _is_names(value: Any) -> bool:
    return type(value) is tuple and all(map(is_name, value))


def _is_path(value: Any) -> bool:
    return is_pids(value, MAX_PATH)


def _is_text(most: int) -> Check:
    return lambda value: type(value) is str and len(value) <= most


def _are_counts(value: Any) -> bool:
    return are_outcomes(value) and all(map(_is_count, value))


def _are_ids(value: Any) -> bool:
    return type(value) is tuple and 0 < len(value) <= MAX_IDS and all(map(_is_count, value))


# By the names of CONTROL_ITEMS, where an item of one name is the same in all kinds.
_CHECKS: dict[str, Check] = {
    "answerers": lambda value: _is_count(value) and value <= MAX_ANSWERERS,
    "at": is_pid,
    "capacity": lambda value: _is_count(value) and value <= MAX_CAPACITY,
    "cause": _is_text(MAX_CAUSE),
    "event": is_name,
    "events": _is_names,
    "exitcode": lambda value: value is None or (type(value) is int and abs(value) < _MAX_EXITCODE),
    "goes_on": _is_bool,
    "gone": _is_path,
    "ids": _are_ids,
    "limit": _is_count,
    "listener": _is_text(MAX_CAUSE),
    "milliseconds": _is_count,
    "number": _is_count,
    "outcomes": _are_counts,
    "path": _is_path,
    "pid": is_pid,
    "refused": _is_bool,
    "running": lambda value: value is None or _is_count(value),
    "route": lambda value: value == () or _is_path(value),
    "target": lambda value: value is None or is_pid(value),
    "text": _is_text(MAX_TEXT),
    "wanted": _is_bool,
}


def check_control(record: Record, *, is_parent: bool | None, is_public: bool) -> dict[str, Any]:
    """Return the items of a control record by their names, none for one with a payload.

    ``is_parent`` says whether it came from the parent, None where that link is no neighbour's any more, and
    ``is_public`` whether over the public socket. Raises Forged where another sender would be needed, and
    ProtocolError where the record cannot be.
    """
    kind = record[KIND]
    if type(kind) is not int or (kind not in CONTROL_ITEMS and kind not in WITH_PAYLOAD):
        raise ProtocolError(f"a record of the kind {shown(kind)}, which there is not")
    if is_parent and kind in _FROM_BELOW:
        raise Forged("it says of itself what only a child says to its parent")
    if is_parent is False and kind in _FROM_ABOVE:
        raise Forged("it says that it is the parent of this process")
    if kind in (_PRIVATE if is_public else _PUBLIC):
        raise ProtocolError(f"a record of the kind {kind}, which has no place on this connection")
    if kind in WITH_PAYLOAD:
        _check_payload(kind, record)
        return {}
    return _items(kind, record, CONTROL_ITEMS)


def check_channel(record: Record, *, is_parent: bool) -> dict[str, Any]:
    """Return the items of a record that came over a control channel. Raises as ``check_control`` does.

    ``is_parent`` says whether the parent has sent it; otherwise a child has.
    """
    kind = record[KIND]
    if type(kind) is not int or kind not in (_DOWN_CHANNEL if is_parent else _UP_CHANNEL):
        raise ProtocolError(f"a record of the kind {shown(kind)}, which has no place on a control channel")
    return _items(kind, record, CHANNEL_ITEMS if kind in CHANNEL_ITEMS else CONTROL_ITEMS)


def _items(kind: int, record: Record, table: dict[int, tuple[str, ...]]) -> dict[str, Any]:
    """Return the items of a control record by their names. Raises ProtocolError for what they cannot be."""
    names = table[kind]
    if len(record) != 1 + len(names):
        raise ProtocolError(f"a record of the kind {kind} with {len(record) - 1} items, not {len(names)}")
    items = dict(zip(names, record[1:], strict=True))
    for name, value in items.items():
        if not _CHECKS[name](value):
            raise ProtocolError(f"a record of the kind {kind} with {shown(value)} as its {name}")
    return items


def _check_payload(kind: int, record: Record) -> None:
    """Raise ProtocolError if a record has other items than a kind and a payload, which is not opened here."""
    payloads = record[-1]
    begin = with_payload(kind, b"")[:-1]
    if len(record) != len(begin) + 1 or type(payloads) is not list or len(payloads) != 1:
        raise ProtocolError(f"a record of the kind {kind} that has not the items of one")
    if any(type(one) is not type(other) or one != other for one, other in zip(record, begin, strict=False)):
        raise ProtocolError(f"a record of the kind {kind} that has other items than one")
