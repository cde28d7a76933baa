"""Arguments to bytes and back: plain values, pickle, cloudpickle, large buffers out of band.

A payload is, in memory and on its way through the processes that pass it on,

- a tuple: the positional arguments themselves, all of plain immutable types;
- bytes: the pickle of ``(args, kwargs)``;
- a list ``[bytes, buffers]``: the same with buffers out of band.

It is made once by the origin and opened only where a listener wants it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._core.messages import Payload
from .._exceptions import Unpicklable, UnreadablePayload, shown
from .._platform.guards import foreign, told
from . import inheritance
from .inheritance import Inheritance

if TYPE_CHECKING:
    from .main_names import Names

# What is at least so large travels beside the pickle. Below it a copy in the frame costs less than a frame
# of its own: 40 kB of bytes go 2.6 times as fast so, 65 kB 1.9 times; at 400 kB nothing is gained any more.
LARGE_BYTES = 128 * 1024
# More text than this is pickled on its own, once: else each hop encodes it anew, and its size is a guess.
_PLAIN_TEXT_BYTES = 32 * 1024
_SMALL_INT_BITS = 256
_NO_KWARGS: dict[str, Any] = {}


def encode(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    names: Names | None = None,
    inherited: Inheritance | None = None,
) -> tuple[Payload, int]:
    """The payload of a call's arguments, and its size in bytes (a close estimate for plain values).

    For the call of a worker: ``names`` as for ``by_value.dumps``, and what the child ``inherited``. Raises
    Unpicklable, naming the argument.
    """
    size = plain_size(args, kwargs)
    return pickled(args, kwargs, None, names, inherited) if size is None else (args, size)


def plain_size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """The size of arguments that are their own payload: small, and all of plain immutable types; else None.

    Called for every event that is sent: counted in nanoseconds.
    """
    if kwargs:
        return None
    size = 8 * len(args)
    for arg in args:  # the likeliest types first
        kind = type(arg)
        if kind is str:
            size += len(arg)
        elif kind is int:
            if arg.bit_length() > _SMALL_INT_BITS:
                return None
        elif kind is not float and arg is not None and kind is not bool:
            if kind is not bytes:
                return None
            size += len(arg)
    if size < _PLAIN_TEXT_BYTES or (size < LARGE_BYTES and not _has_much_text(args)):
        return size
    return None


def _has_much_text(args: tuple[Any, ...]) -> bool:
    return sum(len(arg) for arg in args if type(arg) is str) >= _PLAIN_TEXT_BYTES


def pickled(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    before_copy: Callable[[int], None] | None = None,
    names: Names | None = None,
    inherited: Inheritance | None = None,
) -> tuple[Payload, int]:
    """As ``encode``, for everything else.

    Calls the arguments' own pickling code, so the caller holds no lock. Writable buffers are copied:
    what the caller does to them afterwards is not sent. ``before_copy(size)`` is called before that.
    """
    views: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < LARGE_BYTES:
            view.release()
            return True
        views.append(view)
        return False

    wrapped = tuple(_out_of_band(arg) for arg in args)
    named = {name: _out_of_band(value) for name, value in kwargs.items()}
    try:
        meta = _dump((wrapped, named), views, keep, "the arguments", names, inherited)
    except Unpicklable as exc:
        raise _culprit(args, kwargs, exc, inherited) from exc.__cause__
    size = len(meta) + sum(view.nbytes for view in views)
    if not views:
        return meta, size
    if before_copy is not None:
        before_copy(size)
    return [meta, [_own(view) for view in views]], size


def decode(payload: Payload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a payload. Runs the unpickling code of their classes; the caller holds no state lock.

    Raises UnreadablePayload with the cause.
    """
    if type(payload) is tuple:
        return payload, _NO_KWARGS
    try:
        if type(payload) is list:
            meta, buffers = payload
            args, kwargs = pickle.loads(meta, buffers=buffers)
        else:
            args, kwargs = pickle.loads(payload)
    except foreign() as exc:  # whatever the classes' own code raises, SystemExit and MemoryError as well
        raise UnreadablePayload(f"its arguments cannot be unpickled: {told(exc)}") from exc
    return args, kwargs


def own(payload: Payload) -> Payload:
    """The same payload with buffers of its own: what listeners here do to theirs is not passed on."""
    if type(payload) is not list or len(payload) != 2 or type(payload[1]) is not list:
        return payload
    meta, buffers = payload
    return [meta, [bytearray(item) if type(item) is bytearray else item for item in buffers]]


def size_of(payload: Payload) -> int:
    """Bytes that a payload takes on the wire, headers apart; exact for all but plain values.

    What is no payload is passed on as well: only who opens it has to refuse it.
    """
    if type(payload) is bytes:
        return len(payload)
    if type(payload) is tuple:
        return sum(8 + len(value) if type(value) in (str, bytes) else 8 for value in payload)
    if type(payload) is list and len(payload) == 2 and type(payload[1]) is list:
        return sum(len(item) for item in (payload[0], *payload[1]) if type(item) in (bytes, bytearray))
    return 8


def dumps(
    value: object, what: str, names: Names | None = None, inherited: Inheritance | None = None
) -> bytes:
    """The pickle of one value: plain pickle, or cloudpickle where that fails or names ``__main__``.

    Classes and functions of ``__main__`` travel by value. Raises Unpicklable, saying ``what``.
    """
    return _dump(value, [], None, what, names, inherited)


def _out_of_band(value: Any) -> Any:
    """Large bytes and bytearrays as buffers: at the other end they are bytes and bytearrays again."""
    kind = type(value)
    if (kind is bytes or kind is bytearray) and len(value) >= LARGE_BYTES:
        return pickle.PickleBuffer(value)
    return value


def _own(view: memoryview) -> Any:
    """The content of a buffer as bytes (read-only at the other end) or bytearray (writable there)."""
    if not view.readonly:
        return bytearray(view)
    whole = view.obj
    return whole if type(whole) is bytes and len(whole) == view.nbytes else bytes(view)


def _dump(
    value: object,
    buffers: list[Any],
    keep: Any,
    what: str,
    names: Names | None = None,
    inherited: Inheritance | None = None,
) -> bytes:
    """The pickle of a value; ``keep`` puts what travels out of band into ``buffers``."""
    try:
        if inherited is None:
            data = pickle.dumps(value, 5, buffer_callback=keep)
        else:
            data = inheritance.dump(pickle.Pickler, value, keep, inherited)
    except Exception:  # cloudpickle may do it; if not, its exception tells
        data = b"__main__"
    # A connection pickles plainly as the bare number of its descriptor, which is another one elsewhere.
    if b"__main__" not in data and (inherited is not None or b"multiprocessing.connection" not in data):
        return data
    buffers.clear()  # of the first attempt
    from . import by_value  # late, with cloudpickle: most programs never need it

    try:
        return by_value.dumps(value, keep, names, inherited)
    except Exception as exc:  # whatever the classes' own code raises
        raise Unpicklable(f"{what} cannot be pickled: {shown(exc, 300)}") from exc


def _culprit(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], first: Unpicklable, inherited: Inheritance | None
) -> Unpicklable:
    """The same failure with the name of the argument that fails on its own."""
    named = [(f"argument {index + 1}", value) for index, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            _dump(value, [], None, name, None, inherited)
        except Unpicklable as exc:
            return Unpicklable(f"{name}, {shown(value)}, cannot be pickled: {shown(exc.__cause__, 300)}")
    return first
