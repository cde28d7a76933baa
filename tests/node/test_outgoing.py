"""What user code sends: over links, from within the library, and to a child that has no process just now."""

from __future__ import annotations

import gc
import queue
import signal
import threading

import pytest
from balance import imbalances
from places import CEILING, inside, settle

from ipevents import (
    Child,
    Closed,
    Emitter,
    InvalidEvent,
    MessageTooLarge,
    OutboxFull,
    UnknownProcess,
    Unpicklable,
)
from ipevents._core import outbox
from ipevents._core.child_states import Phase
from ipevents._core.messages import (
    BROADCAST,
    EVENT,
    PAYLOADS,
    PROGRAM,
    TO_CHILD,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
)
from ipevents._core.restarts import Restart, RestartPolicy
from ipevents._core.topology import Up
from ipevents._links import outlet as outlet_module
from ipevents._links.link import Link
from ipevents._node.backpressure import ANY_LIMIT
from ipevents._node.snapshot import snapshot
from ipevents._platform.threads import Deadline
from ipevents._processes import programs
from ipevents._processes.child_state import ChildState

# Between two processes of a child; with processes see system/test_restart.py


class Running:
    """A process that runs, as far as a ChildState looks at it."""


class Between:
    """A child whose process has ended, and whose next one the test starts."""

    def __init__(self) -> None:
        self.emitter = Emitter().options(useSocket=False).start()
        self.node = self.emitter._node
        policy = RestartPolicy(True, 1.0, None)
        self.state = ChildState("resize", programs.function(print, (), {}), True, policy, False, "spawn")
        self.state.pid = "4711"
        self.link = self.state.link = Link(
            "4711", self.node.lock, self.node.incoming.receive, lambda *_: None
        )
        self.child = self.state.handle = Child(self.emitter._life, self.state)
        with self.node.lock:
            self.state.starts_now(0.0)
            self.state.started(Running())  # type: ignore[arg-type]
            self.state.exited(0, 0.0)
            self.link.drop_waiting("link-cut")

    def start(self) -> None:
        """As the supervisor does, with a process that takes nothing yet."""
        with self.node.lock:
            assert self.state.goes_next(Restart(0.0), 0.0)
            self.state.starts_now(0.0)
            self.node.router.add_child(self.link, "4712")
            self.state.started(Running())  # type: ignore[arg-type]
            self.link.wake_waiters()

    def waiting(self) -> list[tuple[str, tuple[object, ...]]]:
        """The events that the next process gets; what it is to run comes before them."""
        with self.node.lock:
            program, *records = self.state.next_outbox()._all()
            assert program[0] == PROGRAM
            assert all(record[0] == TO_CHILD for record in records)
            return [(record[EVENT], record[PAYLOADS][0]) for record in records]

    def end(self) -> None:
        """As the supervisor does, so that all that was sent is in the books."""
        with self.node.lock:
            if self.state.phase is Phase.RUNNING:
                self.state.exited(0, 0.0)
            if self.state.phase is not Phase.ENDED:
                self.link.drop("link-cut", self.state.ends())
            if self.link in self.node.router.neighbours:
                self.node.router.remove_child(self.link)
            self.link.drop_waiting("link-cut")
            self.node.remember(self.link)
            self.link.end()
        assert self.link.join(Deadline(CEILING))
        self.emitter.stop()


@pytest.fixture
def between():
    made = Between()
    yield made
    made.end()


@pytest.fixture
def small(monkeypatch):
    """An outbox is full with the program and two events."""
    monkeypatch.setattr(outbox, "OUTBOX_RECORDS", 3)
    monkeypatch.setattr(outbox, "FRAME_BYTES", 1)  # no message is so small that limits are not looked at


def waits_for_room(between, monkeypatch):
    """A queue that tells when a thread begins to wait for room in the link of the child."""
    begun: queue.SimpleQueue[None] = queue.SimpleQueue()
    original = between.link.wait_room

    def wait_room(timeout):
        begun.put(None)
        original(CEILING)

    monkeypatch.setattr(between.link, "wait_room", wait_room)
    return begun


def in_thread(call, *args):
    """Run a call in a thread; returns the queue of what it raises, or None."""
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run():
        try:
            call(*args)
        except BaseException as exc:
            ended.put(exc)
        else:
            ended.put(None)

    threading.Thread(target=run, daemon=True).start()
    return ended


def test_what_is_sent_between_two_processes_waits_in_order_for_the_next(between):
    sent = between.emitter.stats()["sent"]
    between.child.send("x", 1)
    between.child.send("y", 2)
    between.emitter.sendToChild(between.child, "x", 3)
    assert between.waiting() == [("x", (1,)), ("y", (2,)), ("x", (3,))]
    assert between.emitter.stats()["sent"] == sent + 3


def test_what_is_sent_after_the_start_comes_behind_it(between):
    between.child.send("x", 1)
    between.start()
    between.child.send("x", 2)
    with between.node.lock:
        records = list(between.link.outbox._all())
    assert [payload for record in records[1:] for payload in record[PAYLOADS]] == [(1,), (2,)]


def test_what_was_left_for_the_process_before_is_not_given_to_the_next(between):
    between.start()
    between.child.send("x", 1)
    with between.node.lock:
        between.state.exited(0, 1.0)
    between.child.send("x", 2)
    assert between.waiting() == [("x", (2,))]


def test_a_send_that_finds_the_process_gone_goes_to_the_next(between):
    between.start()
    with between.node.lock:
        between.node.router.remove_child(between.link)

    class Ends:
        """Runs when it is asked first, as the sender does, and has ended when it is asked again."""

        asked = 0

        def __get__(self, state, owner):
            self.asked += 1
            return self.asked == 1

    class Ending(ChildState):
        alive = Ends()  # type: ignore[assignment]

    between.state.__class__ = Ending
    between.child.send("x", 1)
    assert between.waiting() == [("x", (1,))]


def test_a_pid_is_that_of_one_process_only(between):
    with pytest.raises(UnknownProcess, match=r"has no child with the pid '4711'"):
        between.emitter.sendToChild("4711", "x")
    assert between.waiting() == []


@pytest.mark.parametrize(
    ("event", "args", "error"),
    [("", (), InvalidEvent), ("online", (), InvalidEvent), ("x", (threading.Lock(),), Unpicklable)],
)
def test_a_wrong_send_between_two_processes_is_refused_as_ever(between, event, args, error):
    with pytest.raises(error):
        between.child.send(event, *args)
    assert between.waiting() == []


@pytest.mark.parametrize("how", ["ended", "wanted"])
def test_a_child_that_will_not_be_started_again_has_ended(between, how):
    if how == "ended":
        between.state.ends()
    else:
        between.state.wanted = True
    with pytest.raises(UnknownProcess, match=r"child resize \(4711\) has ended"):
        between.child.send("x")


def test_the_error_event_of_such_a_send_has_the_child(between):
    between.state.ends()
    with between.emitter.expecting("error", CEILING) as got:
        between.child.send("x")
    assert got.message.child is between.child


def test_after_a_stop_it_is_closed(between):
    between.emitter.stop()
    with pytest.raises(Closed):
        between.child.send("x")


def test_in_a_listener_a_full_outbox_is_an_error_at_once(between, small):
    caught = []

    def listener(message):
        try:
            for number in range(3):
                between.child.send("x", number)
        except OutboxFull as exc:
            caught.append(str(exc))

    between.emitter.on("go", listener).emit("go")
    assert between.waiting() == [("x", (0,)), ("x", (1,))]
    assert len(caught) == 1


def test_another_thread_waits_for_room_until_the_next_process_takes_some(between, small, monkeypatch):
    begun = waits_for_room(between, monkeypatch)
    for number in range(2):
        between.child.send("x", number)
    ended = in_thread(between.child.send, "x", 2)
    begun.get(timeout=CEILING)
    between.start()
    begun.get(timeout=CEILING)  # it runs, but has not taken anything yet
    with between.node.lock:
        assert [len(between.link.outbox.take()) for _ in range(3)] == [1, 1, 1]
        between.link.outbox.taken = []  # it is written, and handled
        between.link.sent = between.link.acknowledged = 2
        between.link.wake_waiters()
    assert ended.get(timeout=CEILING) is None
    with between.node.lock:
        assert [record[PAYLOADS] for record in between.link.outbox._all()] == [[(2,)]]


def test_the_wait_for_room_ends_with_the_child(between, small, monkeypatch):
    begun = waits_for_room(between, monkeypatch)
    for number in range(2):
        between.child.send("x", number)
    ended = in_thread(between.child.send, "x", 2)
    begun.get(timeout=CEILING)
    with between.node.lock:
        lost = between.state.ends()
        between.link.drop("link-cut", lost)
        between.link.end()
    assert lost == 2
    assert type(ended.get(timeout=CEILING)) is UnknownProcess


def test_a_send_from_within_the_library_is_done_on_leaving(between):
    with between.node.lock:
        between.child.send("x", 1)
        assert between.state.next_outbox().events == 0
    assert between.waiting() == [("x", (1,))]


# From within the library


def test_a_send_from_inside_is_queued_and_done_on_leaving(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)

    def call():
        top.send(BROADCAST, "x", 1)
        top.send_child("middle", "x", 2)
        top.send_to(["middle"], "x", 3)
        assert top.node.outgoing.sent == sent

    sent = top.node.outgoing.sent
    inside(top, call)
    assert [middle.next()[1] for _ in range(3)] == [(1,), (2,), (3,)]


def test_what_is_queued_from_inside_is_done_also_if_a_handler_raises_while_a_batch_is_written(
    line, monkeypatch
):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    heard = []
    top.on("local", lambda message: heard.append(message.event))
    claim = Link.claim_now

    def interrupted(link):
        monkeypatch.setattr(Link, "claim_now", claim)
        top.node.events.emit("local", (), {})
        raise KeyboardInterrupt

    with top.node.lock:
        top.node.outgoing.mark_dirty(top.link_to(middle))
    monkeypatch.setattr(Link, "claim_now", interrupted)
    with pytest.raises(KeyboardInterrupt):
        top.node.outgoing.write_dirty()
    assert heard == ["local"]
    assert top.node.lock.deferred == {}


def test_a_destructor_may_send_while_the_state_lock_is_held(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)

    class Sends:
        def __del__(self):
            top.send_child("middle", "x", 1)

    with top.node.lock:
        cycle = [Sends()]
        cycle.append(cycle)
        del cycle
        gc.collect()
    assert middle.next()[:2] == ("x", (1,))


def test_a_signal_handler_may_send_while_the_state_lock_is_held(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    before = signal.signal(signal.SIGUSR1, lambda *_: top.send_child("middle", "x", 1))
    try:
        with top.node.lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert middle.next()[:2] == ("x", (1,))


# When it is written what listeners send


def _echoing(places, raw, monkeypatch):
    """A place with a raw child, and the links whose writers were asked to look after what listeners sent."""
    top = places("top")
    child = raw(top)
    top.node.announced = True
    looks = []
    monkeypatch.setattr(Link, "defer", lambda link: looks.append(link))
    return top, child, looks


def _frame_of(*numbers):
    return (TO_PARENTS, ("raw",), "x", None, [(number,) for number in numbers])


def test_the_answer_to_a_single_event_is_written_while_the_listener_runs(places, raw, monkeypatch):
    top, child, looks = _echoing(places, raw, monkeypatch)
    answered = threading.Event()

    def listener(message, number):
        message.reply("y", number)
        assert answered.wait(CEILING)

    top.on("x", listener)
    for number in range(3):
        child.send(_frame_of(number))
        assert child.next_event() == ("y", [(number,)])
        answered.set()
    assert looks == []


@pytest.mark.parametrize("frame", [[_frame_of(1, 2)], [_frame_of(1), _frame_of(2)]])
def test_the_answers_to_the_events_of_one_frame_are_written_together(places, raw, monkeypatch, frame):
    top, child, looks = _echoing(places, raw, monkeypatch)
    top.on("x", lambda message, number: message.reply("y", number))
    child.send(*frame)
    assert child.next_event() == ("y", [(1,), (2,)])
    assert looks == [child.link] * 2


def test_a_second_answer_to_a_single_event_waits_for_the_end_of_the_listener(places, raw, monkeypatch):
    top, child, looks = _echoing(places, raw, monkeypatch)
    monkeypatch.setattr(outlet_module, "QUIET_SECONDS", CEILING)  # however long it takes to send three

    def listener(message, number):
        for answer in range(3):
            message.reply("y", answer)

    top.on("x", listener)
    child.send(_frame_of(1))
    assert child.next_event() == ("y", [(0,)])
    assert child.next_event() == ("y", [(1,), (2,)])
    assert looks == [child.link] * 2


# What is counted


def counted(place):
    """Sent, copies beyond one for each, filtered, delivered and unheard; and all has to be in the books."""
    with place.node.lock:
        outgoing = place.node.outgoing
        found = (outgoing.sent, outgoing.more, outgoing.filtered, outgoing.delivered, outgoing.unheard)
    stats = snapshot(place.node, 0, int)
    assert imbalances(stats) == []
    assert stats["copies"] == outgoing.sent + outgoing.more
    return found


@pytest.fixture
def place(places):
    made = places("me")
    made.node.announced = True
    return made


LARGE = b"x" * (2 * ANY_LIMIT)  # for which each link is asked


@pytest.mark.parametrize("payload", [1, LARGE, [1]], ids=["plain", "large", "pickled"])
@pytest.mark.parametrize("links", [0, 1, 3])
def test_a_fanout_is_one_event_sent_and_a_copy_for_each_link(place, links, payload):
    made = [place.make_child(str(number)) for number in range(links)]
    for number in range(1, 4):
        place.send(TO_CHILDS, "x", payload)
        assert counted(place) == (number, number * (links - 1), 0 if links else number, 0, 0)
    assert [link.outbox.events for link in made] == [3] * links


def test_a_fanout_that_nobody_wants_is_filtered(place):
    link = place.make_child("deaf")
    with place.node.lock:
        place.node.router.peer_interests(link, ())
        place.node.router.online(link, ("deaf",))
    place.send(TO_CHILDS, "x")
    assert counted(place) == (1, -1, 1, 0, 0)
    place.send_child("deaf", "x")  # an addressed one is for it all the same
    assert counted(place) == (2, -1, 1, 0, 0)
    assert link.outbox.events == 1


@pytest.mark.parametrize("payload", [1, LARGE, [1]], ids=["plain", "large", "pickled"])
def test_what_is_for_the_top_is_delivered_there_without_a_copy(place, payload):
    place.make_child("child")
    place.send(TO_GRAND_MASTER, "x", payload)
    assert counted(place) == (1, -1, 0, 0, 1)
    place.listen("x")
    place.send(TO_GRAND_MASTER, "x", payload)
    assert counted(place) == (2, -2, 0, 1, 1)
    assert place.next()[:2] == ("x", (payload,))


def test_what_is_for_the_own_name_is_delivered_there_without_a_copy(place):
    place.make_child("child")
    place.send_to(["me"], "x", 1)
    assert counted(place) == (1, -1, 0, 0, 1)
    place.listen("x").listen("x")
    place.send_to(["me"], "x", 2)
    assert counted(place) == (2, -2, 0, 1, 1)


def test_an_event_for_the_process_itself_counts_as_delivered_also_where_its_listener_raises(place):
    def fails(message):
        raise SystemExit(3)

    place.hear_errors().on("x", fails)
    place.send_to(["me"], "x")
    assert counted(place) == (1, -1, 0, 1, 0)


def test_what_a_process_emits_for_itself_is_not_sent(place):
    place.listen("x")
    place.node.events.emit("x", (), {})
    assert counted(place) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("route", [["child"], ["far", "child"]])
def test_an_addressed_event_has_one_copy(place, route):
    link = place.make_child("child")
    place.send_to(route, "x")
    assert counted(place) == (1, 0, 0, 0, 0)
    assert link.outbox.events == 1


@pytest.mark.parametrize(
    ("route", "event", "error"),
    [
        (["nobody"], "x", UnknownProcess),
        ([], "x", UnknownProcess),
        (["child"], "", InvalidEvent),
        (["me"], "", InvalidEvent),
        (["me"], "online", InvalidEvent),
    ],
)
def test_what_is_refused_is_not_counted(place, route, event, error):
    place.make_child("child")
    with pytest.raises(error):
        place.send_to(route, event)
    assert counted(place) == (0, 0, 0, 0, 0)


def test_what_should_go_up_in_an_outage_is_a_copy_that_is_lost(place):
    parent, child = place.make_parent("server", Up.AWAY), place.make_child("child")
    place.send(TO_PARENTS, "x")
    assert counted(place) == (1, 0, 0, 0, 0)
    place.send(BROADCAST, "x")
    assert counted(place) == (2, 1, 0, 0, 0)
    assert (parent.dropped, child.outbox.events) == ({"disconnected": 2}, 1)


def test_what_is_refused_in_an_outage_is_not_lost_either(place):
    parent, child = place.make_parent("server", Up.AWAY), place.make_child("child")
    child.limit, child.is_limited = 2000, True
    with pytest.raises(MessageTooLarge):
        place.send(BROADCAST, "x", b"x" * 3000)
    assert counted(place) == (0, 0, 0, 0, 0)
    assert parent.dropped == {}


def test_what_waits_for_the_next_process_of_a_child_is_sent_and_has_a_copy(between):
    outgoing = between.node.outgoing
    before = (outgoing.sent, outgoing.more)
    between.child.send("x", 1)
    between.start()
    between.child.send("x", 2)
    assert (outgoing.sent, outgoing.more) == (before[0] + 2, before[1])
    assert between.link.outbox.events == 2
