"""Text of others in a line of the log: in one line, printable, and of a bounded length.

A peer chooses its name, the names of events and the causes that it reports; a stranger at least its bytes.
With a line break in it such a text could pass for a log line of its own.
"""

from __future__ import annotations

LINE_BYTES = 1024  # of a whole line


def one_line(text: str, most: int = LINE_BYTES) -> str:
    """Return a text with escapes for what is not printable, cut to ``most`` bytes of UTF-8.

    A mark at the end of what was cut says how many characters are left out.
    """
    if len(text) * 4 <= most and text.isprintable():
        return text
    pieces: list[str] = []
    sizes: list[int] = []
    size = 0
    for char in text:
        piece = char if char.isprintable() else repr(char)[1:-1]
        pieces.append(piece)
        sizes.append(len(piece.encode()))
        size += sizes[-1]
        if size > most:
            break
    else:
        return "".join(pieces)
    while pieces:
        pieces.pop()
        size -= sizes.pop()
        mark = f"... ({len(text) - len(pieces)} more characters)"
        if size + len(mark) <= most:
            return "".join(pieces) + mark
    return ""
