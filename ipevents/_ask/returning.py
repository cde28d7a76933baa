"""Answers that have come: for what waits for them here, or for the neighbour whose request went on from here.

A frame of answers is sorted under the state lock, which guards ``_core/requests.py`` and all counts here.
Sinks are called afterwards, without it, in the thread that brought the answers: the reader of the link, or
the supervisor's where a process has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core.books import FORWARDED, UNHEARD
from .._core.messages import ANSWER, Header, Payload
from .._core.requests import NO_ANSWERER, REFUSED, SPLIT, VALUE, Given, Requests
from .._exceptions import IPEventsError, ProtocolError
from .._links.link import Link
from .._node.node import Node
from .._payload.forms import size_of
from .._payload.numbered import numbered, numbers_of, without_numbers
from .answering import Answering
from .job import Sink, tell
from .sends import Sends
from .sharing import Sharing

if TYPE_CHECKING:
    from .._core.crew import Crew, Work


class _Frame:
    """What the answers of one frame come to."""

    __slots__ = ("crews", "kept", "late", "mine", "name", "others", "pid", "told")

    def __init__(self, pid: str, name: str) -> None:
        self.pid = pid
        self.name = name  # that the user gave the neighbour
        self.mine: list[tuple[Sink, int, Payload, bool]] = []  # for sinks here: status, payload, is it over
        self.told = 0  # for sinks here that were called already
        self.others: dict[Link, list[Payload]] = {}  # for neighbours
        self.kept = 0  # whose requests go to somebody else
        self.late = 0  # for which nobody waits any more
        self.crews: dict[str, Crew] = {}  # in which the neighbour has less to do now


class Returning:
    """The answers of one node. ``answer_any`` has this process answer a request to any.

    ``answered`` and ``late`` count what came for this process.
    """

    def __init__(
        self,
        node: Node,
        requests: Requests,
        sends: Sends,
        answering: Answering,
        sharing: Sharing,
        answer_any: Callable[[Work, Sink], None],
    ) -> None:
        self._node = node
        self._requests = requests
        self._sends = sends
        self._answering = answering
        self._sharing = sharing
        self._answer_any = answer_any
        self.answered = 0
        self.late = 0

    def take(self, link: Link, pids: tuple[str, ...], event: str, messages: list[Payload]) -> None:
        """Hand answers over to what waits for them here, or pass them on to the neighbour that has asked.

        Raises ProtocolError for one that answers nothing that was asked; what came before it is handed over
        all the same.
        """
        node = self._node
        frame = _Frame(pids[0], link.given_name if len(pids) == 2 else "")
        forged = None
        with node.lock:
            if link not in node.router.neighbours:
                link.end_here("link-cut", len(messages))
                return
            try:
                self._sort(link, messages, frame)
            except ProtocolError as exc:
                forged = exc
            for back, payloads in frame.others.items():
                self._pass_back(link, back, (ANSWER, pids, None), event, payloads)
            for crew in frame.crews.values():
                self._sharing.answered(crew, link)
            count = len(frame.mine) + frame.told
            self.answered += count
            self.late += frame.late
        link.delivered += count + frame.kept
        if frame.late:
            link.turn_out(UNHEARD, frame.late)
        for sink, status, payload, is_over in frame.mine:
            work = sink.work
            if status == NO_ANSWERER and work is not None and self._answering.answers(work.event):
                self._answer_here(work, sink)
            else:
                tell(sink.came, frame.pid, frame.name, status, payload, is_over)
        if forged is not None:
            raise forged

    def _sort(self, link: Link, messages: list[Payload], frame: _Frame) -> None:
        """Note what answers are for. State lock held. Raises ProtocolError."""
        down = self._requests.down.get(link)
        requests = {} if down is None else down.requests
        crews = self._sharing.crews
        for payload in messages:
            asked: Any = None
            if type(payload) is tuple and len(payload) == 3 and payload[1] == VALUE:  # as most often
                asked = requests.get(payload[0])
            if asked is None or asked.left != 1 or asked.back_number:
                self._sort_other(link, payload, frame)
                continue
            del requests[payload[0]]  # as answered() does, without a call
            if crews and type(asked) is Given:
                crew = crews.get(asked.event)  # not that of the name which the neighbour gives it
                if crew is not None:
                    crew.note(link, True, asked.is_taken_back)
                    frame.crews[crew.event] = crew
            sink = asked.back
            if sink is None:
                frame.late += 1
                continue
            sink.left -= 1
            if sink.is_many:
                sink.came(frame.pid, frame.name, VALUE, payload, not sink.left)
                frame.told += 1
            else:
                frame.mine.append((sink, VALUE, payload, not sink.left))

    def _sort_other(self, link: Link, payload: Payload, frame: _Frame) -> None:
        """Note what an answer of any sort is for. State lock held. Raises ProtocolError."""
        number, status = numbers_of(payload)
        given = self._requests.get(link, number)
        if type(given) is Given:
            crew = self._sharing.crews.get(given.event)
            if crew is not None:
                frame.crews[crew.event] = crew
            if self._sharing.keeps(link, number, given, status, payload):
                frame.kept += 1
                return
        more = _more(payload) if status == SPLIT else 0
        asked, is_last = self._requests.answered(link, number, status, more)
        back: Any = asked.back
        if back is None:
            frame.late += 1
        elif asked.back_number:
            rest = numbered(asked.back_number, status, without_numbers(payload))
            frame.others.setdefault(back, []).append(rest)
        else:
            if is_last:
                back.left -= 1
            if back.is_many:
                back.came(frame.pid, frame.name, status, payload, not back.left)
                frame.told += 1
            else:
                frame.mine.append((back, status, payload, not back.left))

    def _answer_here(self, work: Work, sink: Sink) -> None:
        """Answer a request to any here: nobody else does. In the reader of the link to the parent."""
        with self._node.lock:
            self._sends.asked -= 1  # it was counted when it was put
        try:
            self._answer_any(work, sink)
        except IPEventsError as exc:  # a stop has begun
            tell(sink.failed, exc)

    def _pass_back(self, link: Link, back: Link, header: Header, event: str, payloads: list[Payload]) -> None:
        """Put answers for whoever has asked. Those that do not fit there become errors. State lock held."""
        node = self._node
        if back not in node.router.neighbours:
            link.end_here("link-cut", len(payloads))
            return
        count = 0
        for payload in payloads:
            size = size_of(payload)
            number, _ = numbers_of(payload)
            is_large = back.is_limited and size > back.limit
            if is_large or not back.outbox.has_room(size):
                if self._sends.hangs_up(back):
                    link.end_here("link-cut", len(payloads) - count)
                    break
                why = "is larger than it takes" if is_large else "finds no room in its outbox"
                payload = numbered(number, REFUSED, (f"the answer for {back.title} {why}",))  # noqa: PLW2901
                size = size_of(payload)
            back.outbox.put_message(header, event, payload, size)
            count += 1
        back.forwarded += count
        link.turn_out(FORWARDED, count)
        node.outgoing.mark_dirty(back)


def _more(payload: Payload) -> int:
    """Return how many more answers a SPLIT stands for. Raises ProtocolError."""
    rest = without_numbers(payload)
    if type(rest) is not tuple or len(rest) != 1 or type(rest[0]) is not int:
        raise ProtocolError("an answer that stands for more, and does not say for how many")
    return rest[0]
