"""What the parent has not been told yet of the interest in events: one state, not a queue.

Listeners come and go at any rate, and the parent may not read for any time. So what waits is no list of
changes, but the difference between what the parent was told and what holds now. An event whose listener came
and went again leaves nothing behind, whatever its name.

The news leave before all that waits in the outbox. That is early enough for what depends on them: the parent
knows of a listener before it gets an event that this one was registered for. It is never too early: what is
told is what holds now, so nobody misses an event that the parent no longer sends.
"""

from __future__ import annotations

from collections.abc import Callable

from .messages import ANSWERS, INTEREST, KIND, MORE_INTERESTS, Record, control

_RECORD_BYTES = 48  # estimates: what a record costs beside its names, and a name beside its text
_NAME_BYTES = 8


class InterestNews:
    """The untold news of one link: events whose interest has changed, or that all of it is to be told anew.

    The interest in an event changes from wanted to unwanted and back, so a second change undoes the first.
    """

    __slots__ = ("_all", "_answers", "_wanted")

    def __init__(self) -> None:
        self._wanted: dict[str, bool] = {}
        self._answers: dict[str, tuple[int, int]] = {}
        self._all: Callable[[], list[Record]] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the parent knows all."""
        return self._all is None and not self._wanted and not self._answers

    def change(self, event: str, wanted: bool) -> None:
        """Note that the interest in an event has changed."""
        if self._all is not None:
            return  # what holds then is told then
        if self._wanted.get(event, wanted) is wanted:
            self._wanted[event] = wanted
        else:
            del self._wanted[event]

    def answers(self, event: str, count: int, capacity: int) -> None:
        """Note how many processes answer an event now, and with which capacity. One of both was another."""
        if self._all is None:
            self._answers[event] = (count, capacity)

    def anew(self, whole: Callable[[], list[Record]]) -> None:
        """Note that all is to be told: ``whole()`` returns the records of what holds when it is called."""
        self._all = whole
        self._wanted, self._answers = {}, {}

    def records(self) -> list[Record]:
        """Return the records that tell the parent all news."""
        if self._all is not None:
            return self._all()
        more = tuple([event for event, wanted in self._wanted.items() if wanted])
        records = [
            control(INTEREST, event=event, wanted=False)
            for event, wanted in self._wanted.items()
            if not wanted
        ]
        if len(more) > 1:
            records.append(control(MORE_INTERESTS, events=more))
        elif more:
            records.append(control(INTEREST, event=more[0], wanted=True))
        records += [
            control(ANSWERS, event=event, answerers=count, capacity=capacity)
            for event, (count, capacity) in self._answers.items()
        ]
        return records


def size_of(records: list[Record]) -> int:
    """Return about how many bytes these records have: more than 0, as what is written and kept needs."""
    size = 0
    for record in records:
        names = record[1:2] if record[KIND] in (INTEREST, ANSWERS) else record[1] if len(record) > 1 else ()
        size += _RECORD_BYTES + sum(len(name) + _NAME_BYTES for name in names)
    return size
