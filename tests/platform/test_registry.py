from __future__ import annotations

import pytest

from ipevents._platform import registry
from ipevents._platform.latches import Latch


class Emitter:
    """What the registry knows of an emitter; notes what it is asked for."""

    def __init__(self, *, resends: bool = False) -> None:
        self.stopping, self.stopped = Latch(), Latch()
        self.exit: SystemExit | None = None
        self.asked: list[str] = []
        self._resends = resends

    def request_stop(self, seconds: float | None) -> None:
        self.asked.append("stop")
        registry.closed(self)  # as soon as that, while others are still to be asked

    def resend(self, number: int) -> bool:
        self.asked.append("resend")
        return self._resends

    def kill_children(self) -> None:
        self.asked.append("kill")

    def cannot_serve(self) -> bool:
        return False

    def finish_pools(self) -> None:
        self.asked.append("finish pools")

    def abandon(self) -> None:
        self.asked.append("abandon")


class Child:
    def __init__(self, life: Emitter) -> None:
        self.life = life

    def takes_no_signal(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def _empty(monkeypatch):
    monkeypatch.setattr(registry, "_open", [])
    monkeypatch.setattr(registry, "_child", None)
    monkeypatch.setattr(registry, "_known", type(registry._known)())


def test_the_open_ones_are_asked_each_once_also_when_they_close_meanwhile():
    emitters = [Emitter(), Emitter(), Emitter()]
    for emitter in emitters:
        registry.opened(emitter)
    assert registry.oldest() is emitters[0]
    registry.kill_children()
    registry.stop_all()
    assert [emitter.asked for emitter in emitters] == [["kill", "stop"]] * 3
    assert registry.oldest() is None
    registry.closed(emitters[0])  # once more does nothing


def test_a_signal_is_resent_by_the_first_that_can():
    emitters = [Emitter(), Emitter(resends=True), Emitter(resends=True)]
    life = Emitter()
    assert not registry.resend(2)
    registry.become_child(Child(life))
    assert not registry.resend(2)
    for emitter in emitters:
        registry.opened(emitter)
    assert registry.resend(2)
    assert [emitter.asked for emitter in (life, *emitters)] == [["resend"] * 2, ["resend"], ["resend"], []]


def test_one_stop_that_was_asked_for_is_a_stop():
    emitters = [Emitter(), Emitter()]
    for emitter in emitters:
        registry.opened(emitter)
    assert not registry.is_stopping()
    emitters[1].stopping.set()
    assert registry.is_stopping()


def test_a_forked_process_has_no_open_emitter_and_is_nobodys_child():
    emitter, closed = Emitter(), Emitter()
    for made in (emitter, closed):
        registry.know(made)
    registry.opened(emitter)
    registry.become_child(Child(emitter))
    registry.abandon_all()
    assert (emitter.asked, closed.asked) == (["abandon"], ["abandon"])
    assert (registry.oldest(), registry.child()) == (None, None)


def test_an_emitter_is_known_only_as_long_as_it_lives():
    emitter = Emitter()
    registry.know(emitter)
    assert len(registry._known) == 1
    del emitter
    assert len(registry._known) == 0
