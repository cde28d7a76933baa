from __future__ import annotations

from places import settle

from ipevents._core.messages import TO_CHILDS
from ipevents._node.snapshot import snapshot


def test_it_has_the_counters_of_one_moment(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    before = snapshot(middle.node, 3)
    top.send(TO_CHILDS, "x", 1)
    assert middle.next() == ("x", (1,), ("top", "middle"))
    settle(*line)
    seen = snapshot(middle.node, 3)
    assert (seen["pid"], seen["restarts"], seen["delivered"]) == ("middle", 3, before["delivered"] + 1)
    link, earlier = seen["links"]["top"], before["links"]["top"]
    assert (link["received"], link["delivered"]) == (earlier["received"] + 1, earlier["delivered"] + 1)


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
