from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import outbox as module
from ipevents._core.decisions import Plan
from ipevents._core.messages import (
    ACKNOWLEDGED,
    BROADCAST,
    INTEREST,
    INTERESTS,
    MORE_INTERESTS,
    PARENT,
    PROGRAM,
    SEND_TO,
    TYPE_NAMES,
    control,
    count_messages,
)
from ipevents._core.outbox import (
    OUTBOX_BYTES,
    OUTBOX_RECORDS,
    STALLED_SECONDS,
    Outbox,
    Patience,
    Verdict,
)
from ipevents._core.wire import FRAME_BYTES, is_large

SAME = (BROADCAST, ("a",), None)
OTHER = (BROADCAST, ("b",), None)


def record(name: object, *payloads: object) -> tuple[object, ...]:
    return (BROADCAST, ("a",), name, None, list(payloads or [b""]))


def drained(outbox: Outbox) -> list[list[object]]:
    """What was in it, frame by frame."""
    frames = []
    while frame := outbox.take():
        frames.append(list(frame))
    return frames


def counted(frame: list[object]) -> int:
    """Messages and control records."""
    return sum(len(item[-1]) if type(item) is tuple else 1 for item in frame)


def without_news(frame: list[Any]) -> list[Any]:
    return [item for item in frame if item[0] != INTEREST]


def full_of_bytes() -> Outbox:
    outbox = Outbox()
    outbox.put(record("x"), OUTBOX_BYTES)
    return outbox


def full_of_records(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    monkeypatch.setattr(module, "OUTBOX_RECORDS", 4)
    outbox = Outbox()
    for number in range(4):
        outbox.put(record(number), 1)
    return outbox


# The verdict

FULL = [
    # patience, seconds since the peer took something, verdict
    (Patience.APPLICATION, 0.0, Verdict.WAIT),
    (Patience.APPLICATION, 1e9, Verdict.WAIT),
    (Patience.LISTENER, 0.0, Verdict.REFUSE),
    (Patience.LISTENER, 1e9, Verdict.REFUSE),
    (Patience.FANOUT, 0.0, Verdict.WAIT),
    (Patience.FANOUT, STALLED_SECONDS * 0.99, Verdict.WAIT),
    (Patience.FANOUT, STALLED_SECONDS, Verdict.DROP),
    (Patience.BACK, 0.0, Verdict.DROP),
    (Patience.BACK, 1e9, Verdict.DROP),
]


@pytest.mark.parametrize("patience", Patience)
def test_where_there_is_room_everybody_is_taken(patience):
    outbox = Outbox()
    outbox.put(record("x"), 100)
    assert outbox.decide(OUTBOX_BYTES // 2, patience, 10.0, 0.0) is Verdict.TAKE


@pytest.mark.parametrize("patience", Patience)
def test_an_empty_outbox_takes_a_record_of_any_size(patience):
    assert Outbox().decide(10 * OUTBOX_BYTES, patience, 10.0, 0.0) is Verdict.TAKE


@pytest.mark.parametrize(("patience", "since", "verdict"), FULL)
def test_an_outbox_full_of_bytes(patience, since, verdict):
    assert full_of_bytes().decide(1, patience, 50.0 + since, 50.0) is verdict


@pytest.mark.parametrize(("patience", "since", "verdict"), FULL)
def test_an_outbox_full_of_records(patience, since, verdict, monkeypatch):
    assert full_of_records(monkeypatch).decide(1, patience, 50.0 + since, 50.0) is verdict


def test_the_limits_are_those_of_the_design():
    assert (OUTBOX_BYTES, OUTBOX_RECORDS, STALLED_SECONDS) == (64 << 20, 100_000, 1.0)


def test_a_peer_that_was_slow_gets_no_fanout_until_its_outbox_is_half_empty(monkeypatch):
    monkeypatch.setattr(module, "FRAME_BYTES", 1)  # a frame for each record
    outbox = full_of_records(monkeypatch)
    outbox.begin_dropping()
    outbox.take()
    assert not outbox.offer(Plan(header=SAME, event="x"), b"", 1)
    assert outbox.decide(1, Patience.FANOUT, 0.0, 0.0) is Verdict.DROP
    assert outbox.decide(1, Patience.APPLICATION, 0.0, 0.0) is Verdict.TAKE
    assert outbox.decide(1, Patience.LISTENER, 0.0, 0.0) is Verdict.TAKE
    assert outbox.dropping
    outbox.take()
    assert outbox.decide(1, Patience.FANOUT, 0.0, 0.0) is Verdict.TAKE
    assert not outbox.dropping


@pytest.mark.parametrize("size", [0, FRAME_BYTES - 100, FRAME_BYTES, 2 * FRAME_BYTES])
@pytest.mark.parametrize("payload", [b"", [b"meta", [b"buffer"]]])
def test_an_offer_is_taken_where_there_is_room(size, payload):
    outbox = Outbox()
    outbox.put(record("first"), 1)
    assert outbox.offer(Plan(header=SAME, event="second"), payload, size)
    assert [item[2] for frame in drained(outbox) for item in frame] == ["first", "second"]


def test_an_offer_to_a_full_outbox_changes_nothing(monkeypatch):
    for outbox in (full_of_bytes(), full_of_records(monkeypatch)):
        before = (len(outbox), outbox.size)
        monkeypatch.setattr(module, "FRAME_BYTES", 1)
        outbox._close_tail()
        assert not outbox.offer(Plan(header=SAME, event="x"), b"", 1)
        assert (len(outbox), outbox.size) == before


# Order, records, frames and accounts


def test_messages_with_the_same_header_travel_in_one_record():
    outbox = Outbox()
    for head, payload in [(SAME, b"1"), (SAME, b"2"), (OTHER, b"3"), (SAME, b"4")]:
        assert outbox.offer(Plan(header=head, event="x"), payload, 1)
    assert len(outbox) == 4
    assert outbox.take() == [
        record("x", b"1", b"2"),
        (BROADCAST, ("b",), "x", None, [b"3"]),
        record("x", b"4"),
    ]


def test_messages_of_several_events_travel_in_one_record_that_has_a_name_for_each():
    outbox = Outbox()
    for event, payload in [("x", b"1"), ("x", b"2"), ("y", b"3"), ("x", b"4")]:
        assert outbox.offer(Plan(header=SAME, event=event), payload, 1)
    assert len(outbox) == 4
    outbox.offer(Plan(header=OTHER, event="z"), b"5", 1)
    assert outbox.take() == [
        record(["x", "x", "y", "x"], b"1", b"2", b"3", b"4"),
        (BROADCAST, ("b",), "z", None, [b"5"]),
    ]


def test_an_event_whose_name_is_another_object_is_the_same_event():
    outbox = Outbox()
    for name in ("again", "".join(["ag", "ain"])):
        outbox.offer(Plan(header=SAME, event=name), b"", 1)
    assert outbox.take() == [record("again", b"", b"")]


def test_messages_do_not_join_a_record_before_something_else():
    outbox = Outbox()
    outbox.offer(Plan(header=SAME, event="x"), b"1", 1)
    outbox.put(control(PARENT, pid="a"), 1)
    outbox.offer(Plan(header=SAME, event="x"), b"2", 1)
    outbox.put(record("x", b"3"), 1)
    outbox.offer(Plan(header=SAME, event="x"), b"4", 1)
    assert [item[-1] for item in outbox.take()] == [[b"1"], "a", [b"2"], [b"3"], [b"4"]]


def test_messages_do_not_join_a_record_that_was_taken_or_is_large_or_full():
    outbox = Outbox()
    outbox.offer(Plan(header=SAME, event="x"), b"1", 1)
    first = outbox.take()
    outbox.offer(Plan(header=SAME, event="x"), b"2", 1)
    outbox.offer(Plan(header=SAME, event="x"), [b"meta", [b"buffer"]], 1)
    outbox.offer(Plan(header=SAME, event="x"), b"3", 1)
    outbox.offer(Plan(header=SAME, event="x"), b"4", FRAME_BYTES)
    outbox.offer(Plan(header=SAME, event="x"), b"5", 1)
    assert first == [record("x", b"1")]
    frames = [[item[-1] for item in frame] for frame in drained(outbox)]
    assert frames == [[[b"2"]], [[[b"meta", [b"buffer"]]]], [[b"3"]], [[b"4"]], [[b"5"]]]


def test_a_record_that_was_passed_on_is_not_changed_by_what_follows():
    outbox = Outbox()
    passed = record("x", b"1")
    outbox.put(passed, 1)
    outbox.offer(Plan(header=SAME, event="x"), b"2", 1)
    assert passed[-1] == [b"1"]


def test_messages_are_counted_not_records():
    records = [record("x", b"1", b"2"), (INTERESTS, ("x",)), [INTEREST, "x", True], record("y", b"3")]
    assert count_messages(records) == 3


def test_records_leave_in_the_order_in_which_they_came():
    outbox = Outbox()
    for number in range(5):
        outbox.put(record(number), 10)
    assert [item[2] for item in outbox.take()] == [0, 1, 2, 3, 4]
    assert outbox.take() == []


def test_records_gather_up_to_the_size_of_a_frame():
    outbox = Outbox()
    for number in range(5):
        outbox.put(record(number), FRAME_BYTES * 2 // 5)
    assert [[item[2] for item in frame] for frame in drained(outbox)] == [[0, 1], [2, 3], [4]]


def test_a_record_larger_than_a_frame_travels_alone():
    outbox = Outbox()
    outbox.put(record("small"), 1)
    outbox.put(record("large"), 2 * FRAME_BYTES)
    outbox.put(record("next"), 1)
    assert [[item[2] for item in frame] for frame in drained(outbox)] == [["small"], ["large"], ["next"]]


def test_a_record_with_buffers_has_a_frame_of_its_own():
    outbox = Outbox()
    outbox.put(record("before"), 1)
    outbox.put(record("large", [b"meta", [b"buffer"]]), 100)
    outbox.put(record("after"), 1)
    assert [[item[2] for item in frame] for frame in drained(outbox)] == [["before"], ["large"], ["after"]]


def test_clearing_returns_everything_in_order_and_leaves_nothing():
    outbox = Outbox()
    outbox.put(record(0), FRAME_BYTES)
    outbox.put(record(1), 1)
    outbox.put_interest("x", True)
    assert [item[2] for item in outbox.clear()] == [True, 0, 1]
    assert (len(outbox), outbox.size, outbox.take()) == (0, 0, [])


@given(
    st.lists(
        st.one_of(
            st.integers(0, 3 * FRAME_BYTES),
            st.just("take"),
            st.just("large"),
            st.just("interest"),
            st.just("run"),
            st.just("other"),
        )
    )
)
def test_the_accounts_agree_with_what_is_there(steps):
    outbox = Outbox()
    put = taken = 0
    for step in steps:
        if step == "take":
            taken += counted(without_news(outbox.take()))
        elif step == "large":
            outbox.put(record(put, [b"", []]), 100)
            put += 1
        elif step in ("run", "other"):
            assert outbox.offer(Plan(header=SAME, event=step), b"", 10)
            put += 1
        elif step == "interest":
            outbox.put_interest("x", outbox.news is None)
        else:
            outbox.put(record(put), step)
            put += 1
        assert len(outbox) == put - taken + bool(outbox.news)
        assert (outbox.size == 0) == (put == taken)
        assert outbox.size >= 0
    taken += sum(counted(without_news(frame)) for frame in drained(outbox))
    assert (taken, len(outbox), outbox.size) == (put, 0, 0)
    assert outbox.peak <= put


# Interest


def test_news_of_interest_leave_before_all_that_waits():
    outbox = Outbox()
    outbox.put(record("before"), 1)
    outbox.put_interest("x", True)
    outbox.put(record("after"), 1)
    assert outbox.take() == [(INTEREST, "x", True), record("before"), record("after")]


def test_they_do_so_where_full_frames_wait():
    outbox = Outbox()
    for name in ("first", "second"):
        outbox.put(record(name), FRAME_BYTES)
    outbox.put_interest("x", True)
    assert drained(outbox) == [[(INTEREST, "x", True), record("first")], [record("second")]]


def test_a_record_with_buffers_still_has_a_frame_of_its_own_and_waits_for_news_but_once():
    outbox = Outbox()
    for name in ("large", "next"):
        outbox.put(record(name, [b"meta", [b"buffer"]]), 100)
    outbox.put_interest("x", True)
    assert outbox.take() == [(INTEREST, "x", True)]
    assert outbox.being_written > 0, "so that it is kept until it is acknowledged"
    outbox.put_interest("x", False)
    assert outbox.take() == [record("large", [b"meta", [b"buffer"]])]
    assert outbox.take() == [(INTEREST, "x", False)]
    assert outbox.take() == [record("next", [b"meta", [b"buffer"]])]
    assert outbox.take() == []


def test_news_are_counted_as_one_and_take_no_room(monkeypatch):
    monkeypatch.setattr(module, "OUTBOX_RECORDS", 1)
    outbox = Outbox()
    for number in range(1000):
        outbox.put_interest(f"event {number}", True)
    assert (outbox.count, outbox.events, outbox.size) == (1, 0, 0)
    assert outbox.has_room(OUTBOX_BYTES)
    assert len(outbox.take()[0][1]) == 1000
    assert outbox.count == 0
    assert outbox.being_written > 1000


def test_news_that_were_taken_are_not_changed_any_more():
    outbox = Outbox()
    outbox.put_interest("x", True)
    first = outbox.take()
    outbox.put_interest("x", False)
    assert first == [(INTEREST, "x", True)]
    assert outbox.take() == [(INTEREST, "x", False)]


def test_a_listener_that_came_and_went_leaves_nothing_behind():
    outbox = Outbox()
    for number in range(1000):
        outbox.put_interest(f"reply {number}", True)
        outbox.put_interest(f"reply {number}", False)
    assert (outbox.count, outbox.take()) == (0, [])


def test_however_often_all_interest_is_announced_it_is_told_once():
    outbox = Outbox()
    for number in range(1000):
        outbox.put_interest("x", True)
        outbox.put_all_interest(lambda number=number: [(INTERESTS, (f"{number}",))])
    assert outbox.count == 1
    assert outbox.take() == [(INTERESTS, ("999",))]
    assert outbox.take() == []


def test_control_records_have_numbers_in_the_order_in_which_they_leave():
    outbox = Outbox()
    outbox.put(control(PARENT, pid="a"), FRAME_BYTES)
    outbox.put(record("between"), FRAME_BYTES)
    outbox.put(control(PARENT, pid="b"), 1)
    assert (outbox.controls_put, outbox.controls_taken) == (2, 0)
    assert outbox.take() == [(PARENT, "a")]
    outbox.take()
    assert (outbox.controls_put, outbox.controls_taken) == (2, 1)
    outbox.put(control(PARENT, pid="c"), 1)
    outbox.clear()
    assert (outbox.controls_put, outbox.controls_taken) == (3, 3)


def test_after_clearing_no_old_news_are_told():
    outbox = Outbox()
    outbox.put_interest("x", True)
    outbox.clear()
    outbox.put_interest("x", False)
    assert outbox.take() == [(INTEREST, "x", False)]


@pytest.mark.parametrize(
    "item",
    [
        record("x", b""),
        record("x", ()),
        record("x", [1], [2]),
        (18, ("a",)),
        (25,),
        [INTEREST, "x", True],
        (1, 2, 3, 4, 5),
        (1, 2, 3, 4, "x"),
    ],
)
def test_only_a_record_with_buffers_is_large(item):
    assert not is_large(item)


def test_a_record_with_buffers_is_large():
    assert is_large(record("x", [b"meta", [b"buffer"]]))


def test_what_was_taken_is_not_touched_any_more():
    outbox = Outbox()
    for event in ("x", "y"):
        outbox.offer(Plan(header=SAME, event=event), (event,), 8)
    (taken,) = outbox.take()
    outbox.offer(Plan(header=SAME, event="z"), ("z",), 8)
    outbox.offer(Plan(header=OTHER, event="z"), ("z",), 8)
    assert taken == (BROADCAST, ("a",), ["x", "y"], None, [("x",), ("y",)])


# A signal handler that raises

ALONG = (SEND_TO, ("a",), ("t", ("x",)))
OFFERS = [(SAME, "x"), (SAME, "y"), (SAME, "x"), (ALONG, "y"), (SAME, "y"), (SAME, "y")]


class Raised(Exception):
    pass


def interrupted(offer: Callable[[], object], place: int) -> bool:
    """Call it, and raise at one of the places where CPython runs signal handlers: behind a call, or where a
    function begins. Returns whether there was such a place.
    """
    last: dict[object, str] = {}
    left = place

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(("outbox.py", "messages.py", "interest_news.py")):
            return None
        frame.f_trace_opcodes = True
        operation = dis.opname[frame.f_code.co_code[frame.f_lasti]] if event == "opcode" else ""
        if event == "call" or (event == "opcode" and last.get(frame, "").startswith("CALL")):
            left -= 1
            if not left:
                raise Raised
        if event == "opcode":
            last[frame] = operation
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        offer()
    except Raised:
        return True
    finally:
        sys.settrace(outer)
    return False


@pytest.mark.parametrize("which", range(len(OFFERS)))
def test_a_signal_handler_that_raises_mixes_nothing_up(which):
    place = 1
    while True:
        outbox = Outbox()
        for number, (header, event) in enumerate(OFFERS):
            offer = functools.partial(outbox.offer, Plan(header=header, event=event), (number,), 8)
            if number == which:
                was_interrupted = interrupted(offer, place)
            else:
                offer()
        sent = {}
        for kind, path, events, to, messages in outbox.take():
            names = [events] * len(messages) if type(events) is str else events
            for name, (number,) in zip(names, messages, strict=True):
                assert number not in sent
                sent[number] = ((kind, path, to), name)
            assert messages
        sent.setdefault(which, OFFERS[which])  # whether that one is sent is open
        assert sent == dict(enumerate(OFFERS)), place
        if not was_interrupted:
            break
        place += 1
    assert place > 2


@pytest.mark.parametrize("payload", [b"", [b"meta", [b"buffer"]]])
def test_a_signal_handler_that_raises_takes_no_news_away(payload):
    place = 1
    while True:
        outbox = Outbox()
        outbox.put(record("m", payload), 1)
        outbox.put_interest("x", True)
        was_interrupted = interrupted(outbox.take, place)
        left = [item for frame in drained(outbox) for item in frame]
        if not was_interrupted:
            break
        assert left == [(INTEREST, "x", True), record("m", payload)], place
        place += 1
    assert place > 2


@pytest.mark.parametrize("wanted", [True, False])
def test_a_signal_handler_that_raises_changes_the_news_or_leaves_them_as_they_are(wanted):
    place = 1
    while True:
        outbox = Outbox()
        outbox.put_interest("x", True)
        outbox.put_interest("y", True)
        was_interrupted = interrupted(functools.partial(outbox.put_interest, "z", wanted), place)
        news = outbox.take()
        rest = [(INTEREST, "z", False)] if not wanted else []
        more = ("x", "y", "z") if wanted else ("x", "y")
        after = [*rest, (MORE_INTERESTS, more)]
        assert news in ([(MORE_INTERESTS, ("x", "y"))], after)
        if not was_interrupted:
            assert news == after
            break
        place += 1
    assert place > 2


# Acknowledgements


def test_an_acknowledgement_that_waits_is_replaced_and_does_not_count_as_queued():
    outbox = Outbox()
    outbox.put_acknowledgement(1, (0, 0, 1, 0))
    outbox.put(record("x", ()), 0)
    outbox.put_acknowledgement(7, (1, 2, 3, 4))
    assert (outbox.count, outbox.events) == (2, 1)
    assert outbox.take() == [[ACKNOWLEDGED, 7, (1, 2, 3, 4)], record("x", ())]
    outbox.put_acknowledgement(8, (1, 2, 3, 5))
    assert outbox.take() == [[ACKNOWLEDGED, 8, (1, 2, 3, 5)]]
    assert (outbox.count, outbox.events) == (0, 0)


# Events and control records


def users_events(records):
    return sum(len(item[-1]) for item in records if item[0] in TYPE_NAMES)


class Counted:
    """An outbox, with all that it should have counted by looking at the records."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.put = self.gone = 0  # events
        self.number = 0  # of the record that is put next

    def do(self, step: str) -> None:
        outbox, number = self.outbox, self.number
        self.number += 1
        if step == "take":
            self.gone += users_events(outbox.take())
        elif step == "clear":
            self.gone += users_events(outbox.clear())
        elif step.startswith("offer"):
            payload: Any = [b"", []] if step == "offer large" else b""
            head = OTHER if step == "offer other" else SAME
            event = "x" if step == "offer" else "y"
            self.put += outbox.offer(Plan(header=head, event=event), payload, 10)
        elif step == "put several":
            outbox.put(record(["x", "y", "x"], b"1", b"2", b"3"), 10)
            self.put += 3
        elif step == "put large":
            outbox.put(record("x", [b"", []]), 10)
            self.put += 1
        elif step == "put":
            outbox.put(record("x"), FRAME_BYTES // 2)
            self.put += 1
        elif step == "put program":
            outbox.put((PROGRAM, (), "", None, [b""]), 10)
        elif step == "put large program":
            outbox.put((PROGRAM, (), "", None, [[b"", []]]), 10)
        elif step == "control":
            outbox.put(control(PARENT, pid="a"), FRAME_BYTES // 2)
        elif step == "interest":
            outbox.put_interest("x", bool(number % 2))
        elif step == "interests":
            outbox.put_all_interest(lambda: [(INTERESTS, ("x", "y"))])
        elif step == "acknowledgement":
            outbox.put_acknowledgement(number, (0, 0, 0, 0))
        elif step == "dropping":
            outbox.begin_dropping()
        else:
            outbox.decide(1, Patience.FANOUT, 0.0, 0.0)

    def check(self) -> None:
        waiting = list(self.outbox._all())
        assert self.outbox.events == users_events(waiting) == self.put - self.gone
        news = [] if self.outbox.news is None else self.outbox.news.records()
        controls = [item for item in waiting if item[0] not in TYPE_NAMES]
        assert self.outbox.controls_put - self.outbox.controls_taken == len(controls) - len(news)
        assert self.outbox.count == self.outbox.events + len(controls) - len(news) + bool(news)
        assert sum(frame[2] for frame in self.outbox.frames) == sum(
            item[0] not in TYPE_NAMES for frame in self.outbox.frames for item in frame[0]
        )
        assert bool(waiting) == bool(self.outbox.tail or self.outbox.frames or self.outbox.news)


STEPS = [
    *("take", "clear", "offer", "offer y", "offer other", "offer large", "put", "put several", "put large"),
    *("put program", "put large program", "control", "interest", "interests", "acknowledgement"),
    *("dropping", "decide"),
]


@given(steps=st.lists(st.sampled_from(STEPS), max_size=60))
def test_the_events_of_users_are_counted_and_no_control_record(steps):
    counted = Counted()
    for step in steps:
        counted.do(step)
        counted.check()
    while counted.outbox.count:
        counted.do("take")
        counted.check()
    assert counted.outbox.events == counted.put - counted.gone == 0


@given(
    before=st.lists(st.sampled_from(STEPS)),
    there=st.lists(st.sampled_from(STEPS)),
    after=st.lists(st.sampled_from(STEPS)),
)
def test_what_is_adopted_is_counted_and_goes_on_as_if_it_had_been_put_there(before, there, after):
    counted, other = Counted(), Counted()
    for step in before:
        counted.do(step)
    counted.do("clear")
    for step in there:
        other.do(step)
    taken, being_written, peak = counted.outbox.taken, counted.outbox.being_written, counted.outbox.peak
    waiting, size = list(other.outbox._all()), other.outbox.size
    counted.outbox.adopt(other.outbox)
    assert list(counted.outbox._all()) == waiting
    assert counted.outbox.size == size
    assert counted.outbox.taken is taken, "it is still with the thread that is about to write it"
    assert (counted.outbox.being_written, counted.outbox.peak) == (being_written, peak)
    counted.put, counted.gone = other.put - other.gone, 0
    counted.check()
    for step in after:
        counted.do(step)
        other.outbox = Outbox()  # it is not used any more
        counted.check()


def test_events_of_users_go_on_in_the_record_of_what_was_adopted_with_the_same_header():
    outbox, other = Outbox(), Outbox()
    other.offer(Plan(header=SAME, event="x"), b"1", 1)
    outbox.adopt(other)
    outbox.offer(Plan(header=SAME, event="x"), b"2", 1)
    assert outbox.events == 2
    assert outbox.take() == [record("x", b"1", b"2")]
