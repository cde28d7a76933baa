"""Which listeners are called, in which thread, and what their ends and failures lead to."""

from __future__ import annotations

import functools
import gc
import signal
import sys
import threading

import pytest
from dispatching import CEILING, Recording, hears

from ipevents import Emitter
from ipevents._dispatch import dispatcher as module
from ipevents._dispatch import event_signal
from ipevents._dispatch.dispatcher import Dispatcher
from ipevents._platform.threads import start_thread

# Calling


def test_a_listener_gets_the_message_and_its_arguments(dispatcher):
    calls = []
    dispatcher.add("x", lambda message, *args, **kwargs: calls.append((message.event, args, kwargs)))
    assert dispatcher.emit("x", 1, 2, key="value")
    assert calls == [("x", (1, 2), {"key": "value"})]


def test_an_event_without_listeners_is_not_heard(dispatcher):
    assert not dispatcher.emit("x")
    assert not dispatcher.listens_to("x")
    assert (dispatcher.listeners("x"), dispatcher.count("x"), dispatcher.events()) == ([], 0, [])


def test_listeners_are_called_in_the_order_of_registration(dispatcher, heard):
    for number in range(50):
        dispatcher.add(
            "x", hears(heard, number), sender="me" if number % 3 == 0 else None, once=number % 7 == 0
        )
    dispatcher.emit("x")
    assert heard == list(range(50))


def test_a_function_that_is_registered_twice_is_called_twice(dispatcher, heard):
    listener = hears(heard, "x")
    dispatcher.add("x", listener)
    dispatcher.add("x", listener)
    dispatcher.emit("x")
    assert heard == ["x", "x"]
    assert dispatcher.listeners("x") == [listener, listener]


def test_a_listener_for_one_origin_hears_no_other(dispatcher, heard):
    dispatcher.add("x", hears(heard, "you"), sender="you")
    dispatcher.add("x", hears(heard, "all"))
    assert dispatcher.emit("x", origin="me")
    assert heard == ["all"]
    dispatcher.emit("x", origin="you")
    assert heard == ["all", "you", "all"]


def test_an_event_that_only_another_origin_is_heard_for_is_not_heard(dispatcher, heard):
    dispatcher.add("x", hears(heard, "you"), sender="you")
    assert not dispatcher.emit("x", origin="me")


def test_once_is_called_once(dispatcher, heard):
    dispatcher.add("x", hears(heard, "once"), once=True)
    dispatcher.emit("x")
    assert not dispatcher.emit("x")
    assert heard == ["once"]


def test_once_is_called_once_also_if_it_emits_the_same_event(dispatcher, heard):
    def listener(message):
        heard.append("once")
        dispatcher.emit("x")

    dispatcher.add("x", listener, once=True)
    dispatcher.add("x", hears(heard, "on"))
    dispatcher.emit("x")
    assert heard == ["once", "on", "on"]


def test_once_for_one_origin_waits_for_that_origin(dispatcher, heard):
    dispatcher.add("x", hears(heard, "once"), sender="you", once=True)
    dispatcher.emit("x")
    dispatcher.emit("x", origin="you")
    dispatcher.emit("x", origin="you")
    assert heard == ["once"]


def test_who_is_removed_by_another_listener_is_still_called_this_time(dispatcher, heard):
    second = hears(heard, "second")
    dispatcher.add("x", lambda message: dispatcher.remove("x", second))
    dispatcher.add("x", second)
    dispatcher.emit("x")
    dispatcher.emit("x")
    assert heard == ["second"]


def test_who_is_added_by_another_listener_is_called_next_time(dispatcher, heard):
    dispatcher.add("x", lambda message: dispatcher.add("x", hears(heard, "new")), once=True)
    dispatcher.emit("x")
    assert heard == []
    dispatcher.emit("x")
    assert heard == ["new"]


# Removing


def test_all_of_an_event_go_or_all(dispatcher, heard):
    for event in ("x", "x", "y"):
        dispatcher.add(event, hears(heard, event))
    dispatcher.remove("x", None)
    assert dispatcher.events() == ["y"]
    dispatcher.remove(None, None)
    assert dispatcher.events() == []


def test_one_listener_goes_from_all_events(dispatcher, heard):
    listener = hears(heard, "x")
    dispatcher.add("x", listener)
    dispatcher.add("y", listener)
    dispatcher.remove(None, listener)
    assert dispatcher.events() == []


def test_removing_a_stranger_changes_nothing(dispatcher, heard):
    dispatcher.add("x", hears(heard, "x"))
    dispatcher.remove("x", print)
    dispatcher.remove("y", None)
    assert dispatcher.count("x") == 1


# Waits of the library


def test_a_wait_hears_like_a_listener_in_its_turn(dispatcher, heard):
    dispatcher.add("x", hears(heard, "first"))
    wait = dispatcher.begin_wait("x", hears(heard, "wait"))
    dispatcher.add("x", hears(heard, "last"))
    assert dispatcher.emit("x")
    assert heard == ["first", "wait", "last"]
    dispatcher.end_wait(wait)
    dispatcher.emit("x")
    assert heard == ["first", "wait", "last", "first", "last"]


def test_what_only_a_wait_wants_is_wanted_although_nobody_is_shown_it(dispatcher, heard):
    wait = dispatcher.begin_wait("x", hears(heard, "wait"))
    assert dispatcher.listens_to("x")
    assert dispatcher.wanted() == ["x"]
    assert (dispatcher.events(), dispatcher.count("x"), dispatcher.listeners("x")) == ([], 0, [])
    assert dispatcher.emit("x")
    dispatcher.end_wait(wait)
    assert dispatcher.wanted() == []
    assert dispatcher.interest == [("x", True), ("x", False)]


def test_only_the_one_that_waits_can_end_a_wait(dispatcher, heard):
    listener = hears(heard, "wait")
    dispatcher.begin_wait("x", listener)
    dispatcher.remove("x", None)
    dispatcher.remove("x", listener)
    dispatcher.remove(None, None)
    dispatcher.emit("x")
    assert heard == ["wait"]


# Weak receivers


def test_a_listener_of_on_is_kept_alive(dispatcher, heard):
    dispatcher.add("x", hears(heard, "x"))
    gc.collect()
    dispatcher.emit("x")
    assert heard == ["x"]


def test_a_weak_receiver_is_collected_in_a_thread_that_holds_a_lock_that_interest_needs(heard):
    lock = threading.RLock()
    changes = []

    def on_interest(event):
        changes.append((event, lock._is_owned()))

    dispatcher = Dispatcher(on_interest=on_interest, on_failure=print, on_exit=print, on_idle=lambda: None)
    receiver = hears(heard, "weak")
    dispatcher.signal("x").connect(receiver)
    with lock:
        del receiver
        gc.collect()
    assert changes == [("x", False), ("x", True)]


# Failures


def test_a_listener_that_raises_spares_the_others(dispatcher, heard):
    error = ValueError("mine")

    def listener(message):
        raise error

    dispatcher.add("x", listener)
    dispatcher.add("x", hears(heard, "other"))
    assert dispatcher.emit("x")
    assert heard == ["other"]
    assert dispatcher.failures == [(error, "x", listener)]


def test_a_once_listener_that_raises_is_named_itself(dispatcher):
    def listener(message):
        raise ValueError

    dispatcher.add("x", listener, once=True)
    dispatcher.emit("x")
    assert dispatcher.failures[0][2] is listener


def exits(code):
    def listener(message, *args, **kwargs):
        raise SystemExit(code)

    return listener


@pytest.mark.parametrize("kwargs", [{}, {"key": 1}])
def test_after_system_exit_no_listener_is_called(dispatcher, heard, kwargs):
    dispatcher.add("x", exits(3))
    dispatcher.add("x", hears(heard, "other"))
    dispatcher.add("y", hears(heard, "y"))
    dispatcher.emit("y")
    dispatcher.emit("x", **kwargs)
    assert [exc.code for exc in dispatcher.exits] == [3]
    assert not dispatcher.emit("y")
    assert dispatcher.find("y", "me") == ()
    assert (heard, dispatcher.failures, dispatcher.kept) == (["y"], [], {})


def test_after_the_end_listeners_are_called_again(dispatcher, heard):
    dispatcher.add("x", exits(3))
    dispatcher.add("y", hears(heard, "y"))
    dispatcher.emit("x")
    dispatcher.resumes = True
    assert dispatcher.emit("y")
    assert heard == ["y"]


def test_the_end_that_is_over_while_a_listener_still_runs_holds_for_what_it_emits(dispatcher, heard):
    def listener(message):
        dispatcher.emit("ends")
        dispatcher.resumes = True  # the stop was faster
        dispatcher.emit("y")

    dispatcher.add("ends", exits(3))
    dispatcher.add("x", listener)
    dispatcher.add("x", hears(heard, "x"))
    dispatcher.add("y", hears(heard, "y"))
    dispatcher.emit("x")
    assert heard == ["x"]  # Node.emit raises in the first listener, and then this one is not called either
    dispatcher.emit("y")
    assert heard == ["x", "y"]


def test_no_listener_is_called_from_before_the_stop_is_asked_for(dispatcher):
    asked = []
    dispatcher._on_exit = lambda exc: asked.append(dispatcher.ended)
    dispatcher.add("x", exits(3))
    dispatcher.emit("x")
    assert [exc.code for exc in asked] == [3]


def test_what_was_found_while_a_listener_ended_the_process_is_not_kept(dispatcher, heard):
    dispatcher.add("y", hears(heard, "y"))
    signal = dispatcher.signal("y")
    look = signal.in_order

    def in_order(origin):
        found = look(origin)
        dispatcher.end(SystemExit())
        return found

    signal.in_order = in_order
    dispatcher.find("y", "me")
    assert dispatcher.kept == {}


def test_a_system_exit_that_ends_nothing_goes_to_who_emitted(heard):
    def on_exit(exc):
        raise exc

    dispatcher = Recording()
    dispatcher._on_exit = on_exit
    dispatcher.add("x", exits(3))
    dispatcher.add("y", hears(heard, "y"))
    with pytest.raises(SystemExit):
        dispatcher.emit("x")
    assert not dispatcher.runs_here()
    assert dispatcher.emit("y")
    assert heard == ["y"]


def test_ctrl_c_in_the_main_thread_goes_to_who_emitted(dispatcher):
    def listener(message):
        raise KeyboardInterrupt

    dispatcher.add("x", listener)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.emit("x")
    assert not dispatcher.runs_here()


class Cancelled(BaseException):
    """As asyncio's: no Exception."""


def test_any_other_exception_in_a_library_thread_is_a_failure_like_others(dispatcher, heard):
    raised = [Cancelled(), KeyboardInterrupt(), GeneratorExit()]

    def fail(exc):
        def listener(message):
            raise exc

        return listener

    for exc in raised:
        dispatcher.add("x", fail(exc))
    dispatcher.add("x", hears(heard, "other"))
    thread = threading.Thread(target=dispatcher.emit, args=("x",))
    thread.start()
    thread.join(CEILING)
    assert [failure[0] for failure in dispatcher.failures] == raised
    assert heard == ["other"]


def test_arguments_that_the_listener_does_not_take_are_its_failure(dispatcher):
    dispatcher.add("x", lambda message, only: None)
    dispatcher.emit("x", 1, 2)
    assert isinstance(dispatcher.failures[0][0], TypeError)


# One at a time


def test_one_listener_runs_at_a_time(dispatcher):
    running = []
    overlaps = []
    count = 0
    start = threading.Barrier(4)

    def listener(message):
        nonlocal count
        running.append(1)
        overlaps.append(len(running) > 1)
        for _ in range(100):  # long enough for a switch of threads
            count += 1
        running.pop()

    dispatcher.add("x", listener)

    def emit():
        start.wait(CEILING)
        for _ in range(100):
            dispatcher.emit("x")

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    assert count == 4 * 100 * 100
    assert not any(overlaps)


def test_who_was_removed_while_an_event_waited_for_its_turn_is_not_called(dispatcher, heard):
    entered, go = threading.Event(), threading.Event()

    def slow(message):
        entered.set()
        assert go.wait(CEILING)
        dispatcher.remove("y", listener)

    listener = hears(heard, "y")
    dispatcher.add("x", slow)
    dispatcher.add("y", listener)
    first = threading.Thread(target=dispatcher.emit, args=("x",))
    second = threading.Thread(target=dispatcher.emit, args=("y",))
    first.start()
    assert entered.wait(CEILING)
    second.start()
    go.set()
    first.join(CEILING)
    second.join(CEILING)
    # Either order is right, but not: removed first, called later. Here "y" cannot come before the removal.
    assert heard == []


def test_it_is_known_which_thread_runs_listeners(dispatcher):
    seen = []
    dispatcher.add("x", lambda message: seen.append(dispatcher.runs_here()))
    dispatcher.emit("x")
    assert seen == [True]
    assert not dispatcher.runs_here()


def test_neither_a_listener_nor_a_thread_of_the_library_may_wait(dispatcher):
    seen = []
    dispatcher.add("x", lambda message: seen.append(dispatcher.must_not_wait()))
    assert not dispatcher.must_not_wait()
    dispatcher.emit("x")
    assert seen == [True]
    thread = start_thread("waits", lambda: seen.append(dispatcher.must_not_wait()))
    thread.join(CEILING)
    assert seen == [True, True]
    assert not dispatcher.must_not_wait()


def test_after_a_nested_emit_the_outer_listener_still_runs(dispatcher):
    seen = []

    def listener(message):
        dispatcher.owe_idle()
        dispatcher.emit("inner")
        seen.append((dispatcher.runs_here(), dispatcher.idle))

    dispatcher.add("x", listener)
    dispatcher.add("inner", lambda message: dispatcher.owe_idle())
    dispatcher.emit("x")
    assert seen == [(True, 0)]
    assert dispatcher.idle > 0


def test_what_is_owed_is_told_when_the_last_listener_has_run(dispatcher):
    dispatcher.add("x", lambda message: dispatcher.owe_idle())
    dispatcher.add("y", lambda message: None)
    dispatcher.emit("x")
    assert dispatcher.idle == 1
    dispatcher.emit("y")
    assert dispatcher.idle == 1
    dispatcher.emit("x")
    assert dispatcher.idle == 2


def test_nothing_is_owed_where_no_listener_runs(dispatcher):
    dispatcher.owe_idle()
    dispatcher.add("x", lambda message: None)
    dispatcher.emit("x")
    assert dispatcher.idle == 0


def test_who_gathers_is_not_told(dispatcher):
    dispatcher.add("x", lambda message: dispatcher.owe_idle())
    dispatcher.enter(gathers=True)
    dispatcher.emit("x")
    dispatcher.leave()
    assert dispatcher.idle == 0


# Several emitters


@pytest.fixture
def other():
    return Recording()


def test_a_listener_of_one_emitter_is_a_listener_for_the_other(dispatcher, other):
    seen = []
    dispatcher.add("x", lambda message: seen.append(other.runs_here()))
    dispatcher.emit("x")
    assert seen == [True]
    assert not other.runs_here()


def test_one_listener_runs_at_a_time_whichever_emitter_it_belongs_to(dispatcher, other):
    entered, go = threading.Event(), threading.Event()
    ran = []

    def slow(message):
        entered.set()
        assert go.wait(CEILING)
        ran.append("slow")

    dispatcher.add("x", slow)
    other.add("x", lambda message: ran.append("other"))
    threads = [threading.Thread(target=each.emit, args=("x",)) for each in (dispatcher, other)]
    threads[0].start()
    assert entered.wait(CEILING)
    threads[1].start()
    assert not other.floor.lock.acquire(False)
    go.set()
    for thread in threads:
        thread.join(CEILING)
    assert ran == ["slow", "other"]


def test_listeners_of_two_emitters_that_emit_at_each_other_never_block(dispatcher, other):
    start = threading.Barrier(2)
    echoes = []
    for mine, its in ((dispatcher, other), (other, dispatcher)):
        mine.add("go", lambda message, its=its: its.emit("echo"))
        mine.add("echo", lambda message: echoes.append(message.event))

    def run(mine):
        start.wait(CEILING)
        for _ in range(2000):
            mine.emit("go")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # else one thread may be done before the other begins
    try:
        threads = [threading.Thread(target=run, args=(each,), daemon=True) for each in (dispatcher, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(CEILING)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)
    assert len(echoes) == 4000


@pytest.mark.parametrize("gathers", [False, True])
def test_what_is_sent_by_another_emitter_goes_when_the_outermost_listener_has_run(dispatcher, other, gathers):
    seen = []

    def listener(message):
        other.owe_idle()
        seen.append((other.idle, other.gathers()))

    dispatcher.add("x", listener)
    dispatcher.enter(gathers=gathers)
    dispatcher.emit("x")
    assert other.idle == 0
    dispatcher.leave()
    assert seen == [(0, False)]
    assert (dispatcher.idle, other.idle) == (0, 1)


# Interest


def test_interest_begins_with_the_first_and_ends_with_the_last(dispatcher, heard):
    first, second = hears(heard, 1), hears(heard, 2)
    dispatcher.add("x", first)
    dispatcher.add("x", second, sender="you")
    dispatcher.remove("x", first)
    dispatcher.remove("x", second)
    assert [wanted for _, wanted in dispatcher.interest] == [True, True, True, False]


def test_a_once_listener_that_fired_does_not_count(dispatcher, heard):
    dispatcher.add("x", hears(heard, "once"), once=True)
    dispatcher.emit("x")
    assert dispatcher.interest == [("x", True), ("x", False)]


def test_kept_receivers_are_forgotten_at_every_change(dispatcher, heard):
    dispatcher.add("x", hears(heard, 1))
    dispatcher.emit("x")
    assert "x" in dispatcher.kept
    dispatcher.add("x", hears(heard, 2))
    assert "x" not in dispatcher.kept
    dispatcher.emit("x")
    dispatcher.remove("x", None)
    assert "x" not in dispatcher.kept


# What is kept of an event


def holds_nothing(dispatcher):
    return (dispatcher._signals, dispatcher.kept) == ({}, {})


def test_an_event_that_nobody_uses_any_more_is_forgotten(dispatcher, heard):
    dispatcher.add("x", hears(heard, "x"))
    dispatcher.add("x", hears(heard, "once"), sender="me", once=True)
    dispatcher.emit("x")
    dispatcher.remove("x", None)
    dispatcher.signal("y")
    assert heard == ["x", "once"]
    assert holds_nothing(dispatcher)


def test_an_event_whose_weak_receiver_is_collected_is_forgotten(dispatcher, heard):
    receiver = hears(heard, "weak")
    dispatcher.signal("x").connect(receiver)
    dispatcher.emit("x")
    assert heard == ["weak"]
    del receiver
    gc.collect()
    assert holds_nothing(dispatcher)


def test_ten_thousand_names_that_are_used_once_leave_nothing(dispatcher, heard):
    def use(names):
        for number in names:
            dispatcher.add(f"reply-{number}", heard.append, once=True)
            dispatcher.emit(f"reply-{number}")
        count = len(heard)
        heard.clear()
        dispatcher.interest.clear()
        gc.collect()
        return count, len(gc.get_objects())

    use(range(100))
    _, before = use(range(100))
    count, after = use(range(10_000))
    assert count == 10_000
    assert after - before < 100
    assert holds_nothing(dispatcher)


def test_what_was_kept_of_an_event_goes_with_its_signal(dispatcher, heard):
    dispatcher.add("x", hears(heard, "once"), once=True)
    receivers = dispatcher.find("x", "me")  # as a reader does that has two messages of it in a frame
    receivers[0](None)
    assert dispatcher.find("x", "me") == ()
    del receivers
    gc.collect()
    assert holds_nothing(dispatcher)
    assert dispatcher.kept == {}


def test_a_signal_that_somebody_holds_is_the_signal_of_its_event(dispatcher, heard):
    signal = dispatcher.signal("x")
    listener = hears(heard, "on")
    dispatcher.add("x", listener)
    dispatcher.remove("x", listener)
    gc.collect()
    assert dispatcher.signal("x") is signal
    signal.connect(hears(heard, "connected"), weak=False)
    dispatcher.add("x", listener)
    assert dispatcher.emit("x")
    assert heard == ["connected", "on"]
    assert dispatcher.events() == ["x"]


def test_a_muted_signal_stays_so_although_nobody_holds_it(dispatcher, heard):
    dispatcher.signal("x").is_muted = True
    dispatcher.add("x", hears(heard, "x"))
    dispatcher.emit("x")
    assert heard == []
    dispatcher.signal("x").is_muted = False
    dispatcher.remove("x", None)
    assert holds_nothing(dispatcher)


def between_look_and_write(signal, *calls):
    """Have the next looks at whether it is of use followed by what another thread does just then."""
    look = signal.is_used
    left = list(calls)

    def is_used():
        used = look()
        if left:
            left.pop(0)()
        return used

    signal.is_used = is_used


def test_who_connects_while_the_last_one_leaves_is_heard(dispatcher, heard):
    first, second = hears(heard, "first"), hears(heard, "second")
    dispatcher.add("x", first)
    signal = dispatcher.signal("x")
    between_look_and_write(signal, lambda: dispatcher.add("x", second))
    dispatcher.remove("x", first)
    assert dispatcher.emit("x")
    assert heard == ["second"]
    assert dispatcher.signal("x") is signal


def test_who_has_connected_while_the_last_one_leaves_is_heard_at_once(dispatcher, heard):
    first, second = hears(heard, "first"), hears(heard, "second")
    dispatcher.add("x", first)
    signal = dispatcher.signal("x")
    connect = functools.partial(signal.connect, second)
    # The third look is that after the writing, and both looks of connect come before it.
    between_look_and_write(signal, connect, int, int, functools.partial(dispatcher.emit, "x"))
    dispatcher.remove("x", first)
    assert heard == ["second"]


def test_who_leaves_while_it_connects_leaves_nothing(dispatcher, heard):
    signal, listener = dispatcher.signal("x"), hears(heard, "x")
    between_look_and_write(signal, functools.partial(signal.disconnect, listener))
    signal.connect(listener)
    assert not dispatcher.listens_to("x")
    del signal.is_used, signal
    gc.collect()
    assert holds_nothing(dispatcher)


def test_two_threads_that_make_the_signal_of_an_event_at_once_get_the_same(dispatcher, monkeypatch):
    real, found = event_signal.EventSignal, []

    def slow(event, on_changed):
        made = real(event, on_changed)
        if not found:  # another thread is faster
            found.append(None)
            found.append(dispatcher.signal(event))
        return made

    monkeypatch.setattr(event_signal, "EventSignal", slow)
    assert dispatcher.signal("x") is found[1]


def test_a_signal_that_is_gone_is_replaced_before_its_end_was_told(dispatcher, heard):
    signal = dispatcher.signal("x")
    dispatcher._signals["x"] = module._Reference(signal, lambda reference: None)  # just before its callback
    del signal
    gc.collect()
    dispatcher.add("x", hears(heard, "x"))
    assert dispatcher.emit("x")
    dispatcher.remove("x", None)
    assert holds_nothing(dispatcher)


def test_threads_that_come_and_go_at_one_event_are_heard_while_they_are_there(dispatcher):
    failures = []

    def use(number):
        for turn in range(300):
            calls = []
            listener = hears(calls, turn)
            if turn % 3:
                dispatcher.add("x", listener)
            else:
                dispatcher.signal("x").connect(listener, weak=False)
            if not dispatcher.emit("x") or not calls:
                failures.append((number, turn))
            dispatcher.remove("x", listener)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(CEILING)
    finally:
        sys.setswitchinterval(interval)
    gc.collect()
    assert failures == []
    assert holds_nothing(dispatcher)


# Signal handlers that raise


class Alarm(BaseException):
    """What the handler below raises, at whatever place."""


@pytest.fixture
def alarms():
    """Let SIGALRM raise again and again in the main thread, ``count`` times in all, around a call."""

    def ring(number, frame):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)

    def around(count, call):
        for index in range(count):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + index % 50 * 2e-6)
                for _ in range(1000):  # one that comes within the listener is the listener's failure
                    call()
            except Alarm:
                continue

    yield around
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_that_raises_in_an_emit_leaves_the_floor_to_others(alarms):
    emitter = Emitter()
    emitter.on("x", lambda message: None)
    alarms(2000, lambda: emitter.emit("x"))
    floor = emitter._node.dispatcher.floor
    assert (floor.depth, floor.owner) == (0, 0)
    heard = []
    emitter.on("y", lambda message: heard.append("y"))
    other = threading.Thread(target=lambda: emitter.emit("y"), daemon=True)
    other.start()
    other.join(CEILING)
    assert heard == ["y"]
