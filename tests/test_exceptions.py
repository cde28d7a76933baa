from __future__ import annotations

import copy
import pickle

import pytest

from ipevents import _exceptions
from ipevents._exceptions import IPEventsError, StartFailed, TargetFailed, Undeliverable, child_title, shown


class Odd:
    def __repr__(self):
        raise LookupError("odd")


def test_a_value_is_shown_in_so_many_characters_whatever_its_repr_does():
    assert shown("x") == "'x'"
    assert shown("x" * 500, 20) == "'" + "x" * 16 + "..."
    assert shown(Odd()).startswith("<Odd object at 0x")


def test_a_value_is_not_shown_where_its_repr_ends_the_program():
    class Ends:
        def __repr__(self):
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        shown(Ends())


def test_a_child_has_its_name_beside_its_pid():
    assert child_title("resize", "4718") == "child resize (4718)"
    assert child_title("", "4718") == "child 4718"


@pytest.mark.parametrize(
    "error",
    [
        StartFailed("4718", 3, "Traceback\nValueError: x\n", name="resize"),
        TargetFailed("4718", 1, "Traceback\nValueError: x\n", name="resize"),
        Undeliverable("x", "4718", "1", "gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_with_attributes_travels_whole(error):
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_all_are_of_one_tree():
    classes = [value for value in vars(_exceptions).values() if isinstance(value, type)]
    assert all(issubclass(each, IPEventsError) for each in classes if issubclass(each, BaseException))
