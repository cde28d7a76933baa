from __future__ import annotations

import itertools

from places import settle

from ipevents._core.messages import TO_CHILDS
from ipevents._node.snapshot import snapshot


def counted(line):
    """The counters of the middle one, when all that is on its way has arrived."""
    settle(*line)
    seen = snapshot(line[1].node, 3)
    assert (seen["pid"], seen["restarts"]) == ("middle", 3)
    link = seen["links"]["top"]
    return seen["delivered"], link["received"], link["delivered"]


def test_it_has_the_counters_of_one_moment(line):
    top, middle, _ = line
    middle.listen("x")
    counts = [counted(line), counted(line)]
    top.send(TO_CHILDS, "x", 1)
    assert middle.next() == ("x", (1,), ("top", "middle"))
    counts.append(counted(line))
    first, second = ([b - a for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(counts))
    assert second == [more + 1 for more in first]  # what settle() sends is counted as well


def test_it_belongs_to_the_caller(line):
    top, *_ = line
    seen = snapshot(top.node, 0)
    seen["links"].clear()
    seen["refused"]["x"] = 1
    seen["past"]["dropped"]["x"] = 1
    seen["past"]["sent"] = 17
    again = snapshot(top.node, 0)
    assert again["links"]
    assert again["refused"] == again["past"]["dropped"] == {}
    assert again["past"]["sent"] == 0
