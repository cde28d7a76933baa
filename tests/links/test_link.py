"""Two whole links joined by a socket: what is sent arrives, and how each end comes about.

What is made of the bytes: transport/test_frame_reader.py.
"""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest
from ends import CEILING, End
from interrupting import Interruption

from ipevents._core import link_state
from ipevents._core import window as window_module
from ipevents._core.books import FORWARDED, UNHEARD
from ipevents._core.messages import BROADCAST, PARENT, PAYLOADS
from ipevents._core.wire import FRAME_BYTES, encode, frame_header
from ipevents._exceptions import ProtocolError
from ipevents._links import link as link_module
from ipevents._links import outlet as outlet_module
from ipevents._platform.threads import Deadline


@pytest.fixture
def ends():
    made = [End("a"), End("b")]
    yield made
    for end in made:
        end.end()


@pytest.fixture
def joined(ends):
    join(*ends)
    return ends


def join(one, other, limit=None):
    ours, theirs = socket.socketpair()
    one.attach(ours, limit)
    other.attach(theirs, limit)


# Names


@pytest.mark.parametrize(
    ("role", "given", "title"),
    [
        ("", "", "4711"),
        ("parent", "", "parent 4711"),
        ("child", "resize", "child resize (4711)"),
        ("4711", "", "4711"),
    ],
)
def test_a_link_is_called_by_what_its_peer_is(ends, role, given, title):
    link = ends[0].link
    link.name, link.role, link.given_name = "4711", role, given
    assert link.title == title
    assert repr(link).startswith(f"<Link to {title} ")


# Sending and receiving


def test_events_of_users_that_wait_are_counted_without_what_the_library_says(ends):
    a, _ = ends
    with a.lock:
        a.link.tell((PARENT, "4711"))
        for event in ("x", "x", "y"):
            a.put(event)
        a.link.outbox.put_interest("z", True)
    assert a.link.count_waiting(0) == 3
    join(*ends)
    with a.lock:
        assert a.link.flush(Deadline(CEILING))
    assert a.link.count_waiting(0) == 3
    assert a.link.count_waiting(2) == 1


def test_what_is_sent_arrives(joined):
    a, b = joined
    a.send("x", (1, "two"))
    assert b.next_record() == (BROADCAST, ("a",), "x", None, [(1, "two")])
    b.send("y")
    assert a.next_record() == (BROADCAST, ("b",), "y", None, [()])


def test_what_is_sent_at_once_gathers_and_arrives_in_order(joined):
    a, b = joined
    with a.lock:
        for number in range(5000):
            a.put("x" if number % 10 else "y", (number,))
        a.link.prompt()
    assert [payload for _, (payload,) in b.next_messages(5000)] == list(range(5000))
    assert (a.link.sent, len(a.link.outbox)) == (5000, 0)


def test_many_threads_send_and_each_ones_order_is_kept(joined):
    a, b = joined
    count, threads = 500, 4

    def run(number):
        for index in range(count):
            a.send(str(number), (index,))

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    arrived = b.next_messages(count * threads)
    for thread in running:
        thread.join(CEILING)
    for number in range(threads):
        assert [index for event, (index,) in arrived if event == str(number)] == list(range(count))


def test_both_ends_flood_each_other(joined):
    a, b = joined
    payload = b"x" * 10_000

    def run(end):
        for _ in range(2000):
            end.send("x", (payload,), len(payload))

    running = [threading.Thread(target=run, args=(end,)) for end in joined]
    for thread in running:
        thread.start()
    assert len(b.next_messages(2000)) == 2000
    assert len(a.next_messages(2000)) == 2000
    for thread in running:
        thread.join(CEILING)


def test_a_sender_does_not_wait_for_a_peer_that_does_not_read(ends):
    a, b = ends
    ours, theirs = socket.socketpair()
    a.attach(ours)
    payload = bytes(100_000)
    for number in range(100):
        a.send("x", (number, payload), len(payload))
    # 10 MB are more than the kernel takes, and here we are all the same
    assert len(a.link.outbox) > 0
    b.attach(theirs)
    arrived = b.next_messages(100)
    assert [number for _, (number, _) in arrived] == list(range(100))
    assert all(data == payload for _, (_, data) in arrived)


def test_what_waits_before_there_is_a_connection_is_sent_then(ends):
    a, b = ends
    a.send("x", (1,))
    a.send("x", (2,))
    assert repr(a.link) == "<Link to a unconnected, 2 queued>"
    join(a, b)
    assert b.next_messages(2) == [("x", (1,)), ("x", (2,))]


def test_a_control_record_is_written_soon(joined):
    a, b = joined
    with a.lock:
        a.link.tell((20, "a"))
    assert b.next_record() == (20, "a")
    assert a.link.sent == 0, "it is no event"


# Large records


@pytest.mark.parametrize("size", [1, 1000, 70_000, 300_000, 5_000_000])
def test_buffers_arrive_whole_between_other_records(joined, size):
    a, b = joined
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    a.send("before")
    a.send("large", [b"meta", [content, bytearray(content)]], 2 * size)
    a.send("after")
    assert b.next_record()[2] == "before"
    ((meta, (first, second)),) = b.next_record()[PAYLOADS]
    assert meta == b"meta"
    assert (type(first), type(second)) == (bytes, bytearray)
    assert first == content
    assert second == content
    assert b.next_record()[2] == "after"


def test_empty_buffers_arrive(joined):
    a, b = joined
    a.send("large", [b"meta", [b"", b"x", bytearray()]], 100)
    assert b.next_record()[PAYLOADS] == [[b"meta", [b"", b"x", bytearray()]]]


def test_frames_of_every_size_arrive(joined):
    a, b = joined
    sizes = [0, 1, 16_000, 16_384, 16_400, 65_536, 262_144, 262_200, FRAME_BYTES, 3 * FRAME_BYTES]
    for size in sizes:
        a.send("x", (bytes(size),), size)
    assert [len(payload[0]) for _, payload in b.next_messages(len(sizes))] == sizes


# What a listener sends


def test_a_listeners_record_leaves_soon_also_while_the_listener_runs_on(joined):
    a, b = joined
    go = threading.Event()

    def listener(record):
        with b.lock:
            b.put("answer")
            b.link.defer()
        assert go.wait(CEILING)

    b.on_record = listener
    try:
        for _ in range(3):
            a.send("question")
            assert a.next_record()[2] == "answer"
            go.set()
    finally:
        go.set()


def test_at_the_end_of_a_batch_a_busy_link_is_written_at_once(joined):
    a, b = joined
    for number in range(100):
        with a.lock:
            a.put("x", (number,))
            records = a.link.claim_now()
        if records is not None:
            a.link.write_now(records)
    assert [payload for _, (payload,) in b.next_messages(100)] == list(range(100))


# Ends


def test_a_connection_that_ends_between_frames_ends_cleanly(joined):
    a, b = joined
    a.send("last")
    with a.lock:
        a.link.say_goodbye()
    assert b.next_record()[2] == "last"
    assert b.next_closed() is None


def test_everything_written_before_the_end_is_read(joined):
    a, b = joined
    for number in range(1000):
        a.send("x", (number,))
    with a.lock:
        assert a.link.flush(Deadline(CEILING))
        a.link.say_goodbye()
    assert len(b.next_messages(1000)) == 1000
    assert b.next_closed() is None


def test_flushing_gives_up_at_its_deadline(ends):
    a, _ = ends
    ours, theirs = socket.socketpair()
    with theirs:
        a.attach(ours)
        for _ in range(100):
            a.send("x", (bytes(100_000),), 100_000)
        with a.lock:
            assert not a.link.flush(Deadline(0.01))


def test_closing_ends_the_connection_at_both_ends(joined):
    a, b = joined
    a.link.disconnect()
    assert a.next_closed() is None
    assert b.next_closed() is None
    assert a.link.wait_closed(Deadline(CEILING))


def test_a_link_may_be_ended_twice_and_before_it_was_connected():
    end = End("a")
    assert end.link.is_alive()
    end.end()
    end.end()
    assert not end.link.is_alive()
    assert repr(end.link) == "<Link to a ended, 0 queued>"


def test_a_frame_is_counted_once_where_a_signal_handler_raises_in_the_middle(joined, monkeypatch):
    """At every place: test_interrupted_sends.py."""
    a, b = joined
    real = outlet_module.wire_parts
    calls = []

    def interrupted(records, *seals):
        calls.append(records)
        if len(calls) == 1:
            raise TimeoutError("of a signal handler")
        return real(records, *seals)

    monkeypatch.setattr(outlet_module, "wire_parts", interrupted)
    with a.lock:
        a.put("x")
        records = a.link.claim()
    with pytest.raises(TimeoutError):
        a.link.write_now(records)
    a.link.give_back()
    a.send("y")
    assert [event for event, _ in b.next_messages(2)] == ["x", "y"]
    assert a.link.sent == 2
    assert b.link.stream is not None


def test_a_link_that_was_ended_closes_the_connection_that_was_on_its_way(ends):
    ours, theirs = socket.socketpair()
    with theirs:
        ends[0].end()
        ends[0].attach(ours)
        theirs.settimeout(CEILING)
        assert theirs.recv(1) == b""
    assert ends[0].link.state.connection is link_state.Connection.ENDED


@pytest.mark.parametrize("attached", [True, False])
def test_an_end_that_a_signal_handler_has_broken_off_can_be_repeated(attached):
    place, was_there = 0, True
    while was_there:
        end = End("a")
        ours, theirs = socket.socketpair()
        with theirs:
            if attached:
                end.attach(ours)
            interruption = Interruption(place)
            with end.lock:
                was_there = interruption.run(end.link.end)
                assert end.link.ended is end.link.state.ended, interruption.where
            end.end()
        ours.close()
        place += 1
    assert place > 10


def test_ending_does_not_wait_for_a_peer_that_does_not_read(ends):
    a, _ = ends
    ours, theirs = socket.socketpair()
    with theirs:
        a.attach(ours)
        for _ in range(100):
            a.send("x", (bytes(100_000),), 100_000)
        a.end()


def test_the_reader_of_a_link_that_was_ended_has_no_last_words(joined, monkeypatch):
    """There is no writer any more that would write what it has handled."""
    monkeypatch.setattr(link_module, "LAST_WORDS_SECONDS", 2 * CEILING)
    a, b = joined

    def handle_and_end(record):
        a.link.handled_frame(10)
        with a.lock:
            a.link.end()

    a.on_record = handle_and_end
    b.send("x")
    b.next_closed()
    assert a.link.join(Deadline(CEILING))


def test_a_link_that_was_ended_reports_no_end_of_its_connection(joined):
    a, b = joined
    a.end()
    assert b.next_closed() is None
    assert a.closed.empty()


def test_a_peer_that_goes_while_we_write_is_a_clean_end(ends):
    a, _ = ends
    ours, theirs = socket.socketpair()
    a.attach(ours)
    for _ in range(100):
        a.send("x", (bytes(100_000),), 100_000)
    theirs.close()
    assert a.next_closed() is None
    a.send("x")


def test_what_was_sent_to_us_is_read_although_writing_failed(ends):
    a, _ = ends
    ours, theirs = socket.socketpair()
    frame = encode([(BROADCAST, ("b",), "last words", None, [()])])
    theirs.sendall(frame_header(len(frame)) + frame)
    theirs.close()
    a.attach(ours)
    a.send("x")
    assert a.next_record()[2] == "last words"
    a.next_closed()


def test_a_second_connection_is_served_after_the_first_one(joined):
    a, b = joined
    for _ in range(3):
        a.send("x")
        assert b.next_record()[2] == "x"
        a.link.disconnect()
        a.next_closed()
        b.next_closed()
        join(a, b)
    b.send("y")
    assert a.next_record()[2] == "y"


def test_what_was_half_written_to_the_first_connection_does_not_reach_the_second(ends):
    """B7: a frame that was cut in the middle of a write never goes on."""
    a, b = ends
    ours, theirs = socket.socketpair()
    a.attach(ours)
    for number in range(100):
        a.send("x", (number, bytes(100_000)), 100_000)
    theirs.close()
    a.next_closed()
    join(a, b)
    a.send("last", (-1, b""))
    numbers = []
    while not numbers or numbers[-1] != -1:
        numbers += [payload[0] for payload in b.next_record()[PAYLOADS]]
    assert numbers[:-1] == list(range(100))[len(numbers) * -1 + 1 :] or numbers == [-1]


def test_all_connections_that_end_while_one_writes_to_the_first_are_closed(ends):
    a, b = ends
    streams = []
    for number in range(3):
        join(a, b)
        with a.lock:
            streams.append(a.link.stream)
            if number == 0:
                a.put("x")
                records = a.link.claim()
        a.link.disconnect()
        a.next_closed()
        b.next_closed()
    a.link.write_now(records)
    a.end()
    assert a.link.join(Deadline(CEILING))
    assert [stream.socket.fileno() for stream in streams] == [-1] * 3


def test_connections_that_end_while_others_begin_get_no_bytes_of_each_other():
    """B17: a descriptor that was closed may be another connection's at once, and nobody still reads it."""
    wrong = []

    def come_and_go(number):
        for index in range(50):
            one, other = End("a"), End("b")
            join(one, other)
            for end in (one, other):
                for _ in range(3):
                    end.send("x", (number, index))
            other.next_record()
            one.end()  # while the other one reads and writes
            other.end()
            for end in (one, other):
                while not end.records.empty():
                    wrong.extend(own for own in end.next_record()[PAYLOADS] if own != (number, index))

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("closing", ["end", "close", "goodbye"])
def test_a_link_may_be_closed_by_its_own_reader(ends, closing):
    a, b = ends

    def listener(record):
        with b.lock:
            {"end": b.link.end, "close": b.link.disconnect, "goodbye": b.link.say_goodbye}[closing]()

    b.on_record = listener
    join(a, b)
    a.send("x")
    assert a.next_closed() is None


# Hostile peers

GARBAGE = {
    "no pickle": frame_header(7) + b"garbage",
    "a negative length": struct.pack("!i", -2),
    "a length of nothing": struct.pack("!i", 0),
    "the long form": struct.pack("!iQ", -1, 5) + b"x" * 5,
    "a class": frame_header(20) + b"\x80\x05](cos\nsystem\nXX.x"[:20].ljust(20, b"."),
    "records that are none": frame_header(len(encode([5]))) + encode([5]),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_closes_the_connection(ends, name):
    a, _ = ends
    ours, theirs = socket.socketpair()
    with theirs:
        a.attach(ours, 1 << 20)
        theirs.sendall(GARBAGE[name])
        assert isinstance(a.next_closed(), ProtocolError)
        theirs.settimeout(CEILING)
        assert theirs.recv(1) == b""
    assert a.records.empty()


def test_nothing_of_a_frame_that_was_cut_is_delivered(ends):
    """B2: nothing of a frame is delivered whose end never came."""
    a, _ = ends
    frame, buffer = encode([(BROADCAST, ("b",), "x", None, [[b"meta", [(10, True)]]])]), b"0123456789"
    data = frame_header(len(frame)) + frame + buffer
    for length in range(1, len(data)):
        ours, theirs = socket.socketpair()
        a.attach(ours)
        theirs.sendall(data[:length])
        theirs.close()
        a.next_closed()
    assert a.records.empty()


def test_more_than_max_message_is_refused_before_it_is_read(ends):
    a, _ = ends
    for data in (
        frame_header(100 << 20),
        _framed([(BROADCAST, ("b",), "x", None, [[b"meta", [(2048, True)]]])]),
    ):
        ours, theirs = socket.socketpair()
        with theirs:
            a.attach(ours, 1024)
            theirs.sendall(data)
            assert isinstance(a.next_closed(), ProtocolError)


def _framed(records):
    frame = encode(records)
    return frame_header(len(frame)) + frame


def test_a_small_max_message_is_no_limit_for_many_small_messages(ends):
    a, b = ends
    join(a, b, limit=1024)
    wide = "\N{GRINNING FACE}" * 1000  # four bytes each, counted as one
    with a.lock:
        for number in range(3000):
            a.put("x", (f"{wide}{number}",), len(wide))
        a.link.prompt()
    assert len(b.next_messages(3000)) == 3000


# Waiting for room


def test_who_waits_for_room_is_woken_when_something_is_taken(ends):
    a, b = ends
    woken = threading.Event()
    waiting = threading.Event()
    a.send("x")

    def wait():
        with a.lock:
            waiting.set()
            a.link.wait_room(CEILING)
            assert a.lock._is_owned()
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(CEILING)
    join(a, b)  # takes the lock, so the other one waits by now
    assert woken.wait(CEILING)
    thread.join(CEILING)


def test_who_waits_for_room_is_woken_by_the_end(ends):
    a, _ = ends
    waiting, woken = threading.Event(), threading.Event()

    def wait():
        with a.lock:
            waiting.set()
            a.link.wait_room(CEILING)
        woken.set()

    thread = threading.Thread(target=wait)
    began = time.monotonic()
    thread.start()
    assert waiting.wait(CEILING)
    a.end()
    assert woken.wait(CEILING)
    thread.join(CEILING)
    assert time.monotonic() - began < CEILING


def test_waiting_for_room_is_bounded(ends):
    a, _ = ends
    with a.lock:
        a.link.wait_room(0.001)
        assert a.link._waiters == []


def test_drops_are_counted_by_cause(ends):
    link = ends[0].link
    link.drop("full")
    link.drop("full", 2)
    link.drop("link-cut", 0)
    assert link.dropped == {"full": 3}


# The books


def nonzero(counters):
    return {key: count for key, count in counters.items() if count}


def test_what_became_of_what_was_received_is_counted_in_one_place(ends):
    link = ends[0].link
    link.received, link.delivered = 10, 2
    link.turn_out(UNHEARD, 3)
    link.turn_out(FORWARDED, 1)
    link.end_here("filtered", 2)
    link.end_here("filtered", 1)
    link.end_here("link-cut", 1)
    assert link.outcomes == (3, 0, 1, 4)
    assert link.ended_here == {"filtered": 3, "link-cut": 1}
    assert link.received == link.delivered + sum(link.outcomes)


def test_a_frame_that_was_not_handled_to_its_end_is_counted_as_what_is_missing_and_no_more(ends):
    link = ends[0].link
    link.received, link.delivered, link.let_go = 10, 2, 1
    link.turn_out(UNHEARD, 3)
    link.settle("malformed", 2)  # so many are held
    assert (link.outcomes, link.ended_here) == ((3, 0, 0, 2), {"malformed": 2})
    link.settle("malformed", 2)
    link.settle("stopped", 2)
    assert (link.outcomes, link.ended_here) == ((3, 0, 0, 2), {"malformed": 2})


def test_what_was_kept_and_then_dropped_was_stopped(ends):
    link = ends[0].link
    link.received = 3
    link.end_here("stopped", 1)
    link.let_go = 2
    with link._lock:
        assert nonzero(link.counters()) == {
            ("", "received"): 3,
            ("receivedAs", "dropped"): 3,
            ("endedHere", "stopped"): 3,
        }


def test_books_that_are_closed_begin_again_and_say_no_more_than_came_since(ends):
    link = ends[0].link
    with link._lock:
        link.sent, link.acknowledged, link.acknowledged_as = 5, 3, (0, 1, 0, 0)
        link.drop("full", 2)
        first = {
            ("", "sent"): 5,
            ("", "acknowledged"): 3,
            ("acknowledgedAs", "unreadable"): 1,
            ("dropped", "full"): 2,
        }
        assert nonzero(link.counters()) == nonzero(link.close_books()) == first
        assert nonzero(link.counters()) == {}
        link.sent += 1
        link.drop("full")
        link.drop("closed")
        second = {("", "sent"): 1, ("dropped", "full"): 1, ("dropped", "closed"): 1}
        assert nonzero(link.counters()) == nonzero(link.close_books()) == second
        assert nonzero(link.close_books()) == {}


def test_what_a_peer_has_not_acknowledged_at_its_end_is_lost_by_the_cause_of_the_link(joined):
    a, b = joined
    for _ in range(3):
        a.send("x")
    b.next_messages(3)
    with a.lock:
        assert a.link.flush(Deadline(CEILING))
        assert (a.link.sent, a.link.unacknowledged, a.link.lost) == (3, 3, 0)
        a.link.take_acknowledgement(1, (0, 0, 0, 1))  # of the first frame
        events = a.link.acknowledged
        assert (a.link.unacknowledged, a.link.acknowledged_as) == (3 - events, (0, 0, 0, 1))
        a.link.lost_as = "stopped"
    b.link.disconnect()
    a.next_closed()
    with a.lock:
        assert (a.link.unacknowledged, a.link.lost) == (0, 3 - events)
        assert nonzero(a.link.counters()) == nonzero(
            {
                ("", "sent"): 3,
                ("", "acknowledged"): events,
                ("acknowledgedAs", "dropped"): 1,
                ("", "lost"): 3 - events,
                ("dropped", "stopped"): 3 - events,
            }
        )


def test_outcomes_that_cannot_be_change_nothing_in_the_books(joined):
    a, b = joined
    a.send("x")
    b.next_messages(1)
    with a.lock:
        assert a.link.flush(Deadline(CEILING))
        before = a.link.counters()
        with pytest.raises(ProtocolError):
            a.link.take_acknowledgement(1, (1, 1, 0, 0))
        assert (a.link.counters(), a.link.unacknowledged) == (before, 1)
        a.link.take_acknowledgement(1, (1, 0, 0, 0))
        assert (a.link.acknowledged, a.link.acknowledged_as) == (1, (1, 0, 0, 0))


def test_what_is_about_to_be_written_is_still_queued(joined):
    a, _ = joined
    with a.lock:
        a.put("x")
        assert a.link.queued == 1
        records = a.link.claim_now()
        assert (a.link.outbox.events, a.link.queued, a.link.sent) == (0, 1, 0)
    a.link.write_now(records)
    with a.lock:
        assert (a.link.queued, a.link.sent, a.link.unacknowledged) == (0, 1, 1)


def test_what_waits_is_dropped_with_its_cause_and_what_was_taken_is_not(joined):
    a, b = joined
    with a.lock:
        a.put("x")
        records = a.link.claim_now()
        a.put("y")
        a.link.tell((PARENT, "4711"))
        a.link.drop_waiting("closed")
        assert (a.link.dropped, a.link.queued, a.link.outbox.count) == ({"closed": 1}, 1, 0)
    a.link.write_now(records)
    assert b.next_messages(1) == [("x", ())]


def test_of_a_peer_that_reads_and_acknowledges_nothing_a_link_keeps_few_numbers(ends, monkeypatch):
    """Its reader may be in a listener for days, while other threads of it take what is sent."""
    monkeypatch.setattr(outlet_module, "MOST_COUNTED", 4)
    monkeypatch.setattr(window_module, "MOST_COUNTED", 4)
    monkeypatch.setattr(window_module, "MOST_MARKS", 8)
    (end, _) = ends
    ours, theirs = socket.socketpair()
    end.attach(ours)
    for number in range(200):
        end.send("x")
        with end.lock:
            assert end.link.flush(Deadline(CEILING))
        theirs.recv(1 << 16)
        window = end.link.stream.window
        assert window.events == number + 1
        assert len(window.frames) + len(window._marks) <= 4 + 8 + 3
    with end.lock:
        end.link.take_acknowledgement(100, (0, 0, 0, 100))
        books = end.link.counters()
        assert (end.link.sent, end.link.acknowledged + end.link.unacknowledged) == (200, 200)
        assert books["acknowledgedAs", "dropped"] == 100 == end.link.acknowledged
        assert not end.link.wait_acknowledged(Deadline(0.0))
        end.link.take_acknowledgement(200, (0, 0, 0, 100))
        assert end.link.wait_acknowledged(Deadline(0.0))
    assert (end.link.acknowledged, end.link.unacknowledged) == (200, 0)
    theirs.close()
