from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.log_lines import LINE_BYTES, one_line


@pytest.mark.parametrize(
    "text", ["", "! a line: 'x'", "é" * 256, "x" * LINE_BYTES, "\N{GRINNING FACE}" * 256]
)
def test_a_line_that_is_printable_and_short_stays_as_it_is(text):
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n! forged", r"a\n! forged"),
        ("a\r\x1b[2J\0\x7f", r"a\r\x1b[2J\x00\x7f"),
        ("\u2028\u202e\xa0\x85", r"\u2028\u202e\xa0\x85"),
        ("\ud800\U000e0001", r"\ud800\U000e0001"),
    ],
)
def test_what_is_not_printable_is_shown_by_its_escape(text, shown):
    assert one_line(text) == shown


def test_what_is_left_out_is_counted():
    assert one_line("x" * 2000) == "x" * 998 + "... (1002 more characters)"
    assert one_line("x" * 50, 30) == "x" * 6 + "... (44 more characters)"


@given(st.text(), st.integers(30, 200))
def test_every_text_is_one_printable_line_of_at_most_so_many_bytes(text, most):
    line = one_line(text * 5, most)
    assert line.isprintable()
    assert len(line.encode()) <= most


def test_no_place_for_the_mark_is_no_line():
    assert one_line("x" * 50, 5) == ""
