from __future__ import annotations

import functools
import inspect
import linecache
import pickle
import sys
import threading
import traceback
import types
import typing

import cloudpickle
import pytest

from ipevents._exceptions import Unpicklable
from ipevents._payload import pickled
from ipevents._payload.by_value import _mark_of, dumps
from ipevents._payload.main_names import Names

SCRIPT = """
import abc, dataclasses, enum, functools, typing

T = typing.TypeVar("T")

class Plain:
    __slots__ = ("a", "__hidden", "__weakref__")
    def __init__(self): self.a, self.__hidden = 1, 2
    def both(self): return self.a, self.__hidden

class WithDict:
    __slots__ = ("a", "__dict__")
    def __init__(self): self.a = 1; self.other = 2

class Below(Plain):
    __slots__ = "b"
    def __init__(self): super().__init__(); self.b = 3

class Open(Plain):
    "No slots of its own."
    def __init__(self): super().__init__(); self.c = 4

class Documented:
    __slots__ = {"a": "What it is."}
    def __init__(self): self.a = 1

class Replaced:
    __slots__ = ("_a", "a")
Replaced.a = property(lambda self: self._a)

@dataclasses.dataclass(slots=True)
class Data:
    n: int
    name: str = "x"
    def twice(self): return self.n * 2

@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Frozen:
    n: int = 5

class Box(typing.Generic[T]):
    __slots__ = ("item",)
    def __init__(self, item=7): self.item = item

class Abstract(abc.ABC):
    __slots__ = ()
    @abc.abstractmethod
    def do(self): ...

class Concrete(Abstract):
    __slots__ = ("a",)
    def do(self): return "done"

class Meta(type):
    def __new__(mcs, name, bases, space, **kwds):
        space.setdefault("made_by", "Meta")
        return super().__new__(mcs, name, bases, space)

class Made(metaclass=Meta):
    __slots__ = ("a",)

class Colour(enum.Enum):
    RED = 1
    def shout(self): return self.name + "!"

class Pair(typing.NamedTuple):
    left: int
    right: int = 2

import collections
Point = collections.namedtuple("Point", "x y")

class Number(int):
    __slots__ = ()

def fails():
    raise ValueError("no")

def outer():
    def inner():
        return fails()
    return inner

@functools.lru_cache(maxsize=7)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

UserId = typing.NewType("UserId", int)

def uses(): return fib(20), UserId(3), fib.cache_parameters()["maxsize"]
"""


@pytest.fixture
def script(monkeypatch, tmp_path):
    """A script that has run as __main__, in this process."""
    module = types.ModuleType("__main__")
    module.__file__ = str(tmp_path / "script.py")
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(compile(SCRIPT, module.__file__, "exec", dont_inherit=True), module.__dict__)
    return module


def elsewhere(data: bytes, monkeypatch) -> typing.Any:
    """What a process that has never seen the script gets from a pickle."""
    core = cloudpickle.cloudpickle
    monkeypatch.setattr(core, "_DYNAMIC_CLASS_TRACKER_BY_ID", {})
    monkeypatch.setattr(core, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", {})
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    return pickle.loads(data)


SLOTTED = ["Plain", "WithDict", "Below", "Documented", "Data", "Frozen", "Box", "Concrete", "Made", "Number"]


@pytest.mark.parametrize("name", SLOTTED)
def test_a_class_that_travels_keeps_its_slots(script, monkeypatch, name):
    here = getattr(script, name)
    there = elsewhere(dumps(here), monkeypatch)
    assert there is not here

    def members(cls: type) -> list[str]:
        found = types.MemberDescriptorType
        return sorted(key for key, value in vars(cls).items() if type(value) is found)

    assert members(there) == members(here)
    assert there.__slots__ == here.__slots__
    assert (there.__basicsize__, there.__dictoffset__) == (here.__basicsize__, here.__dictoffset__)
    assert bool(there.__weakrefoffset__) == bool(here.__weakrefoffset__)


@pytest.mark.parametrize("name", [*SLOTTED, "Open", "Pair", "Point", "Colour"])
def test_an_instance_travels_there_and_back(script, monkeypatch, name):
    make = {
        "Data": lambda cls: cls(3),
        "Pair": lambda cls: cls(1),
        "Point": lambda cls: cls(1, 2),
        "Colour": lambda cls: cls.RED,
    }
    here = make.get(name, lambda cls: cls())(getattr(script, name))
    core = cloudpickle.cloudpickle
    known = core._DYNAMIC_CLASS_TRACKER_BY_ID, core._DYNAMIC_CLASS_TRACKER_BY_CLASS
    with monkeypatch.context() as away:
        there = elsewhere(dumps(here), away)
        assert type(there) is not type(here)
        state = [getattr(there, key, None) for key in ("a", "b", "c", "other", "n", "item")]
        assert state == [getattr(here, key, None) for key in ("a", "b", "c", "other", "n", "item")]
        back = dumps(there)
    assert known == (core._DYNAMIC_CLASS_TRACKER_BY_ID, core._DYNAMIC_CLASS_TRACKER_BY_CLASS)
    assert type(pickle.loads(back)) is type(here)


def test_methods_of_a_class_with_slots_work_there(script, monkeypatch):
    below, data, concrete, made, replaced = elsewhere(
        dumps((script.Below, script.Data, script.Concrete, script.Made, script.Replaced)), monkeypatch
    )
    assert below().both() == (1, 2)
    assert data(4).twice() == 8
    assert repr(data(4)) == "Data(n=4, name='x')"
    assert concrete().do() == "done"
    assert made.made_by == "Meta"
    one = replaced()
    one._a = 6
    assert one.a == 6
    with pytest.raises(AttributeError):
        made().b = 1


def test_an_abstract_class_stays_one(script, monkeypatch):
    with pytest.raises(TypeError, match="abstract"):
        elsewhere(dumps(script.Abstract), monkeypatch)()


def test_slots_set_on_a_class_afterwards_make_none(monkeypatch):
    class Late:
        pass

    Late.__slots__ = ("a",)  # type: ignore[attr-defined]
    there = elsewhere(dumps(Late), monkeypatch)
    there().b = 1


def test_a_private_slot_that_is_no_tuple_is_refused_with_the_way_out(monkeypatch):
    class Odd:
        __slots__ = "__x"

    with pytest.raises(Unpicklable, match=r"__slots__ = \('__x',\)"):
        pickled.dumps(Odd, "the target")


# Code


def test_a_traceback_shows_the_file_and_the_line(script, monkeypatch):
    inner = elsewhere(dumps(script.outer), monkeypatch)()
    with pytest.raises(ValueError) as caught:
        inner()
    lines = "".join(traceback.format_exception(caught.value))
    assert script.__file__ in lines
    assert "    return fails()\n" in lines
    assert '    raise ValueError("no")\n' in lines


def test_the_source_of_what_travelled_is_found(script, monkeypatch):
    function = elsewhere(dumps(script.fails), monkeypatch)
    assert inspect.getsource(function) == 'def fails():\n    raise ValueError("no")\n'
    assert inspect.getsourcefile(function) == script.__file__


def test_a_closure_that_travels_has_its_file(monkeypatch):
    factor = 3
    function = elsewhere(dumps(lambda value: [item * factor for item in value]), monkeypatch)
    assert function([2]) == [6]
    assert function.__code__.co_filename == __file__
    inside = [item for item in function.__code__.co_consts if isinstance(item, types.CodeType)]
    assert {code.co_filename for code in inside} <= {__file__}


# What pickle knows by name only


def test_a_cached_function_and_a_new_type_of_the_script_travel(script, monkeypatch):
    uses = elsewhere(dumps(script.uses), monkeypatch)
    assert uses() == (6765, 3, 7)
    fib = uses.__globals__["fib"]
    assert fib.__wrapped__.__globals__["fib"] is fib
    assert (fib.__name__, fib.__module__) == ("fib", "__main__")


def test_cached_functions_of_modules_travel_by_name():
    assert pickle.loads(dumps(typing.NewType)) is typing.NewType
    assert pickle.loads(dumps(linecache.lazycache)) is linecache.lazycache


# Annotations


def test_annotations_travel_and_those_without_a_value_as_text(script, monkeypatch):
    text = """
class Job:
    n: int
    after: "list[Job]"

class Early:
    n: int
    later: Unknown

def early(job: Job, later: Unknown = 3, *, more: Unknown = 4) -> None:
    "Its text."
    return later, more
early.extra = 5
"""
    if sys.version_info < (3, 14):
        text = text.replace("Unknown", "'Unknown'")  # they would be computed at once
    exec(compile(text, "text", "exec", dont_inherit=True), script.__dict__)
    job, early_class, early = elsewhere(dumps((script.Job, script.Early, script.early)), monkeypatch)
    assert job.__annotations__ == {"n": int, "after": "list[Job]"}
    assert early_class.__annotations__["later"] == early.__annotations__["later"] == "Unknown"
    assert early(1) == (3, 4)
    assert (early.__doc__, early.extra, hasattr(early, "__wrapped__")) == ("Its text.", 5, False)
    assert script.early(1) == (3, 4)


# The call of a worker


def called(script, monkeypatch, target, *args):
    """A target and its arguments, pickled one after the other, where nobody has ever seen the script."""
    names = Names()
    data = dumps(target, None, names)
    names.seal()
    more = dumps(args, None, names)
    target = elsewhere(data, monkeypatch)
    return target, pickle.loads(more), sys.modules["__main__"]


def test_what_a_target_refers_to_becomes_part_of_main(script, monkeypatch):
    target, _, main = called(script, monkeypatch, script.outer)
    assert main.outer is target
    assert target.__globals__ is main.__dict__
    assert main.fails is target.__globals__["fails"]
    assert pickle.loads(pickle.dumps(target)) is target
    assert main.__dict__["__builtins__"] is __import__("builtins")
    assert not hasattr(main, "Plain")


def test_classes_that_only_objects_refer_to_become_part_of_main(script, monkeypatch):
    _, (job,), main = called(script, monkeypatch, print, script.Below())
    assert (main.Below, main.Plain) == (type(job), type(job).__base__)
    assert type(pickle.loads(pickle.dumps(job))) is main.Below


def test_the_arguments_refer_to_what_the_target_has_brought(script, monkeypatch):
    target, (other, again), main = called(script, monkeypatch, script.outer, script.fails, script.outer)
    assert other is main.fails
    assert again is target


def test_what_is_inside_a_class_comes_with_it(script, monkeypatch):
    exec("class Outer:\n    class Inner: pass\n", script.__dict__)
    _, (inner,), main = called(script, monkeypatch, print, script.Outer.Inner())
    assert type(inner) is main.Outer.Inner


def test_classes_that_annotations_name_as_text_come_as_well(script, monkeypatch):
    text = "def typed(job: 'list[Data]') -> 'Colour | None': ..."
    exec(compile(text, "text", "exec", dont_inherit=True), script.__dict__)
    target, _, main = called(script, monkeypatch, script.typed)
    assert typing.get_type_hints(target) == {"job": list[main.Data], "return": main.Colour | None}


def test_the_wrapper_and_not_what_it_wraps_has_the_name(script, monkeypatch):
    def wrapped() -> str:
        return "wrapped"

    @functools.wraps(wrapped)
    def wrapper() -> str:
        return f"wrapper of {wrapped()}"

    for function in (wrapped, wrapper):
        function.__module__, function.__qualname__ = "__main__", "wrapped"
    script.wrapped = wrapper
    target, _, main = called(script, monkeypatch, wrapper)
    assert main.wrapped is target
    assert target() == "wrapper of wrapped"


def test_lines_that_are_on_no_disk_travel_too(script, monkeypatch):
    text = "def typed_in():\n    return 1 / 0\n"
    exec(compile(text, "<cell 7>", "exec"), script.__dict__)
    monkeypatch.setattr(linecache, "cache", dict(linecache.cache))
    linecache.cache["<cell 7>"] = (len(text), None, text.splitlines(True), "<cell 7>")
    names = Names()
    data = dumps(script.typed_in, None, names)
    del linecache.cache["<cell 7>"]
    assert inspect.getsource(elsewhere(data, monkeypatch)) == text


@pytest.mark.parametrize("name", [*SLOTTED, "Colour", "Pair", "Point", "Open", "outer", "fib", "uses"])
def test_a_pickle_is_the_same_each_time(script, name):
    """By it is known whether a worker has a function, and whether a global has changed."""
    value = getattr(script, name)
    first = dumps(value)
    if isinstance(value, type) and name not in ("Abstract", "Colour", "Pair", "Point", "Data", "Frozen"):
        dumps(value())
        getattr(value, "__annotations__", None)
    assert dumps(value) == first
    assert dumps(value, None, Names()) == dumps(value, None, Names())


def test_the_mark_of_a_global_is_that_of_its_pickle(script):
    values = [
        5,
        "text",
        "text" * 100,
        [1],
        [2],
        script.Data(1),
        script.Data(2),
        script.fib,
        {"f": script.outer},
    ]
    marks = [_mark_of(value) for value in values]
    assert len(set(marks)) == len(values)
    assert marks == [_mark_of(value) for value in values]
    assert all(mark is not None and len(mark) <= 16 for mark in marks)
    values[3].append(3)
    assert _mark_of(values[3]) != marks[3]


@pytest.mark.parametrize("name", ["outer", "Plain", "Made", "typing"])
def test_code_has_no_mark(script, name):
    assert _mark_of(getattr(script, name)) is None


def test_what_cannot_be_pickled_alone_has_no_mark():
    assert _mark_of(threading.Lock()) is None
    assert _mark_of([sys._getframe()]) is None


@pytest.mark.parametrize(("is_marked", "times"), [(True, 2), (False, 1)])
def test_a_global_that_several_functions_refer_to_is_marked_once_for_a_pool_and_not_otherwise(
    script, is_marked, times
):
    class Counted:
        times = 0

        def __reduce__(self):
            Counted.times += 1
            return list, ()

    script.counted = Counted()
    exec("def one(): return counted\ndef two(): return counted, one", script.__dict__)
    dumps(script.two, None, Names(is_marked=is_marked))
    assert Counted.times == times, "for the mark, and for the pickle"


def test_an_event_changes_nothing_in_main(script, monkeypatch):
    target = elsewhere(dumps(script.outer), monkeypatch)
    assert not hasattr(sys.modules["__main__"], "outer")
    assert target.__globals__ is not sys.modules["__main__"].__dict__


def test_an_instance_that_an_event_brings_is_of_the_class_that_the_target_brought(script, monkeypatch):
    by_event = dumps(script.Data(4))
    _, _, main = called(script, monkeypatch, script.Data)
    assert type(pickle.loads(by_event)) is main.Data


def test_a_function_of_a_module_brings_nothing():
    names = Names()
    dumps(test_a_function_of_a_module_brings_nothing, None, names)
    dumps(lambda: 5, None, names)
    assert not names.used
