"""Which control records a peer may send; each wrong value of each item is in tests/node/test_controls.py."""

from __future__ import annotations

import pytest

from ipevents._core import control_checks
from ipevents._core.control_checks import check_channel, check_control
from ipevents._core.messages import (
    ANSWERS,
    CANCEL,
    CHANNEL_ITEMS,
    CONTROL_ITEMS,
    GOODBYE,
    INTEREST,
    MAX_IDS,
    ONLINE,
    PARENT,
    PROBE,
    PROGRAM,
    QUIET,
    RAISED,
    REPORT,
    RETURNED,
    RUNS,
    STOP,
    TAKE_BACK,
    control,
)
from ipevents._exceptions import Forged, ProtocolError


def test_each_item_of_each_kind_is_checked():
    tables = {**CONTROL_ITEMS, **CHANNEL_ITEMS}
    assert {name for names in tables.values() for name in names} == set(control_checks._CHECKS)


@pytest.mark.parametrize("kind", CHANNEL_ITEMS)
@pytest.mark.parametrize("is_parent", [True, False, None])
@pytest.mark.parametrize("is_public", [True, False])
def test_what_belongs_to_a_control_channel_has_no_place_on_a_link(kind, is_parent, is_public):
    record = (kind, *[0 for _ in CHANNEL_ITEMS[kind]])
    with pytest.raises(ProtocolError):
        check_control(record, is_parent=is_parent, is_public=is_public)


def test_the_items_are_returned_by_their_names():
    record = control(INTEREST, event="x", wanted=True)
    items = {"event": "x", "wanted": True}
    assert check_control(record, is_parent=False, is_public=False) == items
    assert check_control(list(record), is_parent=False, is_public=True) == items
    assert check_control((PROGRAM, (), "", None, [b""]), is_parent=True, is_public=False) == {}
    assert check_control((RETURNED, (), "", None, [b""]), is_parent=False, is_public=False) == {}
    for kind in (RETURNED, RAISED):  # only a child says this, and to its parent
        for is_parent, is_public in ((True, False), (False, True)):
            with pytest.raises(ProtocolError):
                check_control((kind, (), "", None, [b""]), is_parent=is_parent, is_public=is_public)


@pytest.mark.parametrize(
    ("record", "is_parent", "error"),
    [
        ((ONLINE, ("a",)), True, Forged),
        ((QUIET, ("b", "a")), True, Forged),
        ((PARENT, "a"), False, Forged),
        ((STOP, 1), False, Forged),
    ],
)
def test_what_only_the_other_side_may_say_is_forged(record, is_parent, error):
    with pytest.raises(error):
        check_control(record, is_parent=is_parent, is_public=False)
    check_control(record, is_parent=None, is_public=False)
    check_control(record, is_parent=not is_parent, is_public=False)


def test_a_connection_has_only_the_kinds_of_its_socket():
    for record, is_public in [((GOODBYE,), True), ((STOP, 1), False)]:
        check_control(record, is_parent=True, is_public=is_public)
        with pytest.raises(ProtocolError, match="no place"):
            check_control(record, is_parent=True, is_public=not is_public)


def test_the_error_names_the_value_and_its_item_and_is_short():
    with pytest.raises(ProtocolError) as caught:
        check_control((REPORT, (), "x" * 10_000, "a", None, ""), is_parent=False, is_public=False)
    assert "as its event" in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("is_parent", [True, False])
def test_requests_are_cancelled_over_a_control_channel_from_both_sides(is_parent):
    assert check_channel((CANCEL, (1, 2)), is_parent=is_parent) == {"ids": (1, 2)}
    for ids in [(), [1], (-1,), (True,), ("1",), (1 << 64,), tuple(range(MAX_IDS + 1)), None]:
        with pytest.raises(ProtocolError):
            check_channel((CANCEL, ids), is_parent=is_parent)


def test_only_a_parent_takes_requests_back_over_a_link_or_a_control_channel():
    record = (TAKE_BACK, "x", (1, 2))
    assert check_channel(record, is_parent=True) == {"event": "x", "ids": (1, 2)}
    assert check_control(record, is_parent=True, is_public=True) == {"event": "x", "ids": (1, 2)}
    with pytest.raises(ProtocolError, match="no place"):
        check_channel(record, is_parent=False)
    with pytest.raises(Forged):
        check_control(record, is_parent=False, is_public=True)


@pytest.mark.parametrize("is_parent", [True, False])
@pytest.mark.parametrize(
    "record", [(ANSWERS, "x", 1, 1), (ONLINE, ("a",)), (QUIET, ("b", "a")), (GOODBYE,), (8,), (11,)]
)
def test_nothing_else_that_goes_over_a_link_has_a_place_on_a_control_channel(is_parent, record):
    with pytest.raises(ProtocolError, match="no place"):
        check_channel(record, is_parent=is_parent)


def test_only_a_parent_asks_over_a_control_channel_and_only_a_child_answers():
    for kind, is_parent in ((PROBE, False), (STOP, False), (RUNS, True)):
        with pytest.raises(ProtocolError, match="no place"):
            check_channel((kind, 1, 1), is_parent=is_parent)
