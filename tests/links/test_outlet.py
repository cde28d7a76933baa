"""The right to write to a link, as a sending thread takes it and gives it back."""

from __future__ import annotations

import threading

from ipevents._core.link_state import Right


def test_a_claim_is_used_and_given_back(sending):
    link = sending.link
    with sending.lock:
        sending.put()
        records = link.claim()
        assert link._right is Right.CLAIMED
        assert link.attended
        assert link.is_written_by(threading.get_ident())
        assert link.claim_now() is None
    link.write_now(records)
    assert link._right is Right.FREE
    assert not link.is_written_by(threading.get_ident())
    assert not link.attended
    assert sending.peer.recv(1 << 16)


def test_there_is_nothing_to_claim_where_nothing_waits(sending):
    with sending.lock:
        assert sending.link.claim() is None
        assert sending.link._right is Right.FREE
        assert not sending.link.attended


def test_who_waits_for_room_is_called_once_when_something_leaves_the_outbox(sending):
    link, called = sending.link, []
    with sending.lock:
        link.call_on_room(lambda: called.append(link.outbox.count))
        sending.put()
        sending.put()
        assert called == []
        records = link.claim()
        assert called == [0]
    link.write_now(records)
    with sending.lock:
        sending.put()
        records = link.claim()
    link.write_now(records)
    assert called == [0]


def test_who_waits_for_room_is_called_when_the_link_ends(sending):
    link, called = sending.link, []
    with sending.lock:
        link.call_on_room(lambda: called.append(True))
        link.end()
    assert called == [True]
