"""Workers for tests of requests to any: children of a place that are only sockets, see places.py."""

from __future__ import annotations

import balance
from asked import settled
from places import CEILING

from ipevents._core.messages import ANSWER, ANSWERS, CANCEL, LAST_MESSAGE, ONLINE, REQUEST_ANY, TAKE_BACK
from ipevents._core.requests import CANCELLED, LOST, NO_ANSWERER, VALUE
from ipevents._node.snapshot import snapshot
from ipevents._payload.numbered import numbers_of, without_numbers
from ipevents._platform.threads import Deadline


class Worker:
    """A child that answers "x", so many at once. ``has`` are the requests that came and are not answered.

    It is read when a test asks for what has come, up to a mark that is sent behind all of it.
    """

    def __init__(self, place, raw, pid, capacity=1, **how):
        self.place = place
        self.pid = pid
        self.raw = raw(place, pid, **how)
        self.link = self.raw.link
        self.has = {}  # arguments by number
        self.deadlines = {}
        self.paths = {}
        self.cancelled = []
        self.taken = []
        self._others = []
        self.raw.send((ONLINE, (pid,)))
        if capacity:
            self.answers(capacity)
        self.settle()

    def settle(self):
        """Wait until all that it has sent is handled."""
        settled(self.place, self.raw)

    def answers(self, capacity, event="x"):
        """Say how many it answers at once now."""
        self.raw.send((ANSWERS, event, int(capacity > 0), capacity))

    # What has come

    def read(self):
        """Read all that has come until now. Returns the arguments of the new requests, in their order."""
        self.place.send_to([self.pid], "fence")
        new = []
        while True:
            for record in self.raw.next_records():
                if record[0] == REQUEST_ANY:
                    new += [self._came(record, payload) for payload in record[4]]
                elif record[0] == CANCEL:
                    self.cancelled += record[1]
                elif record[0] == TAKE_BACK:
                    self.taken += record[2]
                elif record[0] <= LAST_MESSAGE and record[2] == "fence":
                    return new
                elif record[0] == ANSWER:
                    self._others += record[4]

    def _came(self, record, payload):
        number, deadline = numbers_of(payload)
        rest = without_numbers(payload)
        self.has[number] = rest[0] if type(rest) is tuple and len(rest) == 1 else rest
        self.deadlines[number] = deadline
        self.paths[number] = record[1]
        return self.has[number]

    def number(self, value):
        """The number of the request with this argument."""
        (number,) = [number for number, each in self.has.items() if each == value]
        return number

    def answered(self, count):
        """The next answers to what it has asked: number, status, and the rest."""
        while len(self._others) < count:
            for record in self.raw.next_records():
                if record[0] == ANSWER:
                    self._others += record[4]
        found, self._others = self._others[:count], self._others[count:]
        return [(*numbers_of(payload), without_numbers(payload)) for payload in found]

    # What it says

    def say(self, value, status, *rest, event="x"):
        """Answer the request with this argument."""
        number = self.number(value)
        del self.has[number]
        self.raw.send((ANSWER, (self.pid,), event, None, [(number, status, *rest)]))
        self.settle()

    def answer(self, value, result=None):
        self.say(value, VALUE, value if result is None else result)

    def gives_back(self, *values):
        for value in values:
            self.say(value, CANCELLED)

    def knows_nobody(self, value):
        self.say(value, NO_ANSWERER, "nobody here")

    def lost(self, value, begun):
        self.say(value, LOST, "deeper", "its name", 3, begun)

    def asks(self, *payloads, path=None):
        """Ask any one."""
        self.raw.send((REQUEST_ANY, path or (self.pid,), "x", None, list(payloads)))
        self.settle()

    def cancels(self, *numbers):
        self.raw.send((CANCEL, numbers))
        self.settle()

    def closes(self):
        """End the connection, as a client or a process of which nothing more is known."""
        self.raw.socket.close()
        assert self.place.next_closed()[0] == self.pid

    def dies(self, begun):
        """End as a child whose shared page tells what it had begun: up to the request with this argument."""
        last = 0 if begun is None else self.number(begun)
        with self.place.node.lock:
            self.place.asks.link_gone(self.link, -9, lambda event: (0, last))
            self.place.node.presence.child_gone(self.link, -9)


def takes_back(place):
    """Look whether work is to be taken back, as the supervisor does in a moment."""
    place.look_at_deadlines()


def waiting(place, event="x"):
    """How many requests wait for somebody."""
    crew = place.asks.sharing.crews.get(event)
    return 0 if crew is None else crew.count


def assert_balanced(place, *workers):
    """All that was received and put is in one place of the books, and in the crews only what there is."""
    for worker in workers:
        worker.settle()
    with place.node.lock:
        for link in place.node.router.neighbours:
            link.wait_handled(Deadline(CEILING))
    wrong = balance.imbalances(snapshot(place.node, 0, lambda: 0))
    # What was not acknowledged when a link ended is written off by those that end it, not by a place.
    wrong = [words for words in wrong if not words.startswith("past: sent is not")]
    assert not wrong, wrong
    with place.node.lock:
        requests = place.asks.requests
        for crew in place.asks.sharing.crews.values():
            assert crew.count == requests.count(crew)
            for link, member in crew.members.items():
                there = [
                    asked
                    for at, _, asked in requests.each()
                    if at is link and getattr(asked, "work", None) is not None and asked.event == crew.event
                ]
                assert member.has == len(there)
                assert 0 <= member.taking <= member.has
                assert member.taking == sum(asked.is_taken_back for asked in there)


def nothing_is_left(place):
    """No request is open here, nothing waits, and nothing is kept of what did."""
    assert place.asks.stats()["open"] == 0
    assert place.asks.requests.each() == []
    crews = place.asks.sharing.crews
    assert all(crew.members for crew in crews.values())
    assert {link for link in place.asks.requests.down if link not in place.links} <= set(crews.values())
