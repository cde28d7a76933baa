from __future__ import annotations

import time

from ipevents._platform import signal_resend as module
from ipevents._platform.signal_resend import AGAIN_SECONDS, ATTENTION_SECONDS, Again


class Rings:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_nothing_put_nothing_taken():
    again = Again(Rings())
    assert again.next_look(0.0) is None
    assert again.take(1e9) == []


def test_what_was_put_is_taken_once_and_not_too_early():
    again = Again(Rings())
    again.put(2)
    again.put(15)
    again.put(2)
    assert again.take(time.monotonic() - 1.0) == []
    later = time.monotonic() + AGAIN_SECONDS
    assert sorted(again.take(later)) == [2, 15]
    assert again.take(later) == []


def test_only_the_first_of_a_series_rings():
    rings = Rings()
    again = Again(rings)
    again.put(2)
    now = time.monotonic()
    assert again.next_look(now) == now + AGAIN_SECONDS
    for _ in range(10):
        again.take(now + 1.0)
        again.put(2)
        again.next_look(now)
    assert rings.count == 1


def test_a_new_series_rings_again():
    rings = Rings()
    again = Again(rings)
    again.put(2)
    now = time.monotonic()
    again.next_look(now)
    again.take(now + 1.0)
    assert again.next_look(now + ATTENTION_SECONDS / 2) is not None
    assert again.next_look(now + ATTENTION_SECONDS) is None
    again.put(2)
    assert rings.count == 2


def test_what_is_put_within_the_ring_is_not_lost():
    calls = []

    def ring() -> None:  # the supervisor runs within it, sends at once, and the handler is called again
        calls.append(1)
        if len(calls) < 3:
            again.next_look(time.monotonic())
            again.take(1e9)
            again.put(2)

    again = Again(ring)
    again.put(2)
    assert len(calls) == 1
    assert again.take(1e9) == [2]


def test_at_its_end_it_hands_over_what_is_left_and_takes_nothing_more():
    rings = Rings()
    again = Again(rings)
    assert again.put(2)
    assert again.close() == [2]
    assert not again.put(15)  # who puts it has to find another way
    assert again.close() == []
    assert rings.count == 1


def test_a_signal_that_was_sent_again_counts_once(monkeypatch):
    monkeypatch.setattr(module.signal, "pthread_kill", lambda ident, number: None)
    module.pending.add(15)
    try:
        module.send(15)
        assert module.counts(15)
        module.pending.discard(15)  # its handler has done its work, before it came once more
        module.send(15)
        assert not module.counts(15)
        assert module.counts(15)  # that one is new
    finally:
        module.forget()
