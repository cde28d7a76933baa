"""What a child inherits: locks, queues, connections and the like in the arguments of ``worker()``.

No message can carry such objects. multiprocessing passes them on only while it starts a process: a lock by
its name, which is removed when no process keeps the lock, and a connection or shared memory by its
descriptor.

So the target and its arguments are pickled as multiprocessing would pickle them, with one difference: in
place of a descriptor the pickle holds an index into a list of descriptors. The list goes with each start of
the child (``Passed``), and the pickle goes over its link.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from .._exceptions import Unpicklable, WorkerRefused, shown

# By start method. A fork server gets them in one message, together with some of its own (``Request`` in
# forking.py), and the kernel takes 253. With spawn, more than 4,000 would not fit into the pipe of a start.
MAX_DESCRIPTORS = {"forkserver": 240, "spawn": 4000}
# Classes, by module and name, whose objects a process can get only at its start; subclasses as well.
_BOUND = {
    "multiprocessing.connection": {"_ConnectionBase"},
    "multiprocessing.heap": {"Arena", "BufferWrapper"},
    "multiprocessing.queues": {"Queue", "SimpleQueue"},
    "multiprocessing.sharedctypes": {"SynchronizedBase"},
    "multiprocessing.synchronize": {"Barrier", "Condition", "Event", "SemLock"},
    "socket": {"socket"},
}
_PLAIN = (
    "method",
    "method_descriptor",
    "wrapper_descriptor",
    "partial",
)  # better without a reducer

Reducer = Callable[[Any], Any]

_descriptors: list[int] = []  # in a child: the descriptors of its start


class Descriptor:
    """Stands in the pickle for a descriptor of the child, by its index in the list of descriptors.

    It replaces the ``DupFd`` of ``multiprocessing.reduction``.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        """Return the descriptor, which belongs to the caller from now on."""
        descriptor = _descriptors[self._number]
        os.set_inheritable(descriptor, False)  # it was inheritable only for the start
        return descriptor


class Inheritance:
    """What one child inherits at each of its starts. Filled in ``worker()``, then only read.

    The ChildState has it until the child's final end. It keeps the objects alive for so long, because
    multiprocessing removes a lock that no process holds any more, and frees shared memory likewise.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}  # the number of each kept object, by its id
        self._kept: list[object] = []  # these objects, by number, and what they were found in
        self._carriers: list[Any] = []  # the objects with a descriptor, in the order of the child's list
        self._reduced: object = None  # the object that is being pickled, whose descriptor is asked for next

    def __bool__(self) -> bool:
        return bool(self._kept)

    def keep(self, *found_in: object) -> None:
        """Keep these objects alive as well, if there is anything to inherit in them."""
        if self._kept:
            self._kept.extend(found_in)

    def reduce(self, value: Any) -> Any:
        """How multiprocessing pickles a value for a new process; as ``Pickler.reducer_override``.

        Returns NotImplemented for a value that any message can carry.
        """
        kind = type(value)
        if _is_a(kind, "multiprocessing.synchronize", "SemLock"):
            if value._semlock.name is None:
                raise TypeError(
                    f"{shown(value)} is made for the start method fork, by which no child of ipevents is "
                    'started; make it with multiprocessing.get_context("spawn")'
                )
            return _once, (self._number(value), _restored, (kind, value.__getstate__()))
        reducer = _reducer_of(kind)
        if reducer is None or (reducer.__name__ == "reduce_ctype" and not hasattr(value, "_wrapper")):
            return NotImplemented  # a ctypes object of a shared type that is itself not shared
        outer, self._reduced = self._reduced, value
        try:
            reduced = reducer(value)
        finally:
            self._reduced = outer
        if type(reduced) is tuple and len(reduced) == 2:
            return _once, (self._number(value), *reduced)
        return reduced

    def _number(self, value: object) -> int:
        """Keep an object alive and return its number, the same each time."""
        number = self._numbers.setdefault(id(value), len(self._kept))
        if number == len(self._kept):
            self._kept.append(value)
        return number

    @contextlib.contextmanager
    def pickling(self) -> Iterator[None]:
        """While this lasts, multiprocessing believes that this thread is starting a process."""
        from multiprocessing import context

        outer = context.get_spawning_popen()
        context.set_spawning_popen(self)  # type: ignore[arg-type]  # it uses only duplicate_for_child and DupFd
        try:
            yield
        finally:
            context.set_spawning_popen(outer)

    def duplicate_for_child(self, descriptor: int) -> int:
        """Called by multiprocessing: the index under which the child will find this descriptor."""
        carrier = self._reduced
        if carrier is None or _descriptor_of(carrier) != descriptor:  # of an unknown object
            carrier = _Duplicate(descriptor)
        for number, known in enumerate(self._carriers):
            if known is carrier:
                return number
        self._carriers.append(carrier)
        self._number(carrier)
        return len(self._carriers) - 1

    DupFd = Descriptor  # called with that number

    def passed(self, start_method: str) -> tuple[Passed, ...]:
        """What goes with one start of the child.

        Raises Unpicklable if one of the objects was closed meanwhile, and WorkerRefused if they are too many.
        """
        limit = MAX_DESCRIPTORS.get(start_method, MAX_DESCRIPTORS["forkserver"])
        if len(self._carriers) > limit:
            raise WorkerRefused(
                f"{len(self._carriers)} connections and the like in the arguments of a worker, and the start "
                f"method {start_method} passes {limit} on"
            )
        descriptors = []
        for carrier in self._carriers:
            descriptor = _descriptor_of(carrier)
            if descriptor is None:
                raise Unpicklable(
                    f"{shown(carrier)} in the arguments was closed in this process, so no further start of "
                    "the child can get it: close it after the child's final end, or use restart=False"
                )
            descriptors.append(descriptor)
        return (Passed(descriptors),) if descriptors else ()


class Passed:
    """Descriptors among the arguments of a ``multiprocessing.Process``.

    In the child a list of their numbers there takes its place.
    """

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing import context

        popen: Any = context.get_spawning_popen()
        numbers = [popen.duplicate_for_child(descriptor) for descriptor in self._descriptors]
        return _received, (type(popen.DupFd(numbers[0])), tuple(numbers))  # a few bytes for each


class _Duplicate:
    """A copy of a descriptor of which only the number was known; closed when it is not used any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)


def _descriptor_of(carrier: Any) -> int | None:
    """The descriptor of an object; None if it is closed or has none."""
    try:
        found = carrier.fileno() if hasattr(carrier, "fileno") else carrier.fd
    except (OSError, ValueError, AttributeError):  # closed, or an object of another kind
        return None
    return found if isinstance(found, int) and found >= 0 else None


def _reducer_of(kind: type) -> Reducer | None:
    """The function that pickles objects of this class for a new process; None if there is none.

    It is multiprocessing's own, or one that another package has registered there.
    """
    from multiprocessing.reduction import ForkingPickler

    if kind.__name__ in _PLAIN and kind.__module__ in ("builtins", "functools"):
        return None
    reducers: Any = ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # register() fills it
    for base in kind.__mro__ if _is_a(kind, "multiprocessing.connection", "_ConnectionBase") else (kind,):
        if base in reducers:
            return reducers[base]  # type: ignore[no-any-return]  # whatever was registered
    return None


def _is_a(kind: type, module: str, name: str) -> bool:
    """Whether a class is a certain class or a subclass of it, without importing the module of that one."""
    return any(base.__name__ == name and base.__module__ == module for base in kind.__mro__)


# Pickling


def refuse(value: Any) -> Any:
    """Refuse what a process can get only at its start; as ``Pickler.reducer_override``, for what is sent.

    Raises TypeError for such a value, and returns NotImplemented for all others.
    """
    for base in type(value).__mro__:
        if base.__name__ in _BOUND.get(base.__module__, ()):
            raise TypeError(
                f"{shown(value)} can be given to a process only at its start: pass it to worker(args=...) or "
                "pool(initargs=...)"
            )
    return NotImplemented


class PlainPickler(pickle.Pickler):
    """Plain pickle, with the method that ``dump`` asks for."""

    ours: Reducer

    def reducer_override(self, value: Any) -> Any:
        """How one value is pickled; called for each by pickle, which goes on by itself at NotImplemented."""
        return self.ours(value)


def dump(
    make: Callable[..., Any], value: object, keep: Any, inheritance: Inheritance | None, **more: Any
) -> bytes:
    """The pickle of a value; ``make`` makes the pickler, and gets ``more``.

    A child inherits what is noted in ``inheritance``; without one it is refused. The pickler has to ask its
    ``ours``, which is set here, for each value first.
    """
    file = io.BytesIO()
    pickler = make(file, 5, buffer_callback=keep, **more)
    pickler.ours = refuse if inheritance is None else inheritance.reduce
    with contextlib.nullcontext() if inheritance is None else inheritance.pickling():
        pickler.dump(value)
    return file.getvalue()


# In the child


_made: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def receive(descriptors: list[int]) -> None:
    """In the child, before its arguments are unpickled: the descriptors that came with its start."""
    _descriptors[:] = descriptors


def _received(kind: Callable[[int], Any], numbers: tuple[int, ...]) -> list[int]:
    """Rebuild a ``Passed`` in the child: a list of descriptors, which belong to the caller."""
    return [kind(number).detach() for number in numbers]


def _once(number: int, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Rebuild an inherited object in the child, the same object each time.

    The target and its arguments are two pickles; an object that is in both must be one object here as well.
    """
    made = _made.get(number)
    if made is None:
        made = make(*args)
        with contextlib.suppress(TypeError):  # some objects support no weak references
            _made[number] = made
    return made


def _restored(kind: type, state: Any) -> Any:
    """Rebuild a lock from its state, without calling its constructor."""
    made: Any = object.__new__(kind)
    made.__setstate__(state)
    return made
