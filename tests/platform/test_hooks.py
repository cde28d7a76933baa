"""When the library hooks into its process, and what of it a fork lets go of."""

from __future__ import annotations

import pytest

from ipevents._platform import hooks


@pytest.fixture
def calls(monkeypatch):
    """All that is asked of other modules, in order, where nothing was hooked in yet."""
    calls = []

    def note(module, name, result=None):
        def called(*args, **kwargs):
            calls.append((module.__name__.rpartition(".")[2], name, *args, *kwargs.values()))
            return result

        monkeypatch.setattr(module, name, called)

    monkeypatch.setattr(hooks, "_registered", False)
    note(hooks.os, "register_at_fork")
    for name in ("be_last", "stay", "forget"):
        note(hooks.exits, name)
    for name in ("find_body", "forget_body"):
        note(hooks.host, name)
    for name in ("install", "install_in_child", "uninstall"):
        note(hooks.os_signals, name)
    for name in ("know", "opened", "closed", "become_child", "abandon_all"):
        note(hooks.registry, name)
    note(hooks.registry, "oldest")
    note(hooks.os_signals, "are_installed", False)
    monkeypatch.setattr(hooks, "forget_main_bell", lambda: calls.append(("latches", "forget_main_bell")))
    monkeypatch.setattr(hooks, "forget_threads", lambda: calls.append(("threads", "forget_threads")))
    return calls


LOOKS = {"oldest", "are_installed"}


def changes(calls):
    return [call for call in calls if call[1] not in LOOKS]


def test_the_first_emitter_that_is_made_prepares_for_forks_and_for_the_end_of_the_process(calls):
    hooks.register("first")
    hooks.register("second")
    assert changes(calls) == [
        ("os", "register_at_fork", hooks._forked),
        ("exits", "be_last"),
        ("registry", "know", "first"),
        ("registry", "know", "second"),
    ]


def test_the_first_emitter_that_opens_sets_the_handlers_before_it_is_known_to_be_open(calls):
    hooks.opened("first")
    assert changes(calls) == [
        ("host", "find_body"),
        ("exits", "stay"),
        ("os_signals", "install"),
        ("registry", "opened", "first"),
    ]


@pytest.mark.parametrize(("oldest", "are_installed"), [("another", False), (None, True), ("another", True)])
def test_another_one_sets_none(calls, monkeypatch, oldest, are_installed):
    monkeypatch.setattr(hooks.registry, "oldest", lambda: oldest)
    monkeypatch.setattr(hooks.os_signals, "are_installed", lambda: are_installed)
    hooks.opened("second")
    assert changes(calls) == [("registry", "opened", "second")]


def test_a_child_is_known_as_one_before_a_signal_can_come(calls):
    hooks.serve_child("child")
    assert changes(calls) == [("registry", "become_child", "child"), ("os_signals", "install_in_child")]


def test_a_stop_takes_nothing_back_that_was_hooked_in(calls):
    hooks.closed("first")
    assert changes(calls) == [("registry", "closed", "first")]


def test_a_fork_lets_go_of_all_that_is_the_parents(calls):
    hooks._forked()
    assert set(changes(calls)) == {
        ("latches", "forget_main_bell"),
        ("threads", "forget_threads"),
        ("host", "forget_body"),
        ("exits", "forget"),
        ("registry", "abandon_all"),
        ("os_signals", "uninstall"),
    }
