"""The main thread of a pool's worker: which jobs it begins, in which order, and what it answers."""

from __future__ import annotations

import queue
import threading

import pytest

from ipevents._ask import bench as module
from ipevents._ask.bench import MANY, Bench
from ipevents._ask.functions import Functions
from ipevents._ask.job import Job
from ipevents._core.messages import REQUEST_ANY, Envelope
from ipevents._core.requests import RAISED, VALUE
from ipevents._core.router import Router
from ipevents._exceptions import ProtocolError, RemoteError, Unpicklable
from ipevents._payload import forms, outcomes
from ipevents._payload.numbered import numbered, numbers_of, without_numbers

CEILING = 20.0  # reached only in a deadlock
ENVELOPE = Envelope(REQUEST_ANY, ("1",), "pool", lambda *reply: None)


class Outgoing:
    """Of a node: counts the writes."""

    def __init__(self):
        self.writes = 0

    def write_dirty(self):
        self.writes += 1


class Node:
    """What a bench uses of a node."""

    def __init__(self):
        self.router = Router("me", 1)
        self.outgoing = Outgoing()
        self.lock = threading.Lock()


class Sends:
    """Takes the answers, as the link to the parent does; there is room for them or not."""

    def __init__(self, outgoing):
        self._outgoing = outgoing
        self.has_room = True
        self.waits = 0  # that it takes until there is room
        self.answers = queue.Queue()
        self.put = []  # numbers of those that had to wait for room
        self.unwritten = []  # how many writes there were when each was put

    def keep_answer(self, job, link, plan, payload, size):
        assert (plan.event, plan.header) == ("pool", plan.header)
        if not self.has_room:
            return False
        self._take(payload)
        return True

    def put_answer(self, job, link, payload, size):
        if link.waits < self.waits:  # nothing is taken there
            return False
        self.put.append(job.number)
        self._take(payload)
        return True

    def _take(self, payload):
        self.unwritten.append(self._outgoing.writes)
        self.answers.put(payload)


class Link:
    """The link to the parent. Counts the waits for room."""

    def __init__(self):
        self.waits = 0

    def wait_room(self, seconds):
        self.waits += 1


class Work:
    """A bench, and its jobs."""

    def __init__(self):
        self.node = Node()
        self.link = Link()
        self.sends = Sends(self.node.outgoing)
        self.begun = []  # numbers
        self.not_taken = set()  # numbers of what was cancelled
        self.functions = Functions()
        self.bench = Bench(self.node, self.sends, self._takes, lambda job: self.begun.append(job.number))

    def _takes(self, job):
        return job.number not in self.not_taken

    def put_function(self, function, *forget):
        """Returns the key."""
        sent = self.functions.of(function)
        self.bench.receive(None, sent.key, sent.code, *forget)
        return sent.key

    def put(self, number, *args, kwargs=()):
        payload = numbered(number, 0, forms.encode(args, dict(kwargs))[0])
        return self.bench.put_all([Job(self.link, number, 0, ENVELOPE, payload)])

    def run(self, jobs):
        """Do so many jobs; returns their numbers and what they came to."""
        self.bench.run(lambda done: done < jobs)
        found = []
        while not self.sends.answers.empty():
            found.append(self.next())
        return found

    def next(self):
        payload = self.sends.answers.get(timeout=CEILING)
        number, status = numbers_of(payload)
        rest = without_numbers(payload)
        if status == RAISED:
            return number, raised(rest)
        assert status == VALUE
        return number, outcomes.value_of(rest)


def raised(payload):
    """What is raised for such a payload."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # the test looks at it
        outcomes.raise_again(payload)
    return caught.value


@pytest.fixture
def work():
    return Work()


def test_jobs_are_done_in_the_order_in_which_they_came(work):
    key = work.put_function(abs)
    for number in range(1, 10):
        assert work.put(number, key, -number)
    assert work.run(9) == [(number, number) for number in range(1, 10)]
    assert work.begun == list(range(1, 10))
    assert work.bench.done == 9


def test_functions_take_their_place_between_the_jobs(work):
    first = work.put_function(abs)
    work.put(1, first, -1)
    second = work.put_function(len, first)  # the first one is to be forgotten
    work.put(2, second, "ab")
    work.put(3, first, -1)
    assert len(work.bench._row) == 5
    one, two, three = work.run(3)
    assert (one, two) == ((1, 1), (2, 2))
    assert type(three[1]) is ProtocolError
    assert first.hex() in str(three[1])


def test_a_job_that_is_not_to_be_done_any_more_is_passed_over(work):
    key = work.put_function(abs)
    for number in range(1, 7):
        work.put(number, key, number)
    work.not_taken = {1, 3, 4, 6}
    work.put(7, key, 7)
    assert work.run(3) == [(2, 2), (5, 5), (7, 7)]
    assert work.begun == [2, 5, 7]


def test_a_job_gets_its_arguments_of_all_names(work):
    key = work.put_function(lambda *args, **kwargs: (args, kwargs))
    names = {"self": 1, "message": 2, "key": 3, "args": 4}
    work.put(1, key, 5, kwargs=names)
    assert work.run(1) == [(1, ((5,), names))]


def test_what_a_job_raises_is_its_answer_and_the_next_one_is_done(work):
    key = work.put_function(int)
    work.put(1, key, "x")
    work.put(2, key, "2")
    (number, exc), second = work.run(2)
    assert (number, type(exc), second) == (1, ValueError, (2, 2))
    assert type(exc.__cause__) is RemoteError


def fails(number):
    raise ValueError(number)


@pytest.mark.parametrize("is_chunk", [False, True])
def test_a_traceback_shows_the_function_of_the_user_and_nothing_around_it(work, is_chunk):
    key = work.put_function(fails)
    if is_chunk:
        work.put(1, MANY + key, [(1,)])
        ((_, (_, _, failures)),) = work.run(1)
        with pytest.raises(ValueError, match="1") as caught:
            outcomes.raise_again(failures[0])
        exc = caught.value
    else:
        work.put(1, key, 1)
        ((_, exc),) = work.run(1)
    text = exc.__cause__.traceback
    assert "in fails" in text
    assert "/bench.py" not in text
    assert "/job.py" not in text


def test_a_system_exit_is_none(work):
    work.put(1, work.put_function(exit_))
    with pytest.raises(SystemExit):
        work.run(1)


def exit_():
    raise SystemExit(3)


# Several at once


def test_a_chunk_has_a_value_for_each_tuple_of_arguments(work):
    key = work.put_function(pow)
    work.put(1, MANY + key, [(2, 3), (3, 2)])
    ((number, (seconds, values, failures)),) = work.run(1)
    assert (number, values, failures) == (1, [8, 9], {})
    assert seconds >= 0.0


def test_what_an_item_of_a_chunk_raises_stands_in_its_place(work):
    key = work.put_function(int)
    work.put(1, MANY + key, [("1",), ("x",), ("3",), ("y",)])
    ((_, (_, values, failures)),) = work.run(1)
    assert (values, sorted(failures)) == ([1, None, 3, None], [1, 3])
    with pytest.raises(ValueError, match="'y'") as caught:
        outcomes.raise_again(failures[3])
    assert caught.value.__cause__.pid == "me"


def lock_for_two(number):
    return threading.Lock() if number == 2 else [number]


def test_a_value_of_a_chunk_that_cannot_be_pickled_is_a_failure_of_its_item(work):
    key = work.put_function(lock_for_two)
    work.put(1, MANY + key, [(1,), (2,), (3,)])
    work.put(2, MANY + key, [(3,)])
    (_, (_, values, failures)), (_, (_, others, none)) = work.run(2)
    assert (values, sorted(failures)) == ([[1], None, [3]], [1])
    with pytest.raises(Unpicklable, match=r"what was returned cannot be sent.*lock"):
        outcomes.raise_again(failures[1])
    assert (others, none) == ([[3]], {})


def test_a_function_that_is_unknown_fails_the_whole_chunk(work):
    work.put(1, MANY + b"k" * 16, [(1,)])
    ((_, exc),) = work.run(1)
    assert type(exc) is ProtocolError


def test_a_system_exit_in_a_chunk_is_no_failure_of_an_item(work):
    work.put(1, MANY + work.put_function(exit_), [()])
    with pytest.raises(SystemExit):
        work.run(1)


# Waits and the end


def run_in_thread(work, may_go_on=lambda done: True):
    thread = threading.Thread(target=work.bench.run, args=(may_go_on,))
    thread.start()
    return thread


def ended(thread):
    thread.join(CEILING)
    return not thread.is_alive()


def test_it_waits_for_what_comes_until_it_is_closed(work):
    key = work.put_function(abs)
    thread = run_in_thread(work)
    for number in range(1, 20):
        work.put(number, key, -number)
        assert work.next() == (number, number)
    assert work.bench.close() == []
    assert ended(thread)
    assert work.node.outgoing.writes >= 1


def test_what_was_not_begun_at_the_close_is_returned_and_never_begins(work):
    key = work.put_function(abs)
    work.put(1, key, 1)
    work.put_function(len)
    work.put(2, key, 2)
    assert [job.number for job in work.bench.close()] == [1, 2]
    assert not work.bench.put_all([Job(None, 3, 0, ENVELOPE, (3, 0, key, 3))])
    work.bench.run(lambda done: True)
    assert work.begun == []


def test_it_ends_at_its_limit_and_has_written_before(work):
    key = work.put_function(abs)
    for number in range(1, 4):
        work.put(number, key, number)
    assert work.run(2) == [(1, 1), (2, 2)]
    assert work.node.outgoing.writes > work.sends.unwritten[-1]
    assert len(work.bench._row) == 1


class Clock:
    """The time of a bench. A job of its function lasts as many milliseconds as it is given."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def last(self, milliseconds):
        self.now += milliseconds / 1000


clock = Clock()


def last(milliseconds):
    clock.last(milliseconds)


@pytest.mark.parametrize(
    ("durations", "written"),
    [
        ([0.1] * 5, [0] * 5),
        ([0.3] * 9, [0, 0, 0, 0, 1, 1, 1, 1, 2]),
        ([5] * 4, [0, 1, 2, 3]),
        ([0.1, 5, 0.1, 0.1], [0, 0, 1, 1]),
    ],
    ids=["short", "some", "long", "one is long"],
)
def test_an_answer_is_written_before_the_next_job_where_that_took_long_and_others_together(
    work, monkeypatch, durations, written
):
    monkeypatch.setattr(module, "monotonic", clock)
    key = work.put_function(last)
    for number, duration in enumerate(durations, 1):
        work.put(number, key, duration)
    work.bench.run(lambda done: done < len(durations))
    assert work.sends.unwritten == written  # so many writes there were before each answer
    assert work.node.outgoing.writes > written[-1]


def test_where_there_is_no_room_an_answer_waits_for_it_after_those_before_it_were_written(work):
    key = work.put_function(abs)
    work.sends.has_room = False
    work.put(1, key, 1)
    work.put(2, key, 2)
    assert work.run(2) == [(1, 1), (2, 2)]
    assert work.sends.put == [1, 2]
    assert work.sends.unwritten[0] == 1


def test_where_the_parent_takes_nothing_for_long_an_answer_waits_and_is_not_thrown_away(work):
    key = work.put_function(abs)
    work.sends.has_room, work.sends.waits = False, 3
    work.put(1, key, 1)
    assert work.run(1) == [(1, 1)]
    assert work.link.waits == 3
