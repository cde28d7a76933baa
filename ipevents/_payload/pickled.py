"""Pickles arguments: plain pickle, cloudpickle where that fails, large buffers beside the pickle.

All of this runs code of the user's classes, which may raise anything; the caller gets it as Unpicklable.
``forms.decode`` opens what is pickled here.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._core.messages import Payload
from .._exceptions import Unpicklable, shown
from . import inheritance

if TYPE_CHECKING:
    from .inheritance import Inheritance
    from .main_names import Names

# A buffer of this size or more travels beside the pickle. A smaller one is copied into the frame, which costs
# less than a frame of its own: 40 kB of bytes are 2.6 times as fast that way, 65 kB 1.9 times; at 400 kB
# nothing is gained any more.
LARGE_BYTES = 128 * 1024


def pickle_call(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    before_copy: Callable[[int], None] | None = None,
    names: Names | None = None,
    inherited: Inheritance | None = None,
) -> tuple[Payload, int]:
    """The payload of a call's arguments, bytes or ``[bytes, buffers]``, and its size in bytes.

    Calls the arguments' own pickling code, so the caller holds no lock. Writable buffers are copied, so later
    changes to them are not sent; ``before_copy(size)`` is called just before that. ``names`` and
    ``inherited`` as for ``by_value.dumps``. Raises Unpicklable, which names the argument.
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


def dumps(
    value: object, what: str, names: Names | None = None, inherited: Inheritance | None = None
) -> bytes:
    """The pickle of one value: plain pickle, or cloudpickle where that fails or names ``__main__``.

    Classes and functions of ``__main__`` are sent by value. Raises Unpicklable, whose text begins with
    ``what``.
    """
    return _dump(value, [], None, what, names, inherited)


def _out_of_band(value: Any) -> Any:
    """Wrap large bytes and bytearrays as buffers; the other process gets bytes and bytearrays again."""
    kind = type(value)
    if (kind is bytes or kind is bytearray) and len(value) >= LARGE_BYTES:
        return pickle.PickleBuffer(value)
    return value


def _own(view: memoryview) -> Any:
    """The content of a buffer: as bytes if it is to be read-only in the other process, or as bytearray."""
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
    """The pickle of a value; ``keep`` puts buffers that travel beside it into ``buffers``.

    Plain pickle is tried first. cloudpickle does it again if that fails, or if the pickle names ``__main__``.
    """
    try:
        if inherited is None:
            data = pickle.dumps(value, 5, buffer_callback=keep)
        else:
            data = inheritance.dump(inheritance.PlainPickler, value, keep, inherited)
    except Exception:  # cloudpickle may succeed; if it does not, its exception is reported
        data = b"__main__"
    # Plain pickle writes a connection as the number of its descriptor, which means another file elsewhere.
    if b"__main__" not in data and (inherited is not None or b"multiprocessing.connection" not in data):
        return data
    buffers.clear()  # those of the first attempt
    from . import by_value  # late, as it imports cloudpickle: most programs never need it

    try:
        return by_value.dumps(value, keep, names, inherited)
    except Exception as exc:  # whatever the classes' own code raises
        raise Unpicklable(f"{what} cannot be pickled: {shown(exc, 300)}") from exc


def _culprit(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], first: Unpicklable, inherited: Inheritance | None
) -> Unpicklable:
    """The same failure, with the name of the argument that cannot be pickled alone, if there is one."""
    named = [(f"argument {index + 1}", value) for index, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            _dump(value, [], None, name, None, inherited)
        except Unpicklable as exc:
            return Unpicklable(f"{name}, {shown(value)}, cannot be pickled: {shown(exc.__cause__, 300)}")
    return first
