"""Which bytes are a frame, and what becomes of those that are not: a ProtocolError, at once."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time

import hostile
import pytest
from hostile import ATTACKS, HONEST, framed, message
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import grammar
from ipevents._core.grammar import DEPTH, MAX_DEPTH, PICKLE_PROTOCOL, check
from ipevents._core.messages import CONTROL_ITEMS, LAST_MESSAGE
from ipevents._core.outbox import OVERHEAD
from ipevents._core.wire import FRAME_BYTES, decode, encode
from ipevents._exceptions import ProtocolError
from ipevents._payload.forms import plain_size

MILLISECONDS = 500  # of CPU time, for what takes a few: others use the machine as well
MIB = 1 << 20

# What our own writers write is let pass

TEXTS = st.text(max_size=30) | st.text(min_size=100, max_size=300)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 255), 1 << 255)
    | st.integers(-300, 300)
    | st.floats(allow_nan=False)
    | TEXTS
    | st.binary(max_size=300)
)
PATHS = st.lists(st.text(max_size=40), max_size=8).map(tuple)
PAYLOADS = st.lists(SCALARS, max_size=20).map(tuple) | st.binary(max_size=300)
NUMBERS = st.integers(0, 1 << 64)


@st.composite
def messages(draw):
    payloads = draw(st.lists(PAYLOADS, min_size=1, max_size=8)) * draw(st.sampled_from([1, 1, 1, 40, 300]))
    event = draw(TEXTS)
    if draw(st.booleans()):
        event = [f"{event}{number % 5}" for number in range(len(payloads))]
    to = draw(st.none() | st.tuples(TEXTS, PATHS))
    return (draw(st.integers(1, LAST_MESSAGE)), draw(PATHS), event, to, payloads)


CONTROLS = st.one_of(
    st.tuples(st.just(16), TEXTS, st.booleans()).map(list),
    st.tuples(st.just(17), st.lists(TEXTS, max_size=9).map(tuple)),
    st.tuples(st.just(18), PATHS),
    st.tuples(st.just(19), PATHS, PATHS, st.none() | st.integers(-300, 300)),
    st.tuples(st.just(20), TEXTS),
    st.tuples(st.just(22), PATHS, TEXTS, TEXTS, st.none() | TEXTS, TEXTS),
    st.tuples(st.just(24), TEXTS, st.booleans()),
    st.tuples(st.just(28), NUMBERS, st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)).map(list),
    st.just((30,)),
    st.tuples(st.just(36), TEXTS, NUMBERS, NUMBERS),
    st.tuples(st.just(37), st.lists(NUMBERS, min_size=1, max_size=9).map(tuple)),
    st.tuples(st.just(38), PATHS),
    st.tuples(st.just(39), TEXTS, st.lists(NUMBERS, min_size=1, max_size=9).map(tuple)),
)


@given(st.lists(messages() | CONTROLS, max_size=6))
def test_records_of_ours_arrive_as_they_are(records):
    assert decode(encode(records)) == records


@pytest.mark.parametrize("records", hostile.records_of_all_kinds(), ids=range(len(HONEST)))
def test_a_record_of_each_kind_arrives_as_it_is(records):
    assert decode(encode(records)) == records


def test_there_is_such_a_record_for_each_kind():
    kinds = {record[0] for records in hostile.records_of_all_kinds() for record in records}
    assert kinds >= {*CONTROL_ITEMS, 1, 7, 8, 9, 10, 11, 12, 23}


@pytest.mark.parametrize("frame", HONEST, ids=range(len(HONEST)))
def test_the_walk_alone_lets_them_pass_as_well(frame):
    hostile.slow_check(frame)


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 128, 999, 1000, 1001, 2000, 2001, 5000])
@pytest.mark.parametrize(
    "make",
    [
        lambda number: (number,),
        lambda number: (number, "12345", 1.5),
        lambda number: ("x" * (number % 260), number),
        lambda number: (None, True, "a", number, -1.5, False),
        lambda number: (number,) * (number % 30),
        lambda number: b"x" * (number % 700),
        lambda number: ("x" * 150, number),
    ],
    ids=["int", "benchmark", "text", "six", "any", "bytes", "long"],
)
def test_any_number_of_messages_arrives(make, count):
    records = [message([make(number) for number in range(count)])]
    assert decode(encode(records)) == records


@pytest.mark.parametrize("change", range(40))
def test_one_payload_among_many_that_are_alike_may_be_another(change):
    payloads = [(number, "text", 1.5) for number in range(10_000, 12_500)]
    others = [(1, "text"), (1.5, "text", 1), (), b"x", (1, "longer", 1.5), ("x" * 300,)]
    payloads[change * 61] = others[change % len(others)]
    records = [message(payloads)]
    assert decode(encode(records)) == records


def test_a_frame_has_no_opcode_of_the_memo():
    text = "the same text"
    frame = encode([message([(text, text)] * 3, path=(text,))])
    assert frame.count(text.encode()) == 7


def test_the_largest_frames_of_ours_stay_below_the_limits():
    """As large as the outbox lets them become: by its estimates, FRAME_BYTES."""
    texts = [("x",), ("😀" * 100,), ("😀" * 12,) * 12, ("😀" * 30_000,)]
    for payload in [(), (1,), (1 << 255,) * 50, (b"x",), *texts]:
        count = FRAME_BYTES // (OVERHEAD + plain_size(payload, {}))
        records = [message([payload] * count)]
        assert decode(encode(records)) == records
        records = [message([payload], f"event{number % 2}") for number in range(count)]
        assert decode(encode(records)) == records


# Attacks: what somebody who holds the key could write


def run_hostile(*arguments):
    """What the program says, which may take 64 MiB more than it has at its begin."""
    done = subprocess.run([sys.executable, hostile.__file__, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_attacks_are_refused_in_milliseconds_within_64_mib():
    """B3, B4, D16, D17: each of hostile.ATTACKS, in turn."""
    print(run_hostile("attacks"))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_before_anything_is_unpickled(name):
    """B3, B4, D16, D17: but for one level too many, which only the records tell."""
    if name in ("payload in a payload", "list in a payload", "empty tuple in a payload"):
        assert check(ATTACKS[name]) > DEPTH
        return
    with pytest.raises(ProtocolError):
        check(ATTACKS[name])


@pytest.mark.parametrize("protocol", sorted({*range(pickle.HIGHEST_PROTOCOL + 1)} - {PICKLE_PROTOCOL}))
def test_frames_of_other_protocols_are_refused(protocol):
    with pytest.raises(ProtocolError, match="begins with"):
        check(pickle.dumps([(1, 2, 3)], protocol))


def test_what_is_let_pass_takes_64_mib_at_most():
    """B4: the forms that take most memory for their bytes, as long as they may be."""
    print(run_hostile("largest"))


def test_levels_are_allowed_only_where_buffers_follow():
    large = message([[b"meta", [(5, True)]]])
    assert check(encode([large])) == MAX_DEPTH
    assert decode(encode([large])) == [large]
    for other in [message([(((1,),),)]), message([[b"meta", [(5, True)]], ()]), (18, (((("a",),),),))]:
        with pytest.raises(ProtocolError):
            decode(encode([other]))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("frame", HONEST, ids=range(len(HONEST)))
def test_a_frame_may_be_any_bytes(kind, frame):
    assert check(kind(frame)) == check(frame)


@pytest.mark.parametrize("frame", HONEST, ids=range(len(HONEST)))
def test_a_frame_that_was_cut_anywhere_is_refused(frame):
    for end in range(0, len(frame), 1 + len(frame) // 500):
        with pytest.raises(ProtocolError):
            check(frame[:end])


def test_a_frame_like_one_before_is_let_pass_and_no_other_of_its_length(monkeypatch):
    monkeypatch.setattr(grammar, "_known", {})
    frame = encode([message([(1, "12345", 1.5)])])
    assert check(frame) == DEPTH
    assert list(grammar._known) == [len(frame)]
    assert decode(encode([message([(2, "abcde", -1.0)])])) == [message([(2, "abcde", -1.0)])]
    for at in range(len(frame)):
        for byte in range(256):
            hostile.judge(frame[:at] + bytes([byte]) + frame[at + 1 :])


# Any number of others

FRAMES = [30_000, pytest.param(5_000_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]


@pytest.mark.parametrize("count", FRAMES)
def test_any_frame_is_decoded_to_plain_records_or_refused(count):
    """B3, D16: in two processes that may take 64 MiB each beside what they have; see hostile.py."""
    seeds = [time.time_ns() % 1_000_000, 20_251]
    print("seeds", *seeds)
    command = [sys.executable, hostile.__file__]
    judges = [
        subprocess.Popen(
            [*command, str(seed), str(count // 2)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for seed in seeds
    ]
    said = [judge.communicate()[0].decode() for judge in judges]
    assert [judge.returncode for judge in judges] == [0, 0], said
    print(*said)


def test_the_judge_notices_what_must_not_pass(monkeypatch):
    monkeypatch.setattr(grammar, "MAX_INT_BYTES", 60)
    frame = framed(b"\x8a\x32" + b"\1" * 50 + b"\x85")
    assert hostile.judge(frame)
    monkeypatch.setattr(hostile.wire, "decode", lambda frame: [({},)])
    with pytest.raises(hostile.Wrong):
        hostile.judge(frame)
