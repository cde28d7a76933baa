"""Functions and classes that travel by value: cloudpickle, with what it leaves out put back.

cloudpickle forgets the files of functions, which tracebacks, debuggers and coverage need, and the slots of
classes. And what pickle knows by its name only (a function under ``functools.cache``, a ``NewType``) it looks
for in the ``__main__`` of the other end, which is another one. The functions below that rebuild such things
are named in the pickles, so both ends have to know them.

This module imports cloudpickle and is itself imported late: most programs never need it.
"""

from __future__ import annotations

import builtins
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

from . import inheritance
from .inheritance import Inheritance
from .main_names import Names, annotations_of

_Reduced = tuple[Any, ...]

_reduce_code: Callable[[Any], _Reduced] = cloudpickle.Pickler.dispatch_table[types.CodeType]
_CACHED: Any = type(functools.lru_cache(len))


def dumps(
    value: object, keep: Any = None, names: Names | None = None, inherited: Inheritance | None = None
) -> bytes:
    """The pickle of a value; ``keep`` is the buffer callback of pickle.

    With ``names``, for the call of a worker only: what the value refers to of the script's functions and
    classes becomes an attribute of ``__main__`` where the pickle is loaded, and functions have their globals
    there. ``inherited`` as for ``inheritance.dump``. Raises whatever the classes' own code raises.
    """
    whole = value if names is None else _Whole(value, names)
    return inheritance.dump(_Pickler, whole, keep, inherited, names=names)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def __init__(self, file: io.BytesIO, protocol: int, buffer_callback: Any, names: Names | None) -> None:
        super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)
        self._names = names

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is types.CodeType:
            return self._with_file(value)
        is_class = issubclass(kind, type)
        is_function = kind is types.FunctionType
        by_name = _BY_NAME.get(kind)
        if not is_class and not is_function and by_name is None:
            return NotImplemented  # as cloudpickle's own method says for everything else
        names = self._names
        if names is not None:
            name = names.sent_as(value)
            if name is not None:
                return from_main, (name,)
            if is_function and names.claim(value.__globals__):
                self.globals_ref.setdefault(id(value.__globals__), _MainGlobals())
        if by_name is not None:
            if value.__module__ != "__main__":
                return NotImplemented
            reduced = by_name(value)
        else:
            reduced = self._reduced(value)
        if names is not None and type(reduced) is tuple and len(reduced) > 2:
            names.note(value)
        if is_class and _is_by_value(reduced) and "__slots__" in value.__dict__:
            return _with_slots(value, reduced)
        return reduced

    def _reduced(self, value: Any) -> Any:
        if sys.version_info >= (3, 14) and type(value) is types.FunctionType:
            value = _with_annotations_that_have_values(value)
        try:
            reduced = super().reducer_override(value)
            if sys.version_info >= (3, 14) and _is_by_value(reduced) and isinstance(value, type):
                return _with_annotations(value, reduced)
            return reduced
        except KeyError as exc:
            slots = getattr(value, "__slots__", None)
            if isinstance(slots, str):  # cloudpickle does not expect that slot to have another name
                raise pickle.PicklingError(
                    f"a private slot is written in a tuple, __slots__ = ({slots!r},), in {value.__qualname__}"
                ) from exc
            raise

    def _with_file(self, code: types.CodeType) -> _Reduced:
        """cloudpickle's newest versions have ``<dynamic-code>`` for the name of the file."""
        if self._names is not None:
            self._names.note_file(code.co_filename)
        make, parts = _reduce_code(code)
        return make_code, (make, parts, code.co_filename)


class _MainGlobals(dict[str, Any]):
    """What cloudpickle takes for the globals of the script's functions: those of ``__main__`` there."""

    def __init__(self) -> None:
        super().__init__(__name__="__main__")  # not empty: cloudpickle would fill it

    def __reduce__(self) -> _Reduced:
        return main_globals, ()


class _Whole:
    """A value and, after it, what it has brought of the script."""

    def __init__(self, value: object, names: Names) -> None:
        self._value = value
        self._names = names

    def __reduce__(self) -> _Reduced:
        return first, (self._value, _Brought(self._names))


class _Brought:
    """Pickled after a value: only then is known what of the script was met, and may bring more itself."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __reduce__(self) -> _Reduced:
        found, sources = self._names.take()
        if not found and not sources:
            return dict, ()
        return adopt, (found, sources, _Brought(self._names))


# What pickle knows by name only


def _reduce_cached(value: Any) -> _Reduced:
    # In the state, not in the arguments: the function may refer to this very object.
    return make_cached, (value.__wrapped__, value.cache_parameters()), dict(value.__dict__)


def _reduce_new_type(value: Any) -> _Reduced:
    return typing.NewType, (value.__name__, value.__supertype__), dict(value.__dict__)


def _reduce_parameters(value: Any) -> _Reduced:
    return make_parameters, (type(value), value.__name__), {"__module__": value.__module__}


def _reduce_alias(value: Any) -> _Reduced:
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


# Annotations: since Python 3.14 they are computed when somebody asks for them.


def _with_annotations_that_have_values(function: types.FunctionType) -> types.FunctionType:
    """The function, or one like it with text for annotations where asking for them fails.

    cloudpickle asks for them, and a function would not travel for a name that only type checkers import.
    """
    try:
        function.__annotations__  # noqa: B018  # computed, and kept, or an exception
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
    """cloudpickle leaves out those of a class."""
    annotations = annotations_of(cls)
    make, arguments, (attributes, other), *rest = reduced
    if not annotations or "__annotations_cache__" in attributes:
        return reduced
    return make, arguments, ({**attributes, "__annotations__": annotations}, other), *rest


# Slots

_MADE_WITH_THE_CLASS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _is_by_value(reduced: Any) -> bool:
    """Whether cloudpickle makes a class anew: function, arguments, state, ..., setter of the state."""
    return type(reduced) is tuple and len(reduced) == 6


def _with_slots(cls: Any, reduced: _Reduced) -> _Reduced:
    """A class is made with its slots; cloudpickle sets ``__slots__`` afterwards, which does nothing."""
    make, (metaclass, name, bases, namespace, *more), (attributes, other), *rest = reduced
    if issubclass(cls, enum.Enum) or typing.NamedTuple in bases or "__slots__" in namespace:
        return reduced  # these are made in a way of their own
    slots = _slots_of(cls)
    if slots is None:
        return reduced
    namespace = {**namespace, "__slots__": slots}
    own = {**attributes, **{name: cls.__dict__[name] for name in slots if name in cls.__dict__}}
    attributes = {key: value for key, value in own.items() if type(value) not in _MADE_WITH_THE_CLASS}
    return make, (metaclass, name, bases, namespace, *more), (attributes, other), *rest


def _slots_of(cls: Any) -> tuple[str, ...] | None:
    """The names of a class's own slots, as the class has them: a private ``__x`` is ``_C__x`` already.

    None where ``__slots__`` was set on a class that was made without.
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
    for name in given:  # also those whose descriptor was replaced, by a property for example
        if stem and name.startswith("__") and not name.endswith("__"):
            name = f"_{stem}{name}"
        if name not in found and (name not in ("__dict__", "__weakref__") or name in cls.__dict__):
            found.append(name)
    return tuple(found)


# What rebuilds: named in pickles. Plain functions, they are looked up where the pickle is loaded.


def make_code(make: Callable[..., types.CodeType], parts: tuple[Any, ...], filename: str) -> types.CodeType:
    return make(*parts).replace(co_filename=filename)


def make_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def make_parameters(kind: Any, name: str) -> Any:
    return kind(name)


def make_alias(kind: Any, name: str, value: object, parameters: tuple[Any, ...]) -> Any:
    return kind(name, value, type_params=parameters)


def main_globals() -> dict[str, Any]:
    return sys.modules["__main__"].__dict__


def from_main(name: str) -> Any:
    return sys.modules["__main__"].__dict__[name]


def first(value: object, brought: object) -> object:
    """The value of a ``_Whole``. cloudpickle has left a dict where a module has ``builtins``."""
    main_globals()["__builtins__"] = builtins
    return value


def adopt(found: dict[str, Any], sources: dict[str, Any], brought: object) -> None:
    """Make what a call has brought of the script attributes of ``__main__``, and show its lines."""
    main_globals().update(found)
    if sources:
        import linecache

        for filename, entry in sources.items():
            linecache.cache.setdefault(filename, entry)
