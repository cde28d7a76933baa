from __future__ import annotations

from fabric import Fabric, Process
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipevents._core.messages import BROADCAST, TO_CHILDS, TO_GRAND_MASTER, TO_PARENTS, TO_SIBLINGS

EVENTS = ("x", "y")
MOST = 12  # processes
PICK = st.integers(0, 1 << 16)


def ancestors(process: Process) -> list[Process]:
    found = []
    while process.parent is not None:
        process = process.parent
        found.append(process)
    return found


def advertised(process: Process) -> set[str]:
    """What the subtree wants, as far as it has said so."""
    own = process.listens if process.announced else set()
    return own.union(*map(advertised, process.children))


def reached_below(process: Process, event: str, but: Process | None = None) -> set[str]:
    """Who below listens, on ways that are wanted; written without the router."""
    reached: set[str] = set()
    for child in process.children:
        if child is not but and (not child.announced or event in advertised(child)):
            reached |= {child.pid} | reached_below(child, event)
    return reached


def expected(fabric: Fabric, sender: Process, kind: int, event: str) -> set[str]:
    if kind == TO_PARENTS:
        reached = {item.pid for item in ancestors(sender)}
    elif kind == TO_GRAND_MASTER:
        reached = {fabric.top.pid}
    elif kind == TO_CHILDS:
        reached = reached_below(sender, event)
    elif kind == TO_SIBLINGS:
        reached = set()
        if sender.parent is not None:
            for sibling in sender.parent.children:
                if sibling is not sender and (not sibling.announced or event in advertised(sibling)):
                    reached.add(sibling.pid)
    else:
        reached = reached_below(sender, event)
        below = sender
        for above in ancestors(sender):
            reached |= {above.pid} | reached_below(above, event, but=below)
            below = above
    return {pid for pid in reached if event in fabric.processes[pid].listens}


def shape(process: Process) -> dict[str, object]:
    """The netmap as it has to be: who is online, and direct children also before that."""

    def below(item: Process) -> dict[str, object]:
        return {child.pid: below(child) for child in item.children if child.announced}

    return {child.pid: below(child) for child in process.children}


class Tree(RuleBasedStateMachine):
    """Processes come and go, listen and cease to; after each step everything has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.fabric = Fabric()

    def pick(self, number: int) -> Process:
        processes = list(self.fabric.processes.values())
        return processes[number % len(processes)]

    def pick_announced(self, number: int) -> Process:
        processes = [item for item in self.fabric.processes.values() if item.announced]
        return processes[number % len(processes)]

    @precondition(lambda self: len(self.fabric.processes) < MOST)
    @rule(parent=PICK, events=st.sets(st.sampled_from(EVENTS)), at_once=st.booleans())
    def a_process_joins(self, parent: int, events: set[str], at_once: bool) -> None:
        child = self.fabric.begin(self.pick_announced(parent))
        child.listens |= events
        if at_once:
            self.fabric.announce(child)
        self.fabric.settle()

    @rule(process=PICK)
    def a_process_says_that_it_is_online(self, process: int) -> None:
        found = self.pick(process)
        if not found.announced:
            self.fabric.announce(found)
            self.fabric.settle()

    @rule(process=PICK, event=st.sampled_from(EVENTS), wanted=st.booleans())
    def a_process_changes_its_mind(self, process: int, event: str, wanted: bool) -> None:
        found = self.pick(process)
        already = (event in advertised(self.fabric.top)) or not found.announced
        before = self.fabric.sent
        self.fabric.listen(found, event, wanted)
        self.fabric.settle()
        assert self.fabric.sent - before <= len(ancestors(found)), "at most one record per level and change"
        if already and wanted and found is self.fabric.top:
            assert self.fabric.sent == before

    @precondition(lambda self: len(self.fabric.processes) > 1)
    @rule(process=PICK)
    def a_process_dies(self, process: int) -> None:
        found = self.pick(process)
        if found.parent is not None:
            self.fabric.kill(found)
            self.fabric.settle()

    @rule(
        sender=PICK,
        kind=st.sampled_from([TO_PARENTS, TO_CHILDS, TO_SIBLINGS, TO_GRAND_MASTER, BROADCAST]),
        event=st.sampled_from(EVENTS),
    )
    def a_message_reaches_exactly_the_right_ones_once(self, sender: int, kind: int, event: str) -> None:
        origin = self.pick_announced(sender)
        self.fabric.send(origin, kind, event)
        self.fabric.settle()
        heard = [item.pid for item in self.fabric.processes.values() for _ in item.heard]
        assert sorted(heard) == sorted(expected(self.fabric, origin, kind, event))
        if kind == BROADCAST:
            assert origin.pid not in heard

    @rule(sender=PICK, event=st.sampled_from(EVENTS))
    def a_reply_along_the_pids_comes_back(self, sender: int, event: str) -> None:
        origin = self.pick_announced(sender)
        self.fabric.send(origin, BROADCAST, event)
        self.fabric.settle()
        answers = []
        origin.listens.add("answer")
        for process in list(self.fabric.processes.values()):
            for _, pids in process.heard:
                assert (pids[0], pids[-1]) == (origin.pid, process.pid)
                if process.announced:
                    self.fabric.send_to(process, pids, "answer")
                    answers.append(("answer", tuple(reversed(pids))))
        origin.heard.clear()
        self.fabric.settle()
        assert sorted(origin.heard) == sorted(answers)
        origin.listens.discard("answer")

    @precondition(lambda self: len(self.fabric.processes) > 2)
    @rule(sender=PICK)
    def a_route_that_breaks_comes_back_to_its_origin(self, sender: int) -> None:
        origin = self.pick_announced(sender)
        way = [origin, *ancestors(origin)]
        self.fabric.send_to(origin, ("nobody", *(item.pid for item in reversed(way))), "x")
        self.fabric.settle()
        assert origin.reports == [("x", "nobody")]

    @invariant()
    def what_is_advertised_is_what_the_subtree_wants(self) -> None:
        for process in self.fabric.processes.values():
            for child in process.children:
                assert process.router.interest.of(process.link(child)) == advertised(child)

    @invariant()
    def the_netmap_is_the_tree(self) -> None:
        for process in self.fabric.processes.values():
            assert process.router.netmap.as_dict() == shape(process)

    def teardown(self) -> None:
        assert not any(self.fabric.links.values())

    @invariant()
    def forget_what_was_heard(self) -> None:
        for process in self.fabric.processes.values():
            process.heard.clear()
            process.reports.clear()


Tree.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestTree = Tree.TestCase


def chain(length: int) -> tuple[Fabric, list[Process]]:
    fabric = Fabric()
    line = [fabric.top]
    for _ in range(length):
        line.append(fabric.begin(line[-1]))
        fabric.announce(line[-1])
    fabric.settle()
    return fabric, line


def test_a_listener_at_depth_five_costs_one_record_per_level():
    fabric, line = chain(5)
    before = fabric.sent
    fabric.listen(line[-1], "x")
    fabric.settle()
    assert fabric.sent - before == 5


def test_a_second_listener_elsewhere_costs_records_only_where_it_is_news():
    fabric, line = chain(5)
    fabric.listen(line[5], "x")
    fabric.settle()
    before = fabric.sent
    fabric.listen(line[3], "x")
    fabric.settle()
    assert fabric.sent == before


def test_the_only_listener_at_the_bottom_is_reached_from_the_top():
    fabric, line = chain(5)
    fabric.listen(line[-1], "x")
    fabric.settle()
    fabric.send(fabric.top, BROADCAST, "x")
    fabric.settle()
    assert line[-1].heard == [("x", ("0", "1", "2", "3", "4", "5"))]


def test_a_route_may_go_to_the_sender_itself_by_way_of_its_parent():
    fabric, line = chain(1)
    line[1].listens.add("x")
    fabric.send_to(line[1], ("1", "0", "1"), "x")
    fabric.settle()
    assert line[1].heard == [("x", ("1", "0", "1"))]


def test_a_restarted_process_begins_without_interest():
    fabric, line = chain(2)
    fabric.listen(line[2], "x")
    fabric.settle()
    fabric.kill(line[2])
    fabric.settle()
    before = fabric.sent
    fabric.send(fabric.top, BROADCAST, "x")
    assert fabric.sent == before
