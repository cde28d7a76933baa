"""Iterators over the results of many jobs: what they read and send, the order of results, and how they end.

The jobs are done by the test, which plays the processes that answer.
"""

from __future__ import annotations

import gc
import itertools
import threading
import weakref

import pytest

from ipevents._ask import mapping as module
from ipevents._ask.mapping import Inbox, Mapping, map_any, number_of_items
from ipevents._core.chunks import Chunks
from ipevents._core.crew import Work
from ipevents._core.requests import LOST, NO_ANSWERER, RAISED, VALUE
from ipevents._exceptions import (
    AnswererLost,
    Closed,
    MessageTooLarge,
    NoAnswerer,
    RemoteError,
    RequestTimeout,
    UnknownProcess,
    WouldDeadlock,
)
from ipevents._payload import forms, outcomes
from ipevents._payload.numbered import numbered
from ipevents._platform.threads import library_threads

CEILING = 20.0  # reached only in a deadlock


class Asking:
    """What takes the jobs, and the node with its dispatcher and its notices."""

    def __init__(self):
        self.node = self.dispatcher = self.notices = self.sharing = self
        self.crews = {}
        self.is_listener = False
        self.refuses = None  # what a put raises
        self.refuses_from = 0  # the place of the first job
        self.at_once = None  # how a job is done at once
        self.open = {}  # pieces, by their places
        self.items = []  # of each job
        self.given_up = []  # places
        self.noticed = []  # calls for the notices thread
        self.writes = 0

    # As Asking

    def put_all(self, event, pairs):
        self.writes += 1
        for work, sink in pairs:
            if self.refuses is not None and sink.index >= self.refuses_from:
                raise self.refuses
            sink.work, sink.places = work, ((self, sink.index),)
            self.open[sink.index] = sink
        if self.at_once is not None:
            for _, sink in pairs:
                self.at_once(sink.index)

    def give_up(self, piece):
        self.open.pop(piece.index, None)
        self.given_up.append(piece.index)

    # As its dispatcher

    def must_not_wait(self):
        return self.is_listener or threading.get_ident() in library_threads

    # The processes that answer

    def make(self, items):
        self.items.append([args[0] for args in items])
        return Work("x", (), 0)

    def came(self, place, status, payload, name="w"):
        self.open.pop(place).came("7", name, status, payload, True)

    def does(self, *places, function=lambda item: item):
        """These jobs are done: each has the value of its one item."""
        for place in places:
            value = function(self.items[place][0])
            self.came(place, VALUE, numbered(1, VALUE, outcomes.of_value(value)[0]))

    def does_chunk(self, place, failures=(), seconds=0.0):
        """A job of several items is done."""
        value = (seconds, list(self.items[place]), dict(failures))
        self.came(place, VALUE, numbered(1, VALUE, outcomes.of_value(value)[0]))


class Notices:
    def __init__(self):
        self.calls = []

    def put(self, call):
        self.calls.append(call)


@pytest.fixture
def asking():
    asking = Asking()
    asking.notices = Notices()
    return asking


@pytest.fixture
def mapped(asking):
    """Makes iterators of one-item jobs, or of chunks."""

    def make(items, *, size=1, capacity=4, **options):
        defaults = {
            "chunks": Chunks(),
            "ordered": True,
            "buffersize": None,
            "timeout": CEILING,
            "is_chunked": size != 1,
        }
        return Mapping(
            asking,
            zip(items, strict=False),
            "x",
            asking.make,
            "job",
            size=size,
            capacity=lambda: capacity,
            **{**defaults, **options},
        )

    return make


def raised(error):
    """The payload of what was raised elsewhere."""
    return outcomes.of_exception(error, "the traceback", "7")[0]


# Reading and sending


def test_as_many_jobs_are_sent_at_once_as_there_is_room_for(asking, mapped):
    numbers = itertools.count()
    found = mapped(numbers, capacity=4)
    assert asking.items == [[0], [1], [2], [3]]
    assert asking.writes == 1
    asking.at_once = asking.does
    asking.does(*range(4))
    for number in range(50):
        assert next(found) == number
        assert len(asking.items) <= number + 1 + 4
    found.close()


def test_a_chunk_has_as_many_items_as_were_asked_for_and_the_last_one_the_rest(asking, mapped):
    found = mapped(range(10), size=4)
    assert asking.items == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for place in (2, 0, 1):
        asking.does_chunk(place)
    assert list(found) == list(range(10))


def test_chunks_grow_by_the_time_that_items_have_taken(asking, mapped):
    found = mapped(itertools.count(), size=None)
    assert [len(items) for items in asking.items] == [1] * 4
    for place in range(4):
        asking.does_chunk(place, seconds=1e-6)
    taken = []
    asking.at_once = lambda place: asking.does_chunk(place, seconds=1e-6)
    while len(asking.items) < 9:
        taken.append(next(found))
    assert taken == list(range(len(taken)))
    sizes = [len(items) for items in asking.items]
    assert sizes[4] == 4
    assert all(after in (before, 4 * before) for before, after in itertools.pairwise(sizes))
    found.close()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("size", "jobs"), [(1, [1, 1, 1]), (2, [2, 1]), (7, [3]), (None, [1, 1, 1])])
def test_buffersize_counts_items_whose_results_were_not_taken(asking, mapped, ordered, size, jobs):
    asking.at_once = asking.does if size == 1 else asking.does_chunk
    found = mapped(itertools.count(), size=size, buffersize=3, ordered=ordered)
    assert [len(items) for items in asking.items] == jobs
    for expected in range(20):
        assert next(found) == expected
        assert sum(map(len, asking.items)) <= expected + 1 + 3
    found.close()


def test_in_order_results_that_come_early_stop_the_reading_in_the_end(asking, mapped):
    asking.at_once = lambda place: asking.does(place) if place else None
    found = mapped(itertools.count(), capacity=4, timeout=0.0)
    with pytest.raises(RequestTimeout):
        next(found)
    assert 8 <= len(asking.items) <= 2 * 4 + module._UNKNOWN


# Results


def test_in_order_results_are_those_of_the_items_however_they_come(asking, mapped):
    for order in itertools.permutations(range(4)):
        asking.items.clear()
        found = mapped("abcd")
        asking.does(*order)
        assert list(found) == ["a", "b", "c", "d"]


def test_without_order_they_come_as_they_are_there(asking, mapped):
    found = mapped("abcd", ordered=False)
    asking.does(2, 0)
    assert [next(found), next(found)] == ["c", "a"]
    asking.does(3, 1)
    assert list(found) == ["d", "b"]


def test_values_of_all_forms_are_read(asking, mapped):
    values = [None, b"x", {1, 2}, [1, (2,)], threading.main_thread]
    found = mapped(values, capacity=9)
    asking.does(*range(5))
    assert list(found) == values


def test_an_error_comes_in_the_place_of_its_result_and_the_rest_follows(asking, mapped):
    found = mapped("abcd")
    asking.does(0, 3)
    asking.came(1, RAISED, numbered(1, RAISED, raised(LookupError("mine"))), name="w1")
    asking.came(2, LOST, numbered(1, LOST, ("7", "w2", -9, True)))
    assert next(found) == "a"
    with pytest.raises(LookupError, match="mine") as caught:
        next(found)
    assert type(caught.value.__cause__) is RemoteError
    assert (caught.value.__cause__.event, caught.value.__cause__.name) == ("job", "w1")
    with pytest.raises(AnswererLost) as caught:
        next(found)
    assert (caught.value.pid, caught.value.name, caught.value.exitcode) == ("7", "w2", -9)
    assert list(found) == ["d"]


def test_an_item_of_a_chunk_has_its_own_error(asking, mapped):
    found = mapped(range(3), size=3)
    asking.does_chunk(0, failures={1: raised(KeyError("k"))})
    assert next(found) == 0
    with pytest.raises(KeyError, match="k"):
        next(found)
    assert list(found) == [2]


def test_each_item_of_a_chunk_that_is_lost_has_the_error(asking, mapped):
    found = mapped(range(3), size=2)
    asking.came(0, LOST, numbered(1, LOST, ("7", "w", 1, None)))
    asking.does_chunk(1)
    for _ in range(2):
        with pytest.raises(AnswererLost):
            next(found)
    assert list(found) == [2]


def test_nobody_who_answers_and_a_stop_are_errors_of_items(asking, mapped):
    found = mapped("abc")
    asking.came(0, NO_ANSWERER, numbered(1, NO_ANSWERER, ("nobody is there",)))
    asking.open.pop(1).failed(UnknownProcess("there is none"))
    asking.open.pop(2).failed(Closed("it was stopped"))
    with pytest.raises(NoAnswerer, match="nobody is there"):
        next(found)
    with pytest.raises(NoAnswerer, match="there is none"):
        next(found)
    with pytest.raises(Closed, match="it was stopped"):
        next(found)
    assert list(found) == []


def test_an_answer_that_makes_no_sense_is_an_error_of_its_items(asking, mapped):
    found = mapped(range(3), size=2)
    asking.came(0, VALUE, numbered(1, VALUE, forms.encode((3,), {})[0]))  # no chunk
    asking.does_chunk(1)
    for _ in range(2):
        with pytest.raises(TypeError):
            next(found)
    assert list(found) == [2]


# Errors of the input


@pytest.mark.parametrize("size", [1, 2, 3, None])
def test_what_the_input_raises_comes_after_all_results_before_it(asking, mapped, size):
    def numbers():
        yield from range(3)
        raise KeyError("mine")

    found = mapped(numbers(), size=size, capacity=9)
    assert [number for items in asking.items for number in items] == [0, 1, 2]
    for place in range(len(asking.items)):
        asking.does(place) if size == 1 else asking.does_chunk(place)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="mine"):
        next(found)
    assert list(found) == []


def test_what_it_raises_first_of_all_is_raised_by_the_call(asking, mapped):
    def numbers():
        raise KeyError("mine")
        yield

    with pytest.raises(KeyError, match="mine"):
        mapped(numbers())
    assert (asking.open, asking.given_up) == ({}, [])


def test_what_cannot_be_sent_is_raised_by_the_call_and_gives_up_what_was(asking, mapped):
    asking.refuses, asking.refuses_from = MessageTooLarge("too large"), 2
    with pytest.raises(MessageTooLarge):
        mapped(itertools.count())
    assert (asking.open, asking.given_up) == ({}, [0, 1])


def test_what_cannot_be_sent_later_comes_after_the_results_before_it(asking, mapped):
    found = mapped(itertools.count(), capacity=2)
    asking.refuses = MessageTooLarge("too large")
    asking.does(0, 1)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(MessageTooLarge):
        next(found)
    assert list(found) == []


# Waits


def test_it_waits_for_the_next_result(asking, mapped):
    found = mapped("ab", timeout=None)
    taken = []
    thread = threading.Thread(target=lambda: taken.extend(found))
    thread.start()
    asking.does(1)
    asking.does(0)
    thread.join(CEILING)
    assert (thread.is_alive(), taken) == (False, ["a", "b"])


def test_it_ends_with_its_time_and_gives_up_what_is_open(asking, mapped):
    found = mapped(itertools.count(), capacity=3, timeout=0.0)
    asking.does(0)
    assert next(found) == 0
    with pytest.raises(RequestTimeout, match="'job'"):
        next(found)
    assert (found.is_over, asking.open) == (True, {})
    assert list(found) == []


@pytest.mark.parametrize("where", ["listener", "thread of the library"])
def test_where_no_answer_can_come_it_does_not_wait(asking, mapped, where):
    found = mapped("ab")
    asking.does(0)
    ident = threading.get_ident()
    if where == "listener":
        asking.is_listener = True
    else:
        library_threads.add(ident)
    try:
        assert next(found) == "a"
        with pytest.raises(WouldDeadlock):
            next(found)
    finally:
        library_threads.discard(ident)
    assert asking.given_up == [1]


@pytest.mark.parametrize("rounds", [2000])
def test_an_inbox_loses_no_wake(rounds):
    inbox, other = Inbox(), Inbox()

    def back():
        for _ in range(rounds):
            assert inbox.wait(CEILING)
            other.put(inbox.found.popleft())

    thread = threading.Thread(target=back)
    thread.start()
    for number in range(rounds):
        inbox.put(number)
        assert other.wait(CEILING)
        assert other.found.popleft() == number
    thread.join(CEILING)
    assert not thread.is_alive()


def test_an_inbox_in_which_nothing_comes_says_so():
    inbox = Inbox()
    assert not inbox.wait(0.0)
    inbox.put("found")
    assert inbox.wait(0.0)


# The end


def test_close_gives_up_what_is_open_and_what_has_come(asking, mapped):
    ended = []
    found = mapped(itertools.count(), on_end=lambda: ended.append(sorted(asking.open)))
    asking.does(0, 2)
    assert next(found) == 0
    found.close()
    found.close()
    assert asking.open == {}
    assert list(found) == []
    assert ended == [[]]  # once, when nothing was open any more


def test_close_forgets_the_results_that_it_has(asking, mapped):
    found = mapped(range(9), size=3)
    asking.does_chunk(0)
    assert next(found) == 0
    found.close()
    assert list(found) == []


def test_at_its_own_end_nothing_is_given_up(asking, mapped):
    ended = []
    found = mapped("ab", on_end=lambda: ended.append("end"))
    asking.does(0, 1)
    assert list(found) == ["a", "b"]
    del found
    gc.collect()
    assert ended == ["end"]
    assert (asking.given_up, asking.notices.calls) == ([], [])


@pytest.mark.parametrize("is_in_cycle", [False, True])
def test_one_that_nobody_has_any_more_gives_up_the_rest_in_the_notices_thread(asking, mapped, is_in_cycle):
    ended = []
    found = mapped(itertools.count(), on_end=lambda: ended.append(sorted(asking.open)))
    gone = weakref.ref(found)
    asking.does(0)
    assert next(found) == 0
    open_ = sorted(asking.open)
    if is_in_cycle:
        found.itself = found
    del found
    gc.collect()
    assert gone() is None
    assert asking.given_up == []
    for call in asking.notices.calls:
        call()
    assert sorted(asking.given_up) == open_ != []
    assert ended == [[]]


def test_answers_that_come_after_the_end_harm_nothing(asking, mapped):
    found = mapped("ab")
    late = dict(asking.open)
    found.close()
    for piece in late.values():
        piece.came("7", "w", VALUE, (1, VALUE, 3), True)
        piece.failed(Closed("it was stopped"))
    assert list(found) == []


# Requests to any


def test_requests_for_each_item_have_one_item_each(asking):
    found = map_any(asking, "x", itertools.count(), ordered=True, buffersize=None, timeout=CEILING, retries=2)
    assert len(asking.open) == module._UNKNOWN  # nobody below answers
    works = [piece.work for piece in asking.open.values()]
    assert [(work.event, work.retries) for work in works] == [("x", 2)] * len(works)
    assert [work.payload for work in works] == [(number,) for number in range(len(works))]
    asking.open.pop(0).came("7", "w", VALUE, (1, VALUE, "zero"), True)
    assert next(found) == "zero"
    found.close()


# Numbers


def test_a_number_of_items_is_a_positive_int_or_none():
    assert [number_of_items(value, "chunksize") for value in (None, 1, 500)] == [None, 1, 500]
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"buffersize is at least 1, not {value}"):
            number_of_items(value, "buffersize")
    for value in (True, 1.0, "1", [1]):
        with pytest.raises(TypeError, match="buffersize is a number of items, an int, not"):
            number_of_items(value, "buffersize")
