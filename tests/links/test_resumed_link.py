"""A session that goes on with another connection; the other end is a socket. Whole: test_sessions.py."""

from __future__ import annotations

import gc
import socket
import threading
import tracemalloc
from multiprocessing.connection import Connection

import pytest
from ends import CEILING, End
from scripts import wait_until

from ipevents._core.books import NONE
from ipevents._core.handshake import Agreement
from ipevents._core.link_state import Right
from ipevents._core.messages import ACKNOWLEDGED, BROADCAST, PAYLOADS, RESUMED
from ipevents._core.wire import HEADER_BYTES, decode
from ipevents._exceptions import ProtocolError
from ipevents._links import outlet
from ipevents._links.outlet import Outlet
from ipevents._payload.forms import size_of
from ipevents._platform.latches import Latch
from ipevents._platform.threads import Deadline
from ipevents._transport.stream import Stream

SESSION = 7


class Peer:
    """A socket at the other end of a connection of the session."""

    def __init__(self, end, *, resumes, told=None):
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(CEILING)
        with end.lock:
            agreement = Agreement(None, SESSION, resumes)
            end.link.attach(Stream(Connection(ours.detach()), None, agreement), told)

    def read(self):
        """The records of the next frame."""
        size = int.from_bytes(self._exactly(HEADER_BYTES), "big")
        return decode(self._exactly(size))

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            data += self.socket.recv(size - len(data))
        return data

    def hang_up(self, end):
        self.socket.close()
        end.next_closed()
        assert end.link.wait_closed(Deadline(CEILING))


@pytest.fixture
def end():
    end = End("a")
    yield end
    end.end()


def take_resumed(end, number, outcomes=NONE):
    with end.lock:
        end.link.take_resumed(number, outcomes)


def events(frame):
    return [record[2] for record in frame if record[0] == BROADCAST]


def test_what_was_not_handled_is_written_again_before_anything_else(end):
    first = Peer(end, resumes=False)
    for event in "xyz":
        end.send(event)
        assert events(first.read()) == [event]
    first.hang_up(end)
    end.send("later")  # waits
    second = Peer(end, resumes=True)
    assert second.read() == [(RESUMED, 0, NONE)]
    take_resumed(end, 1)
    assert [events(second.read()) for _ in range(3)] == [["y"], ["z"], ["later"]]
    assert (end.link.sent, end.link.acknowledged, end.link.dropped) == (4, 1, {})
    with end.lock:
        end.link.take_acknowledgement(4, NONE)
    assert end.link.acknowledged == 4
    second.socket.close()


@pytest.mark.parametrize("writes", [True, False])
def test_a_thread_that_still_writes_to_the_connection_before_delays_the_session_and_loses_nothing(
    end, writes
):
    first = Peer(end, resumes=False)
    with end.lock:
        end.put("x")
        records = end.link.claim()
    first.hang_up(end)
    second = Peer(end, resumes=True)
    take_resumed(end, 0)  # the other end is faster
    assert end.link._right is Right.CLAIMED
    if writes:
        end.link.write_now(records)  # fails: the first connection has ended
    else:
        end.link.give_back()
    assert second.read() == [(RESUMED, 0, NONE)]
    assert events(second.read()) == ["x"]
    end.send("y")
    assert events(second.read()) == ["y"]
    assert (end.link.sent, end.link.dropped) == (2, {})
    second.socket.close()


def test_what_comes_while_a_thread_still_writes_to_the_connection_before_can_be_withheld_as_well(end):
    first = Peer(end, resumes=False)
    with end.lock:
        end.put("x")
        records = end.link.claim()
    first.hang_up(end)
    second = Peer(end, resumes=True)
    take_resumed(end, 0)
    assert end.link.stream is None
    end.link.withhold()
    end.link.handled_frame(10)
    handled = end.link.handled
    assert (handled.done[0], handled.is_unsaid) == (1, False)
    end.link.release()
    end.link.handled_frame(10)
    assert (handled.done[0], handled.is_unsaid) == (2, True)
    end.link.write_now(records)
    assert second.read() == [(RESUMED, 2, NONE)]
    second.socket.close()


def test_a_claim_that_was_given_back_is_written_with_the_next_connection(end):
    first = Peer(end, resumes=False)
    with end.lock:
        end.put("x")
        end.link.claim()
    first.hang_up(end)
    end.link.give_back()
    second = Peer(end, resumes=True)
    assert second.read() == [(RESUMED, 0, NONE)]
    take_resumed(end, 0)
    assert events(second.read()) == ["x"]
    second.socket.close()


def test_a_session_whose_frames_cannot_be_written_again_ends_with_the_connection(end, monkeypatch, caplog):
    first = Peer(end, resumes=False)
    end.send("x")
    first.read()
    first.hang_up(end)
    second = Peer(end, resumes=True)
    assert second.read() == [(RESUMED, 0, NONE)]
    monkeypatch.setattr(outlet, "wire_parts", raising)
    take_resumed(end, 0)
    end.next_closed()
    assert "writing to a failed" in caplog.text
    with end.lock:
        assert not end.link.can_resume(SESSION)
    wait_until(lambda: end.link.dropped == {"link-cut": 1})
    second.socket.close()


def test_no_connection_goes_on_with_a_session_that_lacks_frames(end):
    """The writer thread found that one cannot be written again, when the next connection was there."""
    first = Peer(end, resumes=False)
    end.send("x")
    first.read()
    first.hang_up(end)
    second = Peer(end, resumes=True)
    with end.lock:
        end.link.connection.window.trim(0)
    with pytest.raises(ConnectionResetError):
        take_resumed(end, 0)
    second.socket.close()
    end.next_closed()
    wait_until(lambda: end.link.dropped == {"link-cut": 1})


def raising(*args):
    raise MemoryError


def test_what_was_handled_is_said_first_and_acknowledged_as_ever(end):
    first = Peer(end, resumes=False)
    for _ in range(3):
        end.link.handled_frame(10)
    first.hang_up(end)
    second = Peer(end, resumes=True)
    assert second.read() == [(RESUMED, 3, NONE)]
    take_resumed(end, 0)
    threading.Thread(target=end.link.handled_frame, args=(10,)).start()
    while list(map(tuple, second.read())) != [(ACKNOWLEDGED, 4, NONE)]:
        continue  # the one for the first connection may have waited in the outbox
    second.socket.close()


def test_a_flush_waits_until_the_session_has_gone_on_and_all_is_handled(end, monkeypatch):
    first = Peer(end, resumes=False)
    end.send("x")
    first.hang_up(end)
    second = Peer(end, resumes=True)
    waits, done = threading.Event(), []
    wait_room = Outlet.wait_room
    monkeypatch.setattr(Outlet, "wait_room", lambda *args: (waits.set(), wait_room(*args)))

    def flush():
        with end.lock:
            done.append(end.link.flush(Deadline(CEILING)))
            done.append(end.link.wait_acknowledged(Deadline(CEILING)))

    with end.lock:
        assert end.link.outbox.count == 0
        assert end.link.owes
        assert not end.link.flush(Deadline(0.0))
        assert not end.link.wait_acknowledged(Deadline(0.0))
    thread = threading.Thread(target=flush)
    thread.start()
    assert waits.wait(CEILING)
    assert second.read() == [(RESUMED, 0, NONE)]
    assert done == []
    take_resumed(end, 0)
    assert events(second.read()) == ["x"]
    with end.lock:
        end.link.take_acknowledgement(1, NONE)
    thread.join(CEILING)
    assert done == [True, True]
    assert not end.link.owes
    second.socket.close()


def test_a_flush_ends_with_a_connection_that_ends_before_the_session_goes_on(end):
    first = Peer(end, resumes=False)
    end.send("x")
    first.hang_up(end)
    second = Peer(end, resumes=True)
    second.read()
    second.socket.close()
    with end.lock:
        end.link.flush(Deadline(CEILING))
        assert end.link.wait_acknowledged(Deadline(CEILING))
        assert end.link.connection is None
        assert end.link.owes


def test_a_session_that_is_forgotten_is_counted_once(end):
    first = Peer(end, resumes=False)
    for _ in range(3):
        end.send("x")
        first.read()
    with end.lock:
        assert end.link.flush(Deadline(CEILING)), "no thread writes to it any more"
    first.hang_up(end)
    wait_until(lambda: not end.link._dead)  # the writer thread may be about to let go of it, and counts then
    with end.lock:
        assert end.link.can_resume(SESSION)
        end.link.forget_session("disconnected")
        end.link.forget_session("disconnected")
        assert not end.link.can_resume(SESSION)
    assert (end.link.dropped, end.link.lost, end.link.sent) == ({"disconnected": 3}, 3, 3)


def test_a_session_that_is_forgotten_while_a_thread_still_writes_is_counted_by_its_cause(end):
    first = Peer(end, resumes=False)
    end.send("x")
    first.read()
    with end.lock:
        assert end.link.flush(Deadline(CEILING))
        end.put("x")
        records = end.link.claim_now()
    assert records
    first.hang_up(end)
    with end.lock:
        end.link.forget_session("disconnected")
        assert end.link.dropped == {}, "the frame that was claimed is not in yet"
    end.link.give_back()
    wait_until(lambda: end.link.dropped == {"disconnected": 2})
    assert (end.link.lost, end.link.sent) == (2, 2)


def test_a_session_that_is_forgotten_before_it_goes_on_ends_with_that_connection(end):
    """The other end connects, and never says where the session goes on."""
    first = Peer(end, resumes=False)
    for _ in range(3):
        end.send("x")
        first.read()
    first.hang_up(end)
    second = Peer(end, resumes=True)
    with end.lock:
        assert end.link.is_cut
        end.link.forget_session("disconnected")
        end.link.disconnect()
        with pytest.raises(ConnectionResetError):  # it comes too late by a moment
            end.link.take_resumed(3, NONE)
    end.next_closed()
    wait_until(lambda: not end.link._dead)
    with end.lock:
        assert not end.link.is_cut
        assert not end.link.is_interrupted
        assert not end.link.can_resume(SESSION)
    assert (end.link.dropped, end.link.lost, end.link.sent) == ({"disconnected": 3}, 3, 3)
    second.socket.close()


def test_once_the_session_goes_on_it_is_not_cut_although_its_end_was_not_told_yet(end):
    first = Peer(end, resumes=False)
    end.send("x")
    first.read()
    first.hang_up(end)
    told, goes_on = Latch(), []
    second = Peer(end, resumes=True, told=told)
    assert second.read() == [(RESUMED, 0, NONE)]
    take_resumed(end, 0)
    assert not end.link.is_cut
    assert events(second.read()) == ["x"]
    waits = threading.Thread(target=lambda: goes_on.append(end.link.wait_told()))
    waits.start()
    end.send("y")
    assert events(second.read()) == ["y"]
    assert goes_on == []
    told.set()
    waits.join(CEILING)
    assert goes_on == [True]
    second.socket.close()


def test_the_time_until_the_session_goes_on_does_not_make_a_peer_slow(end):
    """It may take long to say where, and could take nothing before."""
    first = Peer(end, resumes=False)
    end.send("x")
    first.read()
    first.hang_up(end)
    second = Peer(end, resumes=True)
    assert second.read() == [(RESUMED, 0, NONE)]
    wait_until(lambda: end.link._right is Right.FREE)
    with end.lock:
        end.link.progress = 0.0
        end.link.take_resumed(0, NONE)
        assert not end.link.is_interrupted
        assert end.link.progress > 0.0
    assert events(second.read()) == ["x"]
    second.socket.close()


def test_the_wait_until_the_end_was_told_ends_with_the_link(end):
    first = Peer(end, resumes=False)
    first.hang_up(end)
    second = Peer(end, resumes=True, told=Latch())
    goes_on = []
    waits = threading.Thread(target=lambda: goes_on.append(end.link.wait_told()))
    waits.start()
    end.end()
    waits.join(CEILING)
    assert goes_on == [False]
    second.socket.close()


@pytest.mark.parametrize("number", [4, -1, "1", None])
def test_a_peer_cannot_go_on_behind_what_was_written(end, number):
    first = Peer(end, resumes=False)
    for _ in range(3):
        end.send("x")
        first.read()
    first.hang_up(end)
    second = Peer(end, resumes=True)
    second.read()
    with pytest.raises(ProtocolError):
        take_resumed(end, number)
    second.socket.close()


def test_a_peer_goes_on_once_and_only_where_a_session_was_interrupted(end):
    first = Peer(end, resumes=False)
    with pytest.raises(ProtocolError):
        take_resumed(end, 0)
    first.hang_up(end)
    second = Peer(end, resumes=True)
    take_resumed(end, 0)
    with pytest.raises(ProtocolError):
        take_resumed(end, 0)
    second.socket.close()


def test_a_frame_that_is_only_an_acknowledgement_has_no_number(end):
    peer = Peer(end, resumes=False)
    with end.lock:
        end.link.outbox.put_acknowledgement(1, (0, 0, 0, 1))
        end.link.prompt()
    assert peer.read() == [[ACKNOWLEDGED, 1, (0, 0, 0, 1)]]
    end.send("x")
    assert len(peer.read()[0][PAYLOADS]) == 1
    assert peer is not None
    assert end.link.stream.window.last == 1
    peer.socket.close()


def test_a_frame_that_is_only_an_acknowledgement_is_not_kept_whichever_thread_writes_it(end):
    peer = Peer(end, resumes=False)
    for number in range(3):
        with end.lock:
            end.link.outbox.put_acknowledgement(number, NONE)
            records = end.link.claim_now()
        end.link.write_now(records)
        assert peer.read() == [[ACKNOWLEDGED, number, NONE]]
    assert end.link.stream.window.kept_bytes == 0
    peer.socket.close()


@pytest.mark.parametrize("payload", [(), (1,), ("text", 2.5, 10**6)], ids=["nothing", "one", "three"])
def test_what_is_kept_takes_no_more_memory_than_it_counts_for(end, payload):
    """The bound is there for the memory of a process, also where it is full of small events."""
    peer = Peer(end, resumes=False)
    count = 2000
    reading = threading.Thread(target=lambda: [peer.read() for _ in range(count)])
    reading.start()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            values = tuple([type(value)(number) for value in payload])
            end.send("x", values, size_of(values))
            with end.lock:
                assert end.link.flush(Deadline(CEILING))
        reading.join()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    window = end.link.stream.window
    assert len(window.frames) == count
    assert 0.6 < (after - before) / window.kept_bytes < 1.25
    peer.socket.close()
