"""Frames as no process of ours writes them, and a judge of what becomes of them: ``hostile.py SEED COUNT``.

Run as a program it judges so many frames, and prints how many were let pass. It may take 64 MiB more than it
has when it begins. It ends with an error at the first frame that is neither decoded to plain records nor
refused by a ProtocolError.
"""

from __future__ import annotations

import pickle
import pickletools
import random
import resource
import struct
import sys
import time

from ipevents._core import grammar, wire
from ipevents._core.messages import MESSAGE_ITEMS
from ipevents._exceptions import ProtocolError

MEMORY = 64 << 20  # bytes above those that a process has at its begin
SECONDS = 1.0  # of CPU time for one frame; so much only because others use the machine
PLAIN = (type(None), bool, int, float, str, bytes)
BEGIN = b"\x80\x03]"
MIB = 1 << 20

# What our own writers write


def message(payloads, event="ping", kind=1, path=("4711",), to=None):
    return (kind, path, event, to, payloads)


def records_of_all_kinds():
    """A frame of each sort."""
    return [
        [],
        [message([(1, "12345", 1.5)])],
        [message([()])],
        [message([b"a pickle"])],
        [message([bytes(300)])],
        [message([(1, "12345", 1.5), (2, "12345", 1.5)])],
        [message([(number, "12345", 1.5) for number in range(70)])],
        [message([(number % 3, "x" * (number % 200), None)[: number % 4] for number in range(90)])],
        [message([(1,), b"a pickle", (True, False, None, 1 << 40, -1, b"x"), bytes(300), ("é" * 100,)])],
        [message([(number,) for number in range(40)], [f"event{number % 7}" for number in range(40)])],
        [message([(1,)], kind=7, path=("1", "2", "3", "4"), to=("5", ("6", "7")))],
        [message([(1,)], kind=7, to=("5", ()))],
        [message([[b"a pickle", [(1 << 20, True), (5, False)]]])],
        [message([(1,)]), message([(2,), (3,)], "pong"), message([b"x"], "e" * 60)],
        [(23, (), "", None, [b"a program"])],
        [(23, (), "", None, [[b"a program", [(1 << 17, True)]]])],
        [[16, "event", True]],
        [(17, ("one", "two", "three", "four", "five"))],
        [(26, tuple(f"event{number}" for number in range(1200)))],
        [(31,)],
        [(18, ("4711", "1"))],
        [(19, ("4711",), ("5", "6"), None)],
        [(19, ("4711",), ("5",), -9)],
        [(20, "1")],
        [(21, 5000)],
        [(22, ("1", "2"), "event", "3", None, "why")],
        [(24, "Traceback" * 50, False)],
        [(25, True)],
        [(27, "text")],
        [[28, 300, (0, 0, 0, 1 << 40)]],
        [(29, 3, (0, 0, 0, 0))],
        [(30,)],
        [message([(1 << 62, 0, "x", 1)], kind=8, path=("1", "2"), to=("5", ("6",)))],
        [message([bytes(16) + b"a pickle"] * 3, kind=8)],
        [message([(number, -5000, None) for number in range(70)], kind=9)],
        [message([[bytes(16) + b"a pickle", [(1 << 20, True)]]], kind=10)],
        [message([(1, 0, "x")], kind=10), message([(1, 7, 2)], kind=11, path=("5",))],
        [message([(number, number % 8, "why") for number in range(90)], kind=11)],
        [
            message(
                [(1, 0, 5), bytes(16) + b"a pickle", (2, 3, "5", "", None, True)], ["x", "y", "x"], kind=11
            )
        ],
        [message([(1, 0, "x"), (2, -5, None)], kind=12)],
        [(36, "event", 3, 8)],
        [(36, "event", 0, 0), (37, (1 << 62, 1))],
        [(37, tuple(range(1, 1025)))],
        [(38, ("4711", "1")), (18, ("4711", "1"))],
        [(39, "event", (1 << 62, 1))],
        [[28, 3, (1, 2, 3, 4)], message([(1, 2)]), [16, "event", False], (18, ("1",)), message([(1,)] * 600)],
    ]


HONEST = [wire.encode(records) for records in records_of_all_kinds()]
SHORT = [frame for frame in HONEST if len(frame) < 600]

# What others may write

OPCODES = {opcode.name: opcode for opcode in pickletools.opcodes}
LENGTHS = [0, 1, 2, 5, 255, 256, 65_535, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
LINES = [b"0\n", b"1\n", b"4000000000\n", b"-1\n", b"os\nsystem\n", b"'x'\n", b"9" * 5000 + b"\n", b"x\n"]


def argument(opcode, draw):
    """An argument for an opcode, with a length or an index that makes sense or does not."""
    arg = opcode.arg
    if arg is None:
        return b""
    if arg.n > 0:
        return draw.randbytes(arg.n) if draw.random() < 0.5 else draw.randrange(4).to_bytes(arg.n, "little")
    if arg.n == pickletools.UP_TO_NEWLINE:
        return draw.choice(LINES)
    width = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}.get(arg.n, 4)
    size = draw.choice(LENGTHS) if draw.random() < 0.5 else draw.randrange(6)
    if width == 1:
        size = min(size, 255)
    return size.to_bytes(width, "little") + draw.randbytes(min(size, 8))


def any_opcode(draw):
    opcode = draw.choice(pickletools.opcodes)
    return opcode.code.encode("latin-1") + argument(opcode, draw)


def plain_opcode(draw):
    """One that honest frames have as well."""
    code = draw.choice("KKMJGN\x88\x89XXCB\x8a((((]]])aetaet\x85\x86\x87\x85\x86\x87")
    return code.encode("latin-1") + argument(pickletools.code2op[code], draw)


def soup(draw):
    """Opcodes without a plan, behind a right beginning or not."""
    make = draw.choice([any_opcode, plain_opcode])
    body = b"".join(make(draw) for _ in range(draw.randrange(40)))
    begin = draw.choice([BEGIN, BEGIN, BEGIN, b"\x80\x05]", b"\x80\x04\x95" + bytes(8), b""])
    return begin + body + draw.choice([b".", b"a.", b"e.", b"ta.", b"ata.", b"etea.", b""])


def changed(draw):
    """An honest frame with some changes."""
    frame = bytearray(draw.choice(SHORT if draw.random() < 0.97 else HONEST))
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        at, end = sorted((draw.randrange(len(frame) + 1), draw.randrange(len(frame) + 1)))
        how = draw.randrange(10)
        if how == 0:
            frame[at : at + 1] = draw.randbytes(1)
        elif how == 1:
            frame[at : at + 1] = draw.choice(b"(.aet])\x85\x86\x87KMJXCBNqrp\x94").to_bytes(1, "little")
        elif how == 2:
            frame[at:at] = any_opcode(draw)
        elif how == 3:
            frame[at:at] = plain_opcode(draw)
        elif how == 4:
            frame[at : min(end, at + 30)] = b""
        elif how == 5:
            frame[at:at] = frame[at : min(end, at + 100)] * draw.choice([1, 2, 30])
        elif how == 6:
            other = draw.choice(SHORT)
            cut = draw.randrange(len(other))
            frame[at:] = other[cut:]
        elif how == 7:
            frame[at : at + 4] = draw.choice(LENGTHS).to_bytes(4, "little")
        elif how == 8:
            frame[at : at + 1] = bytes([(frame[at] ^ (1 << draw.randrange(8)))]) if at < len(frame) else b"."
        else:
            del frame[at:]
        if not frame:
            return b""
    return bytes(frame)


def any_frame(draw):
    return changed(draw) if draw.random() < 0.8 else soup(draw)


# Known attacks


def nest(levels, inner=b"N", opening=b"", closing=b"\x85"):
    return opening * levels + inner + closing * levels


def framed(record):
    return BEGIN + record + b"a."


def in_message(path=b"X\x01\0\0\0a\x85", event=b"X\x01\0\0\0e", to=b"N", payloads=b"]N\x85a", kind=b"K\x01"):
    return framed(b"(" + kind + path + event + to + payloads + b"t")


DEEP = 1_000_000
NESTED = nest(DEEP)
LISTS = b"]" * DEEP + b"a" * (DEEP - 1)
SHARED = b"".join(b"h%c\x86q%c" % (number, number + 1) for number in range(60))
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
    "a billion laughs with MEMOIZE": framed(
        b"N" + b"".join(b"\x94h%c\x86" % number for number in range(60)) + b"\x85"
    ),
    "a list in itself": BEGIN + b"q\0h\0a.",
    "DUP": framed(b"N" + b"2\x86" * 60 + b"\x85"),
    "numbers of a request of a million levels": in_message(
        payloads=b"]" + NESTED + b"K\0\x86a", kind=b"K\x08"
    ),
    "route of a request of a million levels": in_message(
        to=b"X\x01\0\0\0a" + NESTED + b"\x86", payloads=b"]K\1K\0\x86a", kind=b"K\x08"
    ),
    "an answer of a million levels": in_message(payloads=b"]K\1K\0" + NESTED + b"\x87a", kind=b"K\x0b"),
    "answerers of a million levels": framed(b"(K\x24X\x01\0\0\0a" + NESTED + b"K\1t"),
    "capacity of a million levels": framed(b"(K\x24X\x01\0\0\0aK\1" + NESTED + b"t"),
    "cancelled requests of a million levels": framed(b"K\x25" + NESTED + b"\x86"),
    "requests taken back of a million levels": framed(b"K\x27X\x01\0\0\0a" + NESTED + b"\x87"),
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
    "many cancelled requests": framed(b"K\x25(" + b"K\1" * (10 * MIB) + b"t\x86"),
    "many answers": in_message(payloads=b"](" + b"K\1K\0\x86" * (5 * MIB) + b"e", kind=b"K\x0b"),
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

# The forms that take most memory for their bytes, as long as they may be
LARGEST = {
    "payloads": in_message(payloads=b"](" + b"N\x85" * (grammar.MAX_VALUES * 9 // 10) + b"e"),
    "long payloads": in_message(
        payloads=b"](" + (b"(" + b"M\0\1" * 99 + b"t") * (grammar.MAX_PLAIN_BYTES // 299 - 1) + b"e"
    ),
    "short payloads": in_message(
        payloads=b"](" + (b"(" + b"M\0\1" * 12 + b"t") * (grammar.MAX_PLAIN_BYTES // 38 - 2) + b"e"
    ),
    "lists": framed(b"(" + b"]" * (grammar.MAX_VALUES // 2 - 100) + b"t"),
    "text": framed(b"X" + struct.pack("<I", 5_000_000) + b"a" * 4_999_996 + "😀".encode() + b"\x85"),
}


# The judge


class Wrong(Exception):
    """A frame was decoded to what it must not be."""


def check_plain(value, levels, seen):
    """Fail unless the value is plain, all of it is in one place only, and it has no more levels than that."""
    if type(value) in PLAIN:
        if type(value) is int and value.bit_length() > 8 * grammar.MAX_INT_BYTES:
            raise Wrong("a long int")
        return
    if type(value) not in (tuple, list):
        raise Wrong(f"a {type(value).__name__}")
    if not levels:
        raise Wrong("too deep")
    if value != ():
        if id(value) in seen:
            raise Wrong("shared")
        seen.add(id(value))
    for item in value:
        check_plain(item, levels - 1, seen)


def check_records(records):
    """Fail unless records are as the grammar has them."""
    seen = set()
    check_plain(records, grammar.MAX_DEPTH, seen)
    for record in records:
        if type(record) not in (tuple, list) or not record:
            raise Wrong("no record")
    if not (records and wire.is_large(records[0])):
        check_plain(records, grammar.DEPTH, set())
        for record in records:
            if len(record) == MESSAGE_ITEMS and type(record[-1]) is list:
                for payload in record[-1]:
                    if type(payload) is tuple and any(type(item) not in PLAIN for item in payload):
                        raise Wrong("an argument that is not plain")
    hash(repr(records))


def judge(frame):
    """Return whether a frame was let pass. Raises Wrong where that was wrong."""
    began = time.thread_time()
    try:
        records = wire.decode(frame)
    except ProtocolError as exc:
        if len(str(exc)) > 500:
            raise Wrong("a long text") from None
        records = None
    if time.thread_time() - began > SECONDS:
        raise Wrong("a long time")
    if records is None:
        return False
    check_records(records)
    slow_check(frame)
    if not same(pickle.loads(frame), records):
        raise Wrong("other records than pickle.loads makes")
    return True


def same(one, other):
    """Whether two values are equal, NaN to itself as well."""
    return one == other or repr(one) == repr(other)


class _Never:
    def match(self, frame, at):
        return None


def slow_check(frame):
    """Check a frame without the shortcuts, which let nothing pass that this does not."""
    names = ("_record", "_names", "_payloads", "_known")
    shortcuts = [getattr(grammar, name) for name in names]
    for name, off in zip(names, (_Never(), _Never(), lambda: None, {}), strict=True):
        setattr(grammar, name, off)
    try:
        grammar.check(frame)
    except ProtocolError as exc:
        raise Wrong("the shortcuts have let it pass") from exc
    finally:
        for name, shortcut in zip(names, shortcuts, strict=True):
            setattr(grammar, name, shortcut)


def limit_memory():
    """Let this process have MEMORY more than it has now."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def timed(frame):
    """Judge a frame. Returns whether it was let pass, and the seconds of CPU time."""
    began = time.thread_time()
    return judge(frame), time.thread_time() - began


def refuse_attacks():
    limit_memory()
    slowest = 0.0
    for name, frame in ATTACKS.items():
        passed, seconds = timed(frame)
        assert not passed, name
        assert seconds < SECONDS, (name, seconds)
        slowest = max(slowest, seconds)
    print(f"{len(ATTACKS)} attacks, the slowest took {slowest * 1e3:.1f} ms")


def let_largest_pass():
    limit_memory()
    for name, frame in LARGEST.items():
        began = time.thread_time()
        wire.decode(frame)
        print(f"{name}: {len(frame)} bytes, {(time.thread_time() - began) * 1e3:.1f} ms")


def main(seed, count):
    for frame in HONEST:
        assert judge(frame), frame
    limit_memory()
    draw = random.Random(seed)
    passed = 0
    slowest = 0.0
    for number in range(count):
        frame = any_frame(draw)
        began = time.thread_time()
        try:
            passed += judge(frame)
        except BaseException as exc:
            print(f"seed {seed}, frame {number}: {exc!r}: {frame[:2000]!r}", file=sys.stderr)
            raise
        slowest = max(slowest, time.thread_time() - began)
    print(f"seed {seed}: {count} frames, {passed} let pass, the slowest took {slowest * 1e3:.1f} ms")


if __name__ == "__main__":
    if sys.argv[1] == "attacks":
        refuse_attacks()
    elif sys.argv[1] == "largest":
        let_largest_pass()
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
