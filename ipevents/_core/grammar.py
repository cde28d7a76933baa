"""What the bytes of a frame may be: checked before they are unpickled.

An unpickler does what its bytes say. A few of them can make it fill gigabytes (by a large index of the memo,
or a large length), or build what crashes CPython when it is hashed or shown (a tuple a million levels deep)
or what takes for ever to walk through (tuples that share each other). So a writer uses few of the opcodes,
and a reader refuses a frame with any other before it begins. README, Wire and handshake, has the grammar. It
ensures that

- only None, booleans, numbers, texts, bytes, tuples and lists come out, each of them in one place only:
  nothing is shared, and nothing names a class;
- they are nested no deeper than in our own records;
- the bytes of every length are there, and there are no more values than our own frames can have.

``_walk`` follows the opcodes one by one, as the unpickler will. That takes some 200 ns for each, so two
shortcuts pass over what is written most: regular expressions match records of few messages, acknowledgements,
and runs of messages with short arguments (20 to 30 ns an argument); and where many messages have the same
opcodes and lengths, ``_count_alike`` compares these in columns (1 ns each).
"""

from __future__ import annotations

import functools
import re

from .._exceptions import ProtocolError

# The newest one without FRAME opcodes, whose places depend on the sizes of all that is before them.
PICKLE_PROTOCOL = 3
DEPTH = 4  # levels: frame, record, payloads, payload; or frame, record, rest of the route, its hops
MAX_DEPTH = 6  # where buffers follow: frame, record, payloads, payload, sizes, one size (wire.py)
# Payloads in one frame, a step of the walk counting as two. Our own writers stay below: they count OVERHEAD
# bytes for each message and 8 for each argument, and end a frame at FRAME_BYTES (outbox.py).
MAX_VALUES = 1 << 19
# Bytes of a frame without those in bytes objects, which become no larger in memory. Our own writers stay
# below: they count one byte for a character, which may have four, and 8 for an int, which may have 35.
MAX_PLAIN_BYTES = 5 << 20
MAX_MARKS = MAX_DEPTH  # open at a time: one for each list or tuple that is not complete
MAX_INT_BYTES = 33  # a sign and 256 bits: the largest that is a plain value (_payload/forms.py)

_BEGIN = b"\x80%c]" % PICKLE_PROTOCOL
_FIRST = len(_BEGIN)

# Opcodes
_MARK, _STOP, _APPEND, _APPENDS, _TUPLE = b"(.aet"
_EMPTY_LIST, _EMPTY_TUPLE, _TUPLE1, _TUPLE2, _TUPLE3 = b"])\x85\x86\x87"
_TEXT, _SHORT_BYTES, _BYTES, _LONG = b"XCB\x8a"
_KIND = b"K"[0]  # opcode of a record's first item
# The bytes of each opcode that always has as many, and makes a scalar: ints, float, None, True, False.
_FIXED = bytearray(256)
for _op, _size in zip(b"KMJGN\x88\x89", (2, 3, 5, 9, 1, 1, 1), strict=True):
    _FIXED[_op] = _size

# The expressions. Each length is an alternative, tried in turn at 1 to 2 ns, and takes 10 us to compile; so
# longer texts are left to the walk.
_LONGEST = 120  # bytes of a text among the arguments of many messages
_LONGEST_NAME = 24  # of a pid, an event's name, a text among the arguments of few messages
_LONG_FRAME = 512  # bytes; what is for many messages is compiled when the first such frame has them
_RUN = 64  # messages in one match, which does not tell how many they are
_BATCH = 1000  # items in one APPENDS of the pickler
_FEW, _PATIENCE = 16, 64  # where fewer messages are alike, that is tried ever more rarely
# Possessive: no way back is kept to what was matched. There is none, as each byte has one meaning only.
# Without that (Python 3.10) the memory of the engine is bounded by the numbers of repetitions.
try:
    re.compile(b"a++")
    _P = b"+"
except re.error:
    _P = b""


def _byte(value: int) -> bytes:
    return b"\\x%02x" % value


def _any(count: int) -> bytes:
    """Matches so many bytes, whichever they are."""
    return b"." * count if count <= 8 else b".{%d}%s" % (count, _P)


def _text(longest: int) -> bytes:
    """Matches a text of up to so many bytes."""
    lengths = [_byte(size) + rb"\x00\x00\x00" + _any(size) for size in range(longest + 1)]
    return b"X(?:" + b"|".join(lengths) + b")"


def _scalar(text: bytes) -> bytes:
    """Matches one argument, where a text matches ``text``."""
    return rb"(?:K.|" + text + rb"|M..|J....|G........|[N\x88\x89]|" + _LONG_INT + b")"


def _tuple_of(item: bytes, most: int) -> bytes:
    """Matches a tuple of such items, up to ``most`` of them."""
    few = item + rb"(?:\x85|" + item + rb"(?:\x86|" + item + rb"\x87))"
    return b"(?:" + few + rb"|\(" + item + b"{4,%d}%st|\\))" % (most, _P)


# No two alternatives match the same bytes, or the ways back would be many where nothing is possessive.
_LONG_INT = rb"\x8a(?:" + b"|".join(_byte(size) + _any(size) for size in range(5, 10)) + b")"
_INT = rb"(?:K.|M..|J....|" + _LONG_INT + b")"
_NAME = _text(_LONGEST_NAME)
_PATH = _tuple_of(_NAME, 64)
_REST = b"(?:N|" + _NAME + rb"(?:\)|" + _NAME + rb"(?:\x85|" + _NAME + rb"\x86))\x86)"  # up to two more hops
_HEADER = rb"\(K[\x01-\x0c]" + _PATH + _NAME + _REST + rb"\]"
_PAYLOAD = _tuple_of(_scalar(_NAME), 8)
_ACKNOWLEDGEMENT = rb"\]\(K[\x1c\x1d]%s\(%s{4}te" % (_INT, _INT)
# The messages of a record, up to its end. Several stand after a mark (group 1), which each of them but the
# first (group 2) needs.
_MESSAGES = rb"(\()?(?:(?(2)(?(1)|(?!)))" + _PAYLOAD + b"()){1,%d}%s(?(1)e|a)t" % (_RUN, _P)
_LAST_OR_NOT = rb"(?:(a\.\Z)|())"
# A whole record, which is the only one of its frame (group 3 or 5) or not (4 or 6); or the beginning of a
# record of events, up to the list of its payloads (none of these groups).
_record = re.compile(
    _HEADER + b"(?:" + _MESSAGES + _LAST_OR_NOT + b")?|" + _ACKNOWLEDGEMENT + _LAST_OR_NOT, re.DOTALL
)
_ALONE, _NOT_ALONE = (3, 5), (4, 6)
_names = re.compile(_NAME + b"{4,%d}%s" % (_BATCH, _P), re.DOTALL)


@functools.cache
def _payloads() -> re.Pattern[bytes]:
    """Return what matches a run of payloads. It takes some milliseconds to compile."""
    return re.compile(_tuple_of(_scalar(_text(_LONGEST)), 12) + b"{0,%d}%s" % (_RUN, _P), re.DOTALL)


# The walk keeps a number for each value on the unpickler's stack: four times its levels, and
_LIST = 1  # if it is a list, which may still grow
_SEVERAL = 2  # if it stands for several values one after the other, so none of them can be taken alone
_LEVEL = 4
_LEVELS = -_LEVEL  # masks the rest
_NEW_LIST = _LEVEL | _LIST
_TOO_DEEP = (MAX_DEPTH + 1) * _LEVEL


# For short frames with one record, by their length: which bits are opcodes and lengths, and what these are in
# the first such frame that came. To match an expression takes several times as long between two waits.
_known: dict[int, tuple[int, int]] = {}
_SHORT_FRAME = 256


def check(frame: bytes | bytearray | memoryview) -> int:
    """Raise ProtocolError if our own writers do not write such bytes as a frame.

    Returns how many levels of lists and tuples there are. Makes no values, and ends after MAX_VALUES steps at
    the latest.
    """
    known = _known.get(len(frame))
    if known is not None and int.from_bytes(frame, "big") & known[0] == known[1]:
        return DEPTH
    if frame[:_FIRST] != _BEGIN:
        raise ProtocolError(f"a frame that begins with {bytes(frame[:_FIRST])!r}, not with {_BEGIN!r}")
    found = _record.match(frame, _FIRST)
    if found is not None and found.lastindex in _ALONE:
        if known is None and len(frame) <= _SHORT_FRAME:
            _know(frame)
        return DEPTH
    try:
        if found is not None and found.lastindex not in _NOT_ALONE:
            at = found.end()
            if (
                frame[at] == _SHORT_BYTES and frame[at + 2 + frame[at + 1] :] == b"ata."
            ):  # one pickled payload
                return DEPTH
        return _walk(bytes(frame) if type(frame) is memoryview else frame, found)
    except IndexError:
        raise ProtocolError(f"a frame of {len(frame)} bytes that ends too early") from None


def _know(frame: bytes | bytearray | memoryview) -> None:
    """Note the opcodes and lengths of a frame that may pass: another one that has the same may pass, too."""
    mask = bytearray(len(frame))
    at = 0
    while at < len(frame):
        op = frame[at]
        size = _FIXED[op] or 1
        kept = 1
        if op == _TEXT:
            kept = 5
            size = kept + int.from_bytes(frame[at + 1 : at + kept], "little")
        elif op == _LONG:
            kept = 2
            size = kept + frame[at + 1]
        elif not at:
            kept = size = _FIRST
        mask[at : at + kept] = b"\xff" * kept
        at += size
    known = int.from_bytes(mask, "big")
    _known[len(frame)] = known, int.from_bytes(frame, "big") & known


def _walk(frame: bytes | bytearray | memoryview, found: re.Match[bytes] | None) -> int:
    """Follow the unpickler through a frame from its first record on, where ``_record`` has found ``found``.

    Returns and raises as ``check``, and raises IndexError where the frame ends too early. One long function,
    because a call would take as long as an opcode.
    """
    at = _FIRST
    left = MAX_VALUES
    opaque = 0  # bytes in bytes objects
    stack = [_NEW_LIST]  # the unpickler's: the list of records
    marks: list[int] = []  # the heights of the stack at which there is a mark
    floor = 0  # the last of them: what is below cannot be reached
    payloads: re.Pattern[bytes] | None = None
    may_begin = False  # payloads may begin here
    pause, patience = 0, 1  # before it is tried again whether payloads are alike
    while True:
        if may_begin and payloads is not None:
            begin = at
            if pause:
                pause -= 1
            else:
                count, width = _count_alike(frame, at)
                at += count * width
                left -= count
                if count > _FEW:
                    patience = 1
                else:
                    pause = patience = min(2 * patience, _PATIENCE)
            if frame[at] != _TEXT or frame[at + 1] <= _LONGEST:
                run = payloads.match(frame, at)
                assert run is not None  # it matches nothing as well
                # So many payloads at most: each but () has two bytes.
                left -= min(_RUN, (run.end() - at) // 2)
                at = run.end()
            if at != begin:
                stack.append(_LEVEL | _SEVERAL)
        left -= 2
        if left < 0:
            raise ProtocolError(f"a frame of more than {MAX_VALUES} values")
        may_begin = False
        op = frame[at]
        size = _FIXED[op]
        if size:
            at += size
            stack.append(0)
        elif op == _TEXT:
            names = _names.match(frame, at) if stack and stack[-1] == _SEVERAL else None
            if names is None:
                at += 5 + int.from_bytes(frame[at + 1 : at + 5], "little")
                stack.append(0)
            else:
                left -= (names.end() - at) // 5  # each has five bytes at least
                at = names.end()
        elif _TUPLE1 <= op <= _TUPLE3:
            start = len(stack) - (op - _TUPLE1 + 1)
            if start < floor:
                raise _unfit(op, at)
            level = max(stack[start:])
            if level:
                level = _level_of_tuple(stack[start:], op, at)
            del stack[start:]
            stack.append(level or _LEVEL)
            at += 1
            may_begin = True
        elif op == _SHORT_BYTES or op == _BYTES:  # noqa: SIM109
            begin = at
            count = 0
            while True:  # payloads that are pickled stand one after the other
                if op == _SHORT_BYTES:
                    at += 2 + frame[at + 1]
                    opaque -= 2
                elif op == _BYTES:
                    at += 5 + int.from_bytes(frame[at + 1 : at + 5], "little")
                    opaque -= 5
                else:
                    break
                count += 1
                op = frame[at]
            opaque += at - begin
            left -= 2 * (count - 1)
            if count > 3:  # the last ones may be the first items of a tuple
                stack.append(_SEVERAL)
                count = 3
            stack += [0] * count
            may_begin = True
        elif op == _LONG:
            size = frame[at + 1]
            at += 2 + size
            stack.append(0)
            if size > MAX_INT_BYTES:
                raise ProtocolError(f"a frame with an int of {size} bytes; {MAX_INT_BYTES} are allowed")
        elif op == _APPENDS or op == _TUPLE:  # noqa: SIM109, which is faster than a tuple
            if not marks:
                raise _unfit(op, at)
            start = marks.pop()
            floor = marks[-1] if marks else 0
            items = stack[start:]
            del stack[start:]
            level = _LEVEL + (max(items) & _LEVELS if items else 0)
            if level >= _TOO_DEEP:
                raise _too_deep(at)
            if op == _TUPLE:
                stack.append(level)
                may_begin = True
            elif start > floor and stack[-1] & _LIST:
                stack[-1] = max(stack[-1], level | _LIST)
            else:
                raise _unfit(op, at)
            at += 1
        elif op == _APPEND:
            start = len(stack) - 1
            if start <= floor or not stack[start - 1] & _LIST or stack[start] & _SEVERAL:
                raise _unfit(op, at)
            level = _LEVEL + (stack.pop() & _LEVELS)
            if level >= _TOO_DEEP:
                raise _too_deep(at)
            stack[-1] = max(stack[-1], level | _LIST)
            at += 1
        elif op == _EMPTY_TUPLE:
            stack.append(_LEVEL)
            at += 1
        elif op == _MARK or op == _EMPTY_LIST:  # noqa: SIM109
            if found is None or found.start() != at:
                follows = frame[at + 1]
                is_likely = follows == _KIND if op == _MARK else follows == _MARK
                found = _record.match(frame, at) if is_likely else None
            if found is None:
                if op == _EMPTY_LIST:
                    stack.append(_NEW_LIST)
                    at += 1
                    continue
                if payloads is None and marks and stack[-1] == _NEW_LIST and len(frame) > _LONG_FRAME:
                    payloads = _payloads()  # it is the list of a record: of payloads, or of events
                floor = len(stack)
                marks.append(floor)
                if len(marks) > MAX_MARKS:
                    raise _too_deep(at)
                at += 1
                may_begin = True
                names = _names.match(frame, at)
                if names is not None:
                    left -= (names.end() - at) // 5
                    at = names.end()
                    stack.append(_SEVERAL)
            elif found.lastindex in _NOT_ALONE:
                stack.append(3 * _LEVEL)
                at = found.end()
            else:
                floor = len(stack)
                marks.append(floor)  # that of the record; then its header, and the list of its payloads
                stack += (2 * _LEVEL | _SEVERAL, _NEW_LIST)
                at = found.end()
        elif op == _STOP:
            if marks or len(stack) != 1 or not stack[0] & _LIST:
                raise _unfit(op, at)
            if at + 1 != len(frame):
                raise ProtocolError(f"a frame with {len(frame) - at - 1} bytes after its end")
            if at - opaque > MAX_PLAIN_BYTES:
                raise ProtocolError(f"a frame with more than {MAX_PLAIN_BYTES} bytes of plain values")
            return stack[0] // _LEVEL
        else:
            raise ProtocolError(f"a frame with the opcode {op:#x} at its byte {at}, which none of ours has")


def _count_alike(frame: bytes | bytearray | memoryview, at: int) -> tuple[int, int]:
    """Return how many payloads from here on have the opcodes and lengths of the first, and its bytes."""
    places, width = _layout(frame, at)
    count = min(_BATCH, (len(frame) - at) // width) if width else 0
    for place in places:
        column = bytes(frame[at + place : at + count * width : width])
        same = column[:1]
        if column != same * count:
            count -= len(column.lstrip(same))
    return count, width


def _layout(frame: bytes | bytearray | memoryview, at: int) -> tuple[list[int], int]:
    """Return the places of all opcodes and lengths in the payload that begins here, and its bytes.

    No places and 0 bytes if it is no tuple of numbers and texts.
    """
    places: list[int] = []
    place = at
    items = 0
    is_marked = frame[at] == _MARK
    if is_marked:
        places.append(0)
        place += 1
    while items < _BATCH:
        op = frame[place]
        size = _FIXED[op]
        if size:
            places.append(place - at)
            place += size
        elif op == _TEXT:
            places += range(place - at, place - at + 5)
            place += 5 + int.from_bytes(frame[place + 1 : place + 5], "little")
        elif op == _TUPLE if is_marked else 0 < items <= 3 and op == _TUPLE1 + items - 1:
            return [*places, place - at], place - at + 1
        else:
            break
        items += 1
    return [], 0


def _level_of_tuple(items: list[int], op: int, at: int) -> int:
    """Return four times the levels of a tuple of one to three items, which are not all scalars."""
    if any(item & _SEVERAL for item in items):
        raise _unfit(op, at)
    level = _LEVEL + (max(items) & _LEVELS)
    if level >= _TOO_DEEP:
        raise _too_deep(at)
    return level


def _unfit(op: int, at: int) -> ProtocolError:
    return ProtocolError(f"a frame whose opcode {op:#x} at its byte {at} does not fit what is before it")


def _too_deep(at: int) -> ProtocolError:
    return ProtocolError(f"a frame of more than {MAX_DEPTH} levels at its byte {at}")
