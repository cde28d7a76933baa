"""Pickles functions and classes by value: cloudpickle, with what it leaves out put back.

By value means that the definition itself travels, because the other process cannot import it. cloudpickle
drops the file names of functions, which tracebacks, debuggers and coverage need, and the slots of classes.

Some objects pickle knows only by name: a function under ``functools.cache``, a ``NewType``. It would look for
them in the ``__main__`` of the other process, which is another program. Here they are pickled as a call that
rebuilds them. The functions for that are in rebuilt.py.

This module imports cloudpickle and is itself imported late, because most programs never need it. A process
that only loads what is pickled here needs neither, if that holds functions alone: see ``_light``.
"""

from __future__ import annotations

import enum
import functools
import io
import pickle
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from .._core.mac import blake2b
from . import inheritance
from .inheritance import Inheritance, Reducer
from .main_names import Names, annotations_of
from .rebuilt import (
    STATE,
    adopt,
    first,
    from_main,
    import_module,
    main_globals,
    make_alias,
    make_cached,
    make_cell,
    make_code,
    make_function,
    make_parameters,
    set_function,
    set_main_function,
)

_Reduced = tuple[Any, ...]

_reduce_code: Callable[[Any], _Reduced] = cloudpickle.Pickler.dispatch_table[types.CodeType]
_reduce_module: Callable[[Any], _Reduced] = cloudpickle.Pickler.dispatch_table[types.ModuleType]
_CACHED: Any = type(functools.lru_cache(len))


def dumps(
    value: object, keep: Any = None, names: Names | None = None, inherited: Inheritance | None = None
) -> bytes:
    """The pickle of a value; ``keep`` is the buffer callback of pickle.

    ``names`` is for the call of a worker only. With it, functions and classes of the script that the value
    refers to become attributes of ``__main__`` where the pickle is loaded, and functions get the globals of
    that ``__main__``. ``inherited`` as for ``inheritance.dump``. Raises whatever the classes' own code
    raises.
    """
    whole = value if names is None else _Whole(value, names)
    return inheritance.dump(_Pickler, whole, keep, inherited, names=names)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, which also keeps file names, slots, and what pickle knows by name only."""

    ours: Reducer  # set by ``inheritance.dump``

    def __init__(self, file: io.BytesIO, protocol: int, buffer_callback: Any, names: Names | None) -> None:
        super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)
        self._names = names
        self._marks: dict[int, tuple[bytes | None, Any]] = {}  # by id; holds the values, so no id is reused

    def reducer_override(self, value: Any) -> Any:
        """How one value is pickled; called for each by pickle, which goes on by itself at NotImplemented.

        With ``names``, a value that an earlier pickle of the same call has brought is sent as its name alone.
        What is sent by value is noted in ``names``.
        """
        reduced = self.ours(value)
        if reduced is not NotImplemented:
            return reduced
        kind = type(value)
        if kind is types.CodeType:
            return self._with_file(value)
        if kind is types.CellType:
            return _reduce_cell(value)
        if kind is types.ModuleType:
            return _light(_reduce_module(value))
        is_class = issubclass(kind, type)
        is_function = kind is types.FunctionType
        by_name = _BY_NAME.get(kind)
        if not is_class and not is_function and by_name is None:
            return NotImplemented  # as cloudpickle's own method returns for all other values
        names = self._names
        is_of_main = False
        if names is not None:
            name = names.sent_as(value)
            if name is not None:
                return from_main, (name,)
            is_of_main = is_function and names.claim(value.__globals__)
            if is_of_main:
                self.globals_ref.setdefault(id(value.__globals__), _MainGlobals())
        if by_name is not None:
            if value.__module__ != "__main__":
                return NotImplemented
            reduced = by_name(value)
        else:
            reduced = self._reduced(value)
            if is_of_main:
                reduced = self._with_marks(reduced)
        if names is not None and type(reduced) is tuple and len(reduced) > 2:
            names.note(value)
        if is_class and _is_by_value(reduced) and "__slots__" in value.__dict__:
            return _with_slots(value, reduced)
        return reduced

    def _reduced(self, value: Any) -> Any:
        """What cloudpickle makes of a value, with the annotations that it would leave out or fail on."""
        if sys.version_info >= (3, 14) and type(value) is types.FunctionType:
            value = _with_annotations_that_have_values(value)
        try:
            reduced = super().reducer_override(value)
            if _is_by_value(reduced) and isinstance(value, type):
                _forget_caches(reduced[2][0])
                return _with_annotations(value, reduced) if sys.version_info >= (3, 14) else reduced
            return _light(reduced)
        except KeyError as exc:
            slots = getattr(value, "__slots__", None)
            if isinstance(slots, str):  # a private slot has another name, which cloudpickle does not expect
                raise pickle.PicklingError(
                    f"a private slot is written in a tuple, __slots__ = ({slots!r},), in {value.__qualname__}"
                ) from exc
            raise

    def _with_marks(self, reduced: Any) -> Any:
        """Have a function of the script rebuilt with marks beside its globals, see brought.py."""
        if not _is_by_value(reduced) or reduced[-1] is not set_function:
            return reduced
        *rest, _, _, _ = reduced
        more = rest[-1][1]
        more["__globals__"] = {name: (self._mark(each), each) for name, each in more["__globals__"].items()}
        return *rest, None, None, set_main_function

    def _mark(self, value: Any) -> bytes | None:
        """The mark of a global, worked out once for all functions that refer to it; None without marks."""
        if self._names is None or not self._names.is_marked:
            return None
        marked = self._marks.get(id(value))
        if marked is None:
            marked = self._marks[id(value)] = _mark_of(value), value
        return marked[0]

    def _with_file(self, code: types.CodeType) -> _Reduced:
        """Pickle a code object with its file name, which the newest cloudpickle replaces."""
        if self._names is not None:
            self._names.note_file(code.co_filename)
        _, parts = _reduce_code(code)
        return make_code, (parts, code.co_filename)


class _MainGlobals(dict[str, Any]):
    """Pickled as the globals of the script's functions: those of ``__main__`` where it is loaded.

    cloudpickle uses it in place of the dict that it would fill with the globals that a function needs.
    """

    def __init__(self) -> None:
        super().__init__(__name__="__main__")  # cloudpickle would fill an empty one

    def __reduce__(self) -> _Reduced:
        return main_globals, ()


class _Whole:
    """Pickled as a value, followed by the functions and classes of the script that it has brought."""

    def __init__(self, value: object, names: Names) -> None:
        self._value = value
        self._names = names

    def __reduce__(self) -> _Reduced:
        return first, (self._value, _Brought(self._names))


class _Brought:
    """Pickled after a value, because only then it is known which of the script's functions it refers to.

    Those may refer to more of them, so each ``_Brought`` ends with another one, until nothing new is found.
    """

    def __init__(self, names: Names) -> None:
        self._names = names

    def __reduce__(self) -> _Reduced:
        found, sources = self._names.take()
        if not found and not sources:
            return dict, ()
        is_marked = self._names.is_marked
        marked = {name: (_mark_of(value) if is_marked else None, value) for name, value in found.items()}
        return adopt, (marked, sources, _Brought(self._names))


_CODE = (types.FunctionType, types.ModuleType, type)
_MARK_BYTES = 16


def _mark_of(value: Any) -> bytes | None:
    """The mark of a value that is brought into a ``__main__``: the same if its pickle is the same.

    None for code, of which a new pickle is sent to be used, and for what cannot be pickled alone.
    """
    if issubclass(type(value), _CODE):
        return None
    try:
        data = pickle.dumps(value, 5)
    except Exception:  # whatever the classes' own code raises
        data = b"__main__"
    if b"__main__" in data:
        try:
            data = dumps(value)
        except Exception:  # the pickle of which it is a part will fail as well, or a child inherits it
            return None
    return data if len(data) <= _MARK_BYTES else blake2b(data, digest_size=_MARK_BYTES).digest()


# What is rebuilt without cloudpickle

_private: Any = cloudpickle.cloudpickle
_LIGHT: dict[Any, Any] = {
    getattr(_private, name, None): ours
    for name, ours in {"_make_function": make_function, "subimport": import_module}.items()
}
_set_state = getattr(_private, "_function_setstate", None)


def _light(reduced: Any) -> Any:
    """Have a function or module rebuilt by functions of ours, so that cloudpickle is not imported for it.

    Only if it is reduced in the way that those expect.
    """
    if type(reduced) is not tuple or reduced[0] not in _LIGHT:
        return reduced
    make, arguments, *rest = reduced
    if rest:
        (_, more), *_, setter = rest
        if setter is not _set_state or not more.keys() >= STATE:
            return reduced
        rest[-1] = set_function
    return _LIGHT[make], arguments, *rest


def _reduce_cell(cell: types.CellType) -> _Reduced:
    """A cell of a closure: its content, if it has one."""
    try:
        return make_cell, (cell.cell_contents,)
    except ValueError:
        return make_cell, ()


# What pickle knows by name only


def _reduce_cached(value: Any) -> _Reduced:
    """A function under ``functools.cache`` or ``lru_cache``: what it wraps, and its parameters.

    The results in its cache do not travel.
    """
    # __dict__ is state, not an argument: the function may refer to this very object.
    return make_cached, (value.__wrapped__, value.cache_parameters()), dict(value.__dict__)


def _reduce_new_type(value: Any) -> _Reduced:
    """A ``typing.NewType``: its name and the type it stands for."""
    return typing.NewType, (value.__name__, value.__supertype__), dict(value.__dict__)


def _reduce_parameters(value: Any) -> _Reduced:
    """A ``ParamSpec`` or ``TypeVarTuple``: its kind, name and module."""
    return make_parameters, (type(value), value.__name__), {"__module__": value.__module__}


def _reduce_alias(value: Any) -> _Reduced:
    """A ``type`` statement's alias: its name, value and type parameters."""
    return make_alias, (type(value), value.__name__, value.__value__, value.__type_params__), {}


_BY_NAME: dict[Any, Callable[[Any], _Reduced]] = {
    _CACHED: _reduce_cached,
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_parameters,
}
if sys.version_info >= (3, 11):
    _BY_NAME[typing.TypeVarTuple] = _reduce_parameters
if sys.version_info >= (3, 12):
    _BY_NAME[typing.TypeAliasType] = _reduce_alias


def _forget_caches(attributes: dict[str, Any]) -> None:
    """Remove what a class has only once it was used, so that its pickle is the same before and after."""
    attributes.pop("__slotnames__", None)  # since the first object was pickled
    attributes.pop("__annotations_cache__", None)  # since the annotations were read, from Python 3.14 on
    if not attributes.get("__annotations__", True):  # before that
        del attributes["__annotations__"]


# Annotations: since Python 3.14 they are computed when they are first read.


def _with_annotations_that_have_values(function: types.FunctionType) -> types.FunctionType:
    """The function itself, or a copy with annotations as text if reading them fails.

    cloudpickle reads the annotations. Without this a function could not travel because of a name that only
    type checkers import.
    """
    try:
        function.__annotations__  # noqa: B018  # this computes and keeps them, or raises
        return function
    except Exception:  # whatever the expressions raise
        like = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        functools.update_wrapper(like, function, updated=("__dict__",))
        del like.__wrapped__  # type: ignore[attr-defined]
        like.__dict__.update(function.__dict__)
        like.__kwdefaults__ = function.__kwdefaults__
        like.__annotations__ = annotations_of(function)
        return like


def _with_annotations(cls: Any, reduced: _Reduced) -> _Reduced:
    """Add the annotations of a class to its reduced form, because cloudpickle leaves them out."""
    annotations = annotations_of(cls)
    make, arguments, (attributes, other), *rest = reduced
    if not annotations:
        return reduced
    return make, arguments, ({**attributes, "__annotations__": annotations}, other), *rest


# Slots

_MADE_WITH_THE_CLASS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _is_by_value(reduced: Any) -> bool:
    """Whether cloudpickle has reduced a class or function by value rather than by its name.

    It then returns six items: a function, its arguments, the state, ..., the setter of the state.
    """
    return type(reduced) is tuple and len(reduced) == 6


def _with_slots(cls: Any, reduced: _Reduced) -> _Reduced:
    """Have a class rebuilt with its slots.

    cloudpickle sets ``__slots__`` after it has made the class, which has no effect.
    """
    make, (metaclass, name, bases, namespace, *more), (attributes, other), *rest = reduced
    if issubclass(cls, enum.Enum) or typing.NamedTuple in bases or "__slots__" in namespace:
        return reduced  # these classes are made in ways of their own
    slots = _slots_of(cls)
    if slots is None:
        return reduced
    namespace = {**namespace, "__slots__": slots}
    own = {**attributes, **{name: cls.__dict__[name] for name in slots if name in cls.__dict__}}
    attributes = {key: value for key, value in own.items() if type(value) not in _MADE_WITH_THE_CLASS}
    return make, (metaclass, name, bases, namespace, *more), (attributes, other), *rest


def _slots_of(cls: Any) -> tuple[str, ...] | None:
    """The names of a class's own slots as the class stores them: a private ``__x`` is ``_C__x`` already.

    None if ``__slots__`` was set on a class that was made without slots.
    """
    found = [
        name
        for name, value in cls.__dict__.items()
        if type(value) is types.MemberDescriptorType and value.__objclass__ is cls
    ]
    given = cls.__dict__["__slots__"]
    given = (given,) if isinstance(given, str) else tuple(given)
    if "__dict__" in cls.__dict__ and "__dict__" not in given:
        return None
    stem = cls.__name__.lstrip("_")
    for name in given:  # also a slot whose descriptor was replaced, for example by a property
        if stem and name.startswith("__") and not name.endswith("__"):
            name = f"_{stem}{name}"
        if name not in found and (name not in ("__dict__", "__weakref__") or name in cls.__dict__):
            found.append(name)
    return tuple(found)
