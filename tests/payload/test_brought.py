"""The names that pickles bring into ``__main__``; what functions see of them is in ask/test_functions.py."""

from __future__ import annotations

import pickle
import sys
import types

import pytest

from ipevents._payload import brought
from ipevents._payload.brought import bring, loads


@pytest.fixture
def main(monkeypatch):
    """The ``__main__`` of a process to which nothing was brought."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


class Brings:
    """Brings names where its pickle is loaded."""

    def __init__(self, **found: tuple[bytes | None, object]) -> None:
        self.found = found

    def __reduce__(self):
        return bring, (self.found,)


def code(**found: tuple[bytes | None, object]) -> bytes:
    return pickle.dumps(Brings(**found))


def loaded(**found: tuple[bytes | None, object]):
    return loads(code(**found))[1]


def test_a_name_that_is_not_there_is_set(main):
    bring({"a": (b"1", [1]), "b": (None, len)})
    assert (main.a, main.b) == ([1], len)


def test_what_is_the_same_as_before_leaves_the_object_that_is_there(main):
    bring({"a": (b"1", [1])})
    there = main.a
    there.append(2)
    bring({"a": (b"1", [1])})
    assert main.a is there


def test_what_is_not_the_same_replaces_it(main):
    bring({"a": (b"1", [1])})
    bring({"a": (b"2", [2])})
    assert main.a == [2]


def test_what_has_no_mark_replaces_what_was_brought_before(main):
    bring({"a": (None, len)})
    bring({"a": (None, max)})
    assert main.a is max
    bring({"a": (b"1", 5)})
    bring({"a": (None, min)})
    assert main.a is min


def test_what_the_program_has_bound_itself_is_its_own(main):
    bring({"a": (b"1", None), "b": (None, len)})
    main.a, main.b, main.c = "mine", "mine", "mine"
    bring({"a": (b"2", 5), "b": (None, max), "c": (b"3", 7)})
    assert (main.a, main.b, main.c) == ("mine", "mine", "mine")


def test_a_name_that_the_program_has_deleted_is_brought_again(main):
    bring({"a": (b"1", [1])})
    there = main.a
    del main.a
    bring({"a": (b"1", [1])})
    assert main.a is there
    del main.a
    bring({"a": (b"2", [2])})
    assert main.a == [2]


def test_the_names_that_each_main_has_are_those_of_the_script_until_the_program_binds_them(main):
    main.__file__ = "python"
    bring({"__file__": (b"1", "script.py")})
    assert main.__file__ == "script.py"
    main.__file__ = "mine"
    bring({"__file__": (b"2", "other.py")})
    assert main.__file__ == "mine"


def test_another_main_has_nothing_that_was_brought(main, monkeypatch):
    found = loaded(a=(b"1", 1))
    other = types.ModuleType("__main__")
    other.a = "mine"
    monkeypatch.setitem(sys.modules, "__main__", other)
    bring({"a": (b"1", 1), "b": (b"1", 2)})
    assert (other.a, other.b) == ("mine", 2)
    del other.a
    found.again()
    assert other.a == 1


def test_a_pickle_that_brings_nothing_has_nothing_to_bring_again(main):
    assert loads(pickle.dumps(5)) == (5, None)


def test_what_a_pickle_has_brought_can_be_brought_again(main):
    one = loaded(a=(b"1", [1]), b=(None, len))
    two = loaded(a=(b"2", [2]), b=(None, max))
    assert (main.a, main.b) == ([2], max)
    one.again()
    assert (main.a, main.b) == ([1], len)
    two.again()
    assert (main.a, main.b) == ([2], max)


def test_what_the_program_has_put_into_it_is_there_again_as_well(main):
    one = loaded(a=(b"1", []))
    main.a.append("mine")
    loaded(a=(b"2", []))
    assert main.a == []
    one.again()
    assert main.a == ["mine"]


def test_one_that_brings_the_same_as_another_before_has_the_object_of_that_one(main):
    loaded(a=(b"1", []))
    main.a.append("mine")
    same = loaded(a=(b"1", []))
    loaded(a=(b"2", []))
    same.again()
    assert main.a == ["mine"]


def test_what_the_program_binds_later_is_not_brought_again(main):
    one = loaded(a=(b"1", 1))
    main.a = "mine"
    loaded(a=(b"2", 2), b=(b"2", 2))
    one.again()
    assert (main.a, main.b) == ("mine", 2)


def test_nothing_is_looked_at_again_while_nothing_else_was_brought(main, monkeypatch):
    one = loaded(a=(b"1", 1))
    loaded(a=(b"1", 1))
    monkeypatch.setattr(brought, "bring", None)
    one.again()
    monkeypatch.undo()
    two = loaded(a=(b"2", 2))
    one.again()
    monkeypatch.setattr(brought, "bring", None)
    one.again()
    with pytest.raises(TypeError):
        two.again()


class Nested:
    """A pickle that loads another one while it is loaded."""

    def __init__(self, inner: bytes) -> None:
        self.inner = inner

    def __reduce__(self):
        return loads, (self.inner,)


def test_a_pickle_that_is_loaded_within_another_one_has_its_own(main):
    inner = code(a=(b"1", 1))
    parts = [Brings(c=(b"1", 3)), Nested(inner), Brings(b=(b"1", 2))]
    (_, (_, within), _), around = loads(pickle.dumps(parts))
    main.__dict__.clear()
    around.again()
    assert not hasattr(main, "c"), "nothing has changed by what was brought"
    bring({"x": (b"1", 1)})
    around.again()
    assert (main.b, main.c, hasattr(main, "a")) == (2, 3, False)
    within.again()
    assert main.a == 1


class Fails:
    def __reduce__(self):
        return int, ("no number",)


def test_after_a_pickle_that_cannot_be_loaded_all_is_as_before(main):
    with pytest.raises(ValueError, match="no number"):
        loads(pickle.dumps([Brings(a=(b"1", 1)), Fails()]))
    assert main.a == 1
    bring({"b": (b"1", 1)})
    assert loads(pickle.dumps(5)) == (5, None)
