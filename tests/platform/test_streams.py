from __future__ import annotations

import os

import pytest
from starters import in_child

from ipevents._platform import streams


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2), ()])
def test_what_is_closed_of_the_three_is_taken_by_null(closed):
    def occupied():
        before = [None if number in closed else os.fstat(number)[:2] for number in range(3)]
        for number in closed:
            os.close(number)
        streams.occupy()
        null = os.stat(os.devnull)[:2]
        assert [os.fstat(number)[:2] for number in range(3)] == [each or null for each in before]
        assert all(os.get_inheritable(number) for number in closed)
        assert os.open(os.devnull, os.O_RDONLY) > 2

    in_child(occupied)


def test_without_null_a_descriptor_stays_closed():
    def refused():
        os.close(0)
        os.devnull = "/nowhere"
        streams.occupy()
        with pytest.raises(OSError):
            os.fstat(0)

    in_child(refused)
