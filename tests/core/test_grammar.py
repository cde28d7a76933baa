"""Which bytes are a frame, and what becomes of those that are not: a ProtocolError, at once."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import time
import tracemalloc

import hostile
import pytest
from hostile import BEGIN, HONEST, message
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import grammar
from ipevents._core.grammar import DEPTH, MAX_DEPTH, MAX_PLAIN_BYTES, MAX_VALUES, PICKLE_PROTOCOL, check
from ipevents._core.messages import CONTROL_ITEMS
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
    return (draw(st.integers(1, 7)), draw(PATHS), event, to, payloads)


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
)


@given(st.lists(messages() | CONTROLS, max_size=6))
def test_records_of_ours_arrive_as_they_are(records):
    assert decode(encode(records)) == records


@pytest.mark.parametrize("records", hostile.records_of_all_kinds(), ids=range(len(HONEST)))
def test_a_record_of_each_kind_arrives_as_it_is(records):
    assert decode(encode(records)) == records


def test_there_is_such_a_record_for_each_kind():
    kinds = {record[0] for records in hostile.records_of_all_kinds() for record in records}
    assert kinds >= {*CONTROL_ITEMS, 1, 7, 23}


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


def nest(levels, inner=b"N", opening=b"", closing=b"\x85"):
    return opening * levels + inner + closing * levels


def framed(record):
    return BEGIN + record + b"a."


def in_message(path=b"X\x01\0\0\0a\x85", event=b"X\x01\0\0\0e", to=b"N", payloads=b"]N\x85a"):
    return framed(b"(K\x01" + path + event + to + payloads + b"t")


DEEP = 1_000_000
NESTED = nest(DEEP)
LISTS = b"]" * DEEP + b"a" * (DEEP - 1)
SHARED = b"".join(b"h%ch%c\x86q%c" % (number, number, number + 1) for number in range(60))
HUGE = struct.pack("<I", 0xFFFFFFFF)

ATTACKS = {
    # D17: levels
    "path of a million levels": in_message(path=NESTED),
    "event of a million levels": in_message(event=NESTED),
    "events of a million levels": in_message(event=b"](" + NESTED + b"e"),
    "rest of the route of a million levels": in_message(to=NESTED),
    "hops of a million levels": in_message(to=b"X\x01\0\0\0a" + NESTED + b"\x86"),
    "payload of a million levels": in_message(payloads=b"]" + NESTED + b"a"),
    "payloads of a million levels": in_message(payloads=LISTS),
    "payload among others of a million levels": in_message(payloads=b"](" + b"N\x85" * 300 + NESTED + b"e"),
    "kind of a million levels": framed(NESTED + b"X\x01\0\0\0a\x86"),
    "a million marks": framed(b"(" * DEEP),
    "payload in a payload": in_message(payloads=b"]N\x85\x85a"),
    "list in a payload": in_message(payloads=b"]]\x85a"),
    "empty tuple in a payload": in_message(payloads=b"])\x85a"),
    "payload of several, as nested": in_message(payloads=b"](" + b"N\x85N\x86" * 400 + b"e"),
    # D17: values that share each other
    "a billion laughs": framed(b"Nq\0" + SHARED + b"\x85"),
    "a billion laughs with MEMOIZE": framed(b"N" + b"\x94h\0h\0\x86" * 60 + b"\x85"),
    "a list in itself": BEGIN + b"q\0h\0a.",
    "DUP": framed(b"N" + b"2\x86" * 60 + b"\x85"),
    # B4: a large index of the memo
    "LONG_BINPUT": framed(b"Nr" + HUGE + b"\x85"),
    "LONG_BINPUT in a payload": in_message(payloads=b"](" + b"N\x85" * 300 + b"Nr" + HUGE + b"\x85e"),
    "PUT": framed(b"Np4000000000\n\x85"),
    "BINPUT": framed(b"Nq\1\x85"),
    "MEMOIZE": framed(b"N\x94\x85"),
    "BINGET": framed(b"h\1\x85"),
    "LONG_BINGET": framed(b"j" + HUGE + b"\x85"),
    "GET": framed(b"g0\n\x85"),
    # B4: large lengths
    "BINUNICODE": framed(b"X" + HUGE + b"\x85"),
    "BINUNICODE8": framed(b"\x8d" + b"\xff" * 7 + b"\x7f\x85"),
    "BINUNICODE8 of 8 GiB": framed(b"\x8d" + struct.pack("<Q", 1 << 33) + b"\x85"),
    "SHORT_BINUNICODE": framed(b"\x8c\x01a\x85"),
    "BINBYTES": framed(b"B" + HUGE + b"\x85"),
    "BINBYTES8": framed(b"\x8e" + struct.pack("<Q", 1 << 33) + b"\x85"),
    "BYTEARRAY8": framed(b"\x96" + struct.pack("<Q", 1 << 33) + b"\x85"),
    "BYTEARRAY8 of nothing": framed(b"\x96" + bytes(8) + b"\x85"),
    "BINSTRING": framed(b"T" + HUGE + b"\x85"),
    "SHORT_BINSTRING": framed(b"U\x01a\x85"),
    "FRAME": b"\x80\x05\x95" + b"\xff" * 7 + b"\x7f].",
    "LONG4": framed(b"\x8b" + struct.pack("<i", 1 << 24) + b"\x01" * (1 << 24) + b"\x85"),
    "LONG1": framed(b"\x8a\x22" + b"\x01" * 34 + b"\x85"),
    "LONG": framed(b"L" + b"9" * 100_000 + b"L\n\x85"),
    "INT": framed(b"I" + b"9" * 100_000 + b"\n\x85"),
    "FLOAT": framed(b"F1.5\n\x85"),
    "UNICODE": framed(b"Vtext\n\x85"),
    "STRING": framed(b"S'text'\n\x85"),
    # D16: false types
    "a dict": framed(b"}\x85"),
    "a dict of many": framed(b"(" + b"NN" * 5 + b"d\x85"),
    "SETITEM": framed(b"}NNs\x85"),
    "a set": framed(b"\x8f\x85"),
    "a frozenset": framed(b"(N\x91\x85"),
    "ADDITEMS": framed(b"\x8f(N\x90\x85"),
    "a persistent id": framed(b"Px\n\x85"),
    "BINPERSID": framed(b"NQ\x85"),
    "EXT1": framed(b"\x82\x01\x85"),
    "EXT2": framed(b"\x83\x01\0\x85"),
    "EXT4": framed(b"\x84\x01\0\0\0\x85"),
    "EXT4 in payloads that are alike": in_message(payloads=b"](" + b"N\x85" * 300 + b"\x84" * 300 + b"e"),
    "STACK_GLOBAL": framed(b"X\x02\0\0\0osX\x06\0\0\0system\x93\x85"),
    "GLOBAL": framed(b"cos\nsystem\n\x85"),
    "REDUCE": framed(b"N)R\x85"),
    "BUILD": framed(b"]Nb\x85"),
    "INST": framed(b"(ios\nsystem\n\x85"),
    "OBJ": framed(b"(No\x85"),
    "NEWOBJ": framed(b"N)\x81\x85"),
    "NEWOBJ_EX": framed(b"N)}\x92\x85"),
    "NEXT_BUFFER": framed(b"\x97\x85"),
    "READONLY_BUFFER": framed(b"N\x98\x85"),
    "POP": framed(b"NN0\x85"),
    "POP_MARK": framed(b"N(N1\x85"),
    "LIST": framed(b"(Nl\x85"),
    "PROTO": framed(b"\x80\x03N\x85"),
    # More than our own frames have
    "many values": framed(b"(" + b"N" * (20 * MIB) + b"t"),
    "many payloads": in_message(payloads=b"](" + b"N\x85" * (10 * MIB) + b"e"),
    "many payloads that are not alike": in_message(payloads=b"](" + b"N\x85K\1\x85" * (4 * MIB) + b"e"),
    "many records": BEGIN + b"(" + b"K\x1e\x85" * (5 * MIB) + b"e.",
    "many empty lists": framed(b"(" + b"]" * (20 * MIB) + b"t"),
    "many ints": in_message(payloads=b"](" + (b"(" + b"M\0\1" * 12 + b"t") * MIB + b"e"),
    "many names": framed(b"K\x11(" + b"X\x01\0\0\0a" * (4 * MIB) + b"t\x86"),
    "much text": framed(b"X" + struct.pack("<I", 6 * MIB) + b"a" * (6 * MIB - 4) + "😀".encode() + b"\x85"),
    # Places
    "nothing": b"",
    "no list": b"\x80\x03N.",
    "another protocol": b"\x80\x05].",
    "no end": BEGIN,
    "bytes after the end": BEGIN + b"..",
    "two values": BEGIN + b"N.",
    "an open mark": BEGIN + b"(.",
    "a list that is taken": BEGIN + b"\x85.",
    "an empty stack": BEGIN + b"\x86.",
    "a tuple over a mark": framed(b"N(N\x86t"),
    "an append over a mark": BEGIN + b"](Na.",
    "an append to a tuple": BEGIN + b"N\x85Na.",
    "appends to no list": BEGIN + b"N(Ne.",
    "appends without a mark": BEGIN + b"Ne.",
    "a payload of those before": in_message(payloads=b"](" + b"N\x85" * 300 + b"\x87" * 150 + b"e"),
}


def peak_of(frame):
    """The bytes that it takes to decode a frame that is refused, and the milliseconds."""
    tracemalloc.start()
    with pytest.raises(ProtocolError) as caught:
        decode(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 500
    began = time.thread_time()
    with pytest.raises(ProtocolError):
        decode(frame)
    return peak, (time.thread_time() - began) * 1e3


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_in_milliseconds_with_little_memory(name):
    """FAULTS B3, B4, D16, D17."""
    peak, milliseconds = peak_of(ATTACKS[name])
    assert peak < 20 * MIB
    assert milliseconds < MILLISECONDS


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_before_anything_is_unpickled(name):
    """FAULTS B3, B4, D16, D17: but for one level too many, which only the records tell."""
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
    """FAULTS B4: the forms that take most memory for their bytes, as long as they may be."""
    forms = [
        in_message(payloads=b"](" + b"N\x85" * (MAX_VALUES * 9 // 10) + b"e"),
        in_message(payloads=b"](" + (b"(" + b"M\0\1" * 99 + b"t") * (MAX_PLAIN_BYTES // 299 - 1) + b"e"),
        in_message(payloads=b"](" + (b"(" + b"M\0\1" * 12 + b"t") * (MAX_PLAIN_BYTES // 38 - 2) + b"e"),
        framed(b"(" + b"]" * (MAX_VALUES - 100) + b"t"),
        framed(b"X" + struct.pack("<I", 5_000_000) + b"a" * 4_999_996 + "😀".encode() + b"\x85"),
    ]
    for frame in forms:
        tracemalloc.start()
        decode(frame)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 * MIB


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


# Any number of others

FRAMES = [30_000, pytest.param(5_000_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]


@pytest.mark.parametrize("count", FRAMES)
def test_any_frame_is_decoded_to_plain_records_or_refused(count):
    """FAULTS B3, D16: in two processes that may take 64 MiB each beside what they have; see hostile.py."""
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
