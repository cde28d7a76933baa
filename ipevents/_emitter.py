"""``Emitter``, the public API. Its camelCase spelling is used only here and in ``_options.py``.

This file is longer than others because one class has all public names, with their signatures, contracts and
aliases. The methods check what they are given and then call the folders below, which do the work.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._ask.calls import ask, ask_async, gather
from ._ask.target import Target, retries_of
from ._child import Child
from ._core.callable_names import short_name
from ._core.messages import (
    BROADCAST,
    POOL_EVENT,
    REQUEST_ALL,
    REQUEST_ANY,
    REQUEST_GRAND_MASTER,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
    Message,
    check_event,
    check_name,
)
from ._dispatch.listeners import check_listener
from ._exceptions import InvalidEvent, InvalidListener, Unpicklable, WorkerRefused, shown
from ._expectation import Expectation
from ._lifecycle.lifecycle import Lifecycle
from ._node.snapshot import snapshot
from ._options import MAX_STOP_SECONDS, child_grace, child_hang_timeout, child_options, seconds
from ._payload.inheritance import Inheritance
from ._processes import programs

if TYPE_CHECKING:
    from blinker import Signal

    from ._ask.answer import Answer
    from ._ask.pool import Pool
    from ._processes.process import Launch
    from ._processes.programs import Program

Listener = Callable[..., Any]
F = TypeVar("F", bound=Listener)
Pid = str | int | Child

_TOP = Target(REQUEST_GRAND_MASTER)
_ALL = Target(REQUEST_ALL)
_ANY = Target(REQUEST_ANY)
MAX_THREADS = 1000  # of one answer(): more is a mistake
MAX_DEPTH = 64  # levels of a tree, so that a script that starts itself without a condition comes to an end

_numbers = itertools.count(1)
_default: Lifecycle | None = None  # that of the process's own emitter, ``ipevents.ipem``


def run_child(launch: Launch, descriptors: list[int] | None = None) -> None:
    """Be a child of another process. The target of every child's ``multiprocessing.Process``.

    ``descriptors`` are those that the arguments of its program refer to.
    """
    from ._lifecycle import child_main  # late: all other processes do without

    if _default is None:
        raise RuntimeError("ipevents was not imported as a whole")
    child_main.run(_default, launch, descriptors)


def run_pool_worker(*given: Any) -> None:
    """Be a worker of a pool. The target of each."""
    from ._ask import pool_worker  # late, as only these need it

    if _default is None:
        raise RuntimeError("ipevents was not imported as a whole")
    pool_worker.work(_default.asks, *given)


class _ThisScript:
    """The default target of ``worker()``. With a mark instead of None, a None given by mistake is noticed."""

    def __call__(self) -> None:
        """Never called. It makes the mark a callable for type checkers, like every other target."""

    def __repr__(self) -> str:
        return "<this script>"


THIS_SCRIPT = _ThisScript()


class Emitter:
    """One process's place in the tree: it listens to events with ``on``, and sends them with other methods.

    Each process has one that is made for it, ``ipevents.ipem``. Everything may be called from any thread.
    Listeners are called as ``listener(message, *args, **kwargs)``, one at a time in a process: in threads of
    the library, and for ``emit`` and ``start`` in the thread that calls these.

    A mistake in a send or an ``emit`` (an unknown child, a reserved name, an argument that cannot be pickled)
    becomes an ``error`` event if there is a listener for ``error``. Otherwise it is raised by the call; so it
    is in a listener for ``error`` itself. Arguments of a wrong type, and mistakes in all other calls, are
    always raised by the call.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        pid = str(os.getpid())
        self._is_default = number == 1
        self._life = Lifecycle(pid if number == 1 else f"{pid}.{number}", self._reply, run_child)
        if self._is_default:
            global _default
            _default = self._life
        self._node = self._life.node
        self._outgoing = self._node.outgoing  # kept here, since a send through the node would take longer
        self._events = self._node.events
        self._answering = self._life.asks.answering

    # Configuration and life

    def options(self, mapping: Mapping[str, Any] | None = None, **options: Any) -> Emitter:
        """Set options, from a mapping or keywords or both. Returns the emitter.

        Options that are not named keep their values. ``socket`` is a mapping of its own, of which likewise
        only the fields that are named change. These are the options with their defaults and units; README,
        Options, says what each does.

        - ``restart`` True (or False, ``"on-failure"``), ``delayRestart`` 1000 ms, ``maxRestarts`` None
        - ``useSocket`` True
        - ``stopTimeout`` 8000 ms, ``stopGrace`` 1000 ms, ``leaveTimeout`` None or ms,
          ``hangTimeout`` None or ms
        - ``startMethod`` ``"forkserver"`` (or ``"spawn"``)
        - ``socket``: ``socketPath`` None, ``port`` 7100, ``host`` ``"localhost"``, ``reconnect`` True,
          ``delayReconnect`` 3000 ms, ``onlyConnect`` False, ``forwarded`` False, ``resumeWithin`` 30000 ms,
          ``deadAfter`` 30000 ms, ``maxLinks`` 1024, ``authkey`` None, ``maxMessage`` 16 MiB in bytes

        A relative ``socketPath`` is made absolute by this call. Of a ``host`` all addresses are used, IPv4
        and IPv6.

        Raises OptionsError for an unknown name, a wrong value, or a change that comes too late: after
        ``start()`` only restart, delayRestart, maxRestarts, stopTimeout, stopGrace, leaveTimeout and
        hangTimeout may change, and apply to later children. Nothing is changed then.
        """
        life = self._life
        life.options = life.options.merged(mapping, options, started=life.has_started)
        return self

    def start(self) -> Emitter:
        """Take part in the tree from now on. Returns the emitter. A second call does nothing.

        A process that no other one of the tree has started connects to the socket; if there is no server, it
        listens there and is the server itself. With ``useSocket=False`` it does neither. Before this returns,
        ``ready`` and the own ``online`` are emitted in this thread. For a client that has to wait for its
        server they come later. The script should then end with ``run()``.

        Blocks until the connection is made, until a stop that is going on has ended, and while another thread
        runs a listener (see ``emit``). A ``stop()`` from any thread, listener or signal handler breaks it
        off: it returns, and the emitter is stopped.

        Raises AddressInUse (another kind of program has the port), AuthenticationFailed, LinkError, or
        OSError; then everything is as it was before the call.
        """
        self._life.start()
        return self

    def stop(self, timeout: float | None = None) -> None:
        """Stop the children, send what is queued, and close the links: end this process's part of the tree.

        The property ``stopping`` becomes True, the event ``stopping`` is emitted, and waits for events end
        with Closed. The program of a child that has not ended after the option ``stopGrace`` gets a SIGTERM
        in its main thread, which raises SystemExit there. After ``timeout`` seconds (None: the option
        ``stopTimeout``) the children that are left are killed.

        Blocks until all has ended, the listeners that run included. In a listener or a signal handler it only
        asks for the stop and returns. A ``start()`` in another thread is broken off and returns.

        May be called several times, from any thread. ``start()`` may follow, except in a child; the listeners
        are still registered. Raises TypeError or ValueError for a wrong timeout.
        """
        self._life.stop(seconds(timeout, MAX_STOP_SECONDS))

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for. ``start()`` sets it back.

        In a child it is true as soon as the parent begins its stop, also in a listener that was called before
        that and in what is handled before the stop begins here.
        """
        return self._life.stopping.is_set() or self._life.stop_is_announced

    def run(self, timeout: float | None = None) -> bool:
        """Start, then wait in this thread until the emitter is stopped. Meant as the last line of a script.

        Returns True when it is stopped, at once if that has happened already. Returns False after ``timeout``
        seconds (None: no limit); then everything still runs.

        Ctrl-C and SIGTERM stop the tree, and then SystemExit(130) or SystemExit(143) is raised here. So is a
        SystemExit that a listener has raised. Other errors as for ``start``.
        """
        life = self._life
        given = seconds(timeout)
        if not life.stopping.is_set():
            life.start(again=False)  # a stop may come just now
        try:
            done = life.wait_stopped(given)
        except KeyboardInterrupt:
            life.stop(None)
            raise SystemExit(130) from None
        except SystemExit:
            if not life.is_child:
                life.stop(None)
            raise
        if done and life.exit is not None and not life.is_child:
            raise life.exit
        return done

    def __enter__(self) -> Emitter:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Listening

    @overload
    def on(self, event: str, listener: Listener, *, sender: Pid | None = None) -> Emitter: ...
    @overload
    def on(self, event: str, listener: None = None, *, sender: Pid | None = None) -> Callable[[F], F]: ...
    def on(self, event: str, listener: Listener | None = None, *, sender: Pid | None = None) -> Any:
        """Call ``listener(message, *args, **kwargs)`` at every event with this name. Returns the emitter.

        Without a listener it is a decorator, which returns the function unchanged. Listeners are called in
        the order of their registration; one that is registered twice is called twice. With ``sender``, a pid
        or a Child, only events of this origin count.

        Does not block. Raises InvalidEvent; InvalidListener if the listener cannot be called with a message;
        TypeError or ValueError for a ``sender`` that is no pid.
        """
        return self._register(event, listener, sender, once=False)

    @overload
    def once(self, event: str, listener: Listener, *, sender: Pid | None = None) -> Emitter: ...
    @overload
    def once(self, event: str, listener: None = None, *, sender: Pid | None = None) -> Callable[[F], F]: ...
    def once(self, event: str, listener: Listener | None = None, *, sender: Pid | None = None) -> Any:
        """Call the listener at the next such event only. Otherwise as ``on``."""
        return self._register(event, listener, sender, once=True)

    def off(self, event: str | None = None, listener: Listener | None = None) -> Emitter:
        """Remove the newest registration of a listener, all of an event, or all. Returns the emitter.

        ``off(event, listener)``, ``off(event)`` and ``off()`` do this, in that order. A listener that is not
        registered changes nothing. Raises InvalidEvent; InvalidListener for what is not callable.
        """
        name = None if event is None else check_name(event)
        if listener is not None:
            _check_callable("off()", listener)
        self._node.dispatcher.remove(name, listener)
        return self

    def removeAllListeners(self, event: str | None = None) -> Emitter:
        """Remove all listeners of an event, or of all events. Returns the emitter.

        ``waitFor`` and ``expecting`` are no listeners and go on waiting.
        """
        return self.off(event)

    def addListener(self, event: str, listener: Listener) -> Emitter:
        """Do the same as ``on(event, listener)``."""
        _check_callable("addListener()", listener)
        return self.on(event, listener)

    def removeListener(self, event: str, listener: Listener) -> Emitter:
        """Do the same as ``off(event, listener)``."""
        _check_callable("removeListener()", listener)
        return self.off(event, listener)

    def listeners(self, event: str) -> list[Listener]:
        """Return the listeners of an event in the order in which they are called, without waits."""
        return self._node.dispatcher.listeners(check_name(event))

    def listenerCount(self, event: str) -> int:
        """Return how many listeners an event has, without waits."""
        return self._node.dispatcher.count(check_name(event))

    def eventNames(self) -> list[str]:
        """Return the names of the events that have listeners."""
        return self._node.dispatcher.events()

    def signal(self, event: str) -> Signal:
        """Return the ``blinker.Signal`` of an event. What is connected to it is called like a listener.

        It is the same object as long as something is connected to it or refers to it. Raises InvalidEvent.
        """
        return self._node.dispatcher.signal(check_name(event))

    def _register(self, event: str, listener: Listener | None, sender: Pid | None, *, once: bool) -> Any:
        """Do what ``on`` and ``once`` have in common."""
        event = check_name(event)
        origin = None if sender is None else _pid(sender)
        if origin == "":
            raise ValueError("sender is the pid of an origin, and no process has the pid ''")
        if listener is None:

            def decorate(function: F) -> F:
                self._node.dispatcher.add(event, function, sender=origin, once=once)
                return function

            return decorate
        self._node.dispatcher.add(event, listener, sender=origin, once=once)
        return self

    def waitFor(
        self,
        event: str,
        timeout: float | None = None,
        where: Listener | None = None,
        *,
        child: Child | None = None,
    ) -> Message:
        """Block until the next event with this name comes, and return its message.

        With ``where``, only an event for which ``where(message, *args, **kwargs)`` returns true counts. It
        runs like a listener; what it raises is raised here. With ``child``, the wait also ends when that
        child has ended for good, with ChildEnded, whose cause is the last error about it.

        Waits for ``timeout`` seconds (None: no limit), then raises TimeoutError. Raises WouldDeadlock in a
        listener, Closed when the emitter is stopped meanwhile, NotStarted, InvalidEvent, InvalidListener for
        a wrong ``where``, TypeError or ValueError for a wrong timeout.
        """
        with self.expecting(event, timeout, where, child=child) as expectation:
            pass
        return expectation.message

    def expecting(
        self,
        event: str,
        timeout: float | None = None,
        where: Listener | None = None,
        *,
        child: Child | None = None,
    ) -> Expectation:
        """Return a context manager that waits for an event at the end of its block.

        It listens from before the block runs, so an event that the block causes is not missed::

            with ipem.expecting("done") as got:
                ipem.sendToChilds("work")
            print(got.message.args)

        Arguments and errors are those of ``waitFor``.
        """
        name, given = check_name(event), seconds(timeout)
        if where is not None:
            check_listener(where, "where")
        if child is not None and type(child) is not Child:
            raise TypeError(f"child is what worker() or fork() has returned, not {shown(child)}")
        return Expectation(self._life, name, given, where, child)

    # Sending

    def emit(self, event: str, /, *args: Any, **kwargs: Any) -> bool:
        """Call the listeners of this process for an event, in this thread. Returns whether there were any.

        Blocks while another thread runs a listener, because one at a time runs in a process. So the caller
        must hold no lock that a listener may want. In a listener it does not block. A SystemExit of a
        listener is raised here only if a listener has called this, or if the emitter has not started anything
        that could be stopped.

        Mistakes are InvalidEvent and ReservedEvent, see the class.
        """
        name = self._events.checked(event, sending=False)
        return name is not None and self._events.emit(name, args, kwargs)

    def bubble(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Call the listeners here, then send to every process above this one. Returns the emitter.

        Blocks as ``emit`` does, then as ``sendToParents``. If the arguments cannot be sent, the listeners
        here have been called all the same. Errors as for ``sendToParents``.
        """
        name = self._events.checked(event, sending=True)
        if name is not None:
            if self._node.may_send():
                self._events.emit(name, args, kwargs)
            self._outgoing.send(TO_PARENTS, name, args, kwargs)
        return self

    def sendToParents(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Send an event to every process above this one, up to the grand master.

        This holds for all sends. They return the emitter as soon as the arguments are pickled and the event
        is in the outbox of each link that it goes to; nothing is known then of its arrival. They block while
        an outbox is full (64 MiB or 100,000 records) and the peer still takes something; README, Flow, has
        the rules. In a listener they never block, and OutboxFull is the error instead. Mistakes are
        NotStarted, Closed, Unpicklable, MessageTooLarge, InvalidEvent and ReservedEvent, see the class.
        """
        self._outgoing.send(TO_PARENTS, event, args, kwargs)
        return self

    def sendToChilds(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Send an event to every process below this one that listens to it. See ``sendToParents``."""
        self._outgoing.send(TO_CHILDS, event, args, kwargs)
        return self

    def sendToSiblings(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Send an event to the parent's other children that listen to it. See ``sendToParents``."""
        self._outgoing.send(TO_SIBLINGS, event, args, kwargs)
        return self

    def sendToGrandMaster(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Send an event to the process at the very top. In that process it is the same as ``emit``.

        Errors as for ``sendToParents``, and NotConnected while the server is away.
        """
        self._outgoing.send(TO_GRAND_MASTER, event, args, kwargs)
        return self

    def broadcast(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Send an event to every other process of the tree; downwards only where one listens to it.

        See ``sendToParents``.
        """
        self._outgoing.send(BROADCAST, event, args, kwargs)
        return self

    def sendToChild(self, pid: Pid, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Send an event to one direct child or client. Before its ``online``, the event waits for that.

        A pid means that one process. A Child means the process that runs now, or the next one, as for
        ``Child.send``. Errors as for ``sendToParents``, and UnknownProcess; TypeError for what is no pid.
        """
        if type(pid) is not str:
            if isinstance(pid, Child) and pid._life is self._life:
                pid.send(event, *args, **kwargs)
                return self
            pid = _pid(pid)
        self._outgoing.send_child(pid, event, args, kwargs)
        return self

    def sendTo(self, pids: Pid | Iterable[Pid], event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Send an event along a route of pids: the target first and the next hop last.

        The own pid may follow at the end. ``message.pids`` has this order, so ``sendTo(message.pids, ...)``
        is a reply. With the own pid alone it is ``emit``.

        Errors as for ``sendToParents``, and UnknownProcess if the next hop is unknown, NotConnected if it is
        a server that is away, TypeError for what is no pid. If a later hop is unknown, there is an ``error``
        event with Undeliverable.
        """
        kind = type(pids)
        if kind is tuple or kind is list:
            route = tuple([_pid(pid) for pid in pids])  # type: ignore[union-attr]  # mypy does not follow kind
        else:
            route = _route(pids)
        self._outgoing.send_route(route, event, args, kwargs)
        return self

    def _reply(
        self, pids: tuple[str, ...], event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Send what ``Message.reply`` is given.

        A method of the emitter, because the default emitter is pickled by name: so a message that was sent to
        another process replies through the emitter of that process.
        """
        self._outgoing.send_route(pids, event, args, kwargs)

    # Requests

    @overload
    def answer(self, event: str, function: Listener, *, threads: int = 0) -> Emitter: ...
    @overload
    def answer(self, event: str, function: None = None, *, threads: int = 0) -> Callable[[F], F]: ...
    def answer(self, event: str, function: Listener | None = None, *, threads: int = 0) -> Any:
        """Answer requests of this event by what ``function(message, *args, **kwargs)`` returns.

        Without a function it is a decorator, which returns the function unchanged. What the function returns
        is sent to the process that asked, None as well, and so is the exception that it raises. A SystemExit
        ends this process, as in a listener. Only one function answers an event in a process; ``unanswer``
        removes it. A process that answers stays, as one that listens does. Call this before the process is
        online: until then requests wait, and from then on they find no answerer.

        With ``threads=0``, the default, the function runs as a listener does: one at a time in a process, in
        order with listeners, in a thread of the library. It must not wait for another answer. With
        ``threads=n``, at most 1000, it runs in up to n threads of its own, which are started when they are
        needed. There it may wait; answers overtake each other.

        Does not block. Returns the emitter. Raises ValueError for an event that is answered here already;
        InvalidEvent, ReservedEvent; InvalidListener for what cannot be called with a message; TypeError or
        ValueError for a wrong ``threads``.
        """
        if callable(event):
            raise InvalidEvent(
                f'an answer needs the name of an event: write @ipem.answer("name") before {shown(event)}'
            )
        name = check_event(event, sending=True)
        if type(threads) is not int:
            raise TypeError(f"threads is a number from 0 to {MAX_THREADS}, not {shown(threads)}")
        if not 0 <= threads <= MAX_THREADS:
            raise ValueError(f"threads is from 0 to {MAX_THREADS}, not {threads}")
        if function is None:

            def decorate(decorated: F) -> F:
                check_listener(decorated, "an answering function")
                self._answering.add(name, decorated, threads)
                return decorated

            return decorate
        check_listener(function, "an answering function")
        self._answering.add(name, function, threads)
        return self

    def unanswer(self, event: str) -> Emitter:
        """Answer requests of this event no more. Returns the emitter.

        What waits for a thread is answered by NoAnswerer; what runs goes on, and its answer is sent. Does
        nothing where the event is not answered here. Does not block. Raises InvalidEvent.
        """
        self._answering.remove(check_name(event))
        return self

    def request(
        self,
        target: Pid | Iterable[Pid],
        event: str,
        /,
        *args: Any,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Ask one process, wait for its answer, and return the value; or raise what it raised.

        ``target`` is a Child, the pid of a neighbour, or a route in the order of ``message.pids``. A Child
        means the process that runs now, or the next one; while that starts, the request waits. The own pid is
        possible: then a function without threads runs in this thread, whatever the timeout. All keyword
        arguments but ``timeout`` are the answering function's.

        Blocks until the answer is there, at most ``timeout`` seconds (None: no limit), and for room in an
        outbox. It ends without any limit when nobody can answer any more. It may be called in any thread but
        those that must not wait, see WouldDeadlock below. An exception of a signal handler, such as Ctrl-C,
        gives the request up. Raises

        - the exception of the answering function, whose cause is a RemoteError with its traceback; the
          RemoteError itself where the exception cannot be rebuilt here;
        - NoAnswerer, at once, where no such function is registered there, or no such process is known;
        - AnswererLost when the process ends; its ``begun`` says whether it had begun;
        - RequestTimeout; what has not begun there never does, and what runs sees ``cancelled()``;
        - RequestError itself where a process on the way, or the answerer, refuses the request or its answer;
        - Closed when this emitter stops, at the call or later;
        - NotStarted, Unpicklable, MessageTooLarge, InvalidEvent, ReservedEvent; OutboxFull where 100,000
          requests are open over that link; TypeError or ValueError for a wrong target or timeout;
        - WouldDeadlock in a listener, in an answering function without threads, and in a callback of an
          Answer.

        These errors are never ``error`` events.
        """
        return ask(self._life.asks, self._target(target), event, args, kwargs, seconds(timeout))

    def requestAsync(
        self,
        target: Pid | Iterable[Pid],
        event: str,
        /,
        *args: Any,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Answer:
        """Ask one process, and return an Answer at once: a ``concurrent.futures.Future``.

        Arguments as for ``request``; after ``timeout`` seconds (None: no limit) the Answer has a
        RequestTimeout. What ``request`` raises in place of an answer, the Answer has. What is wrong with the
        call is raised here; OutboxFull where 100,000 requests are open over that link, and in a listener
        where the outbox is full. Blocks only while an outbox is full, and never in a listener; to the own
        process it calls a function without threads before it returns.
        """
        return ask_async(self._life.asks, self._target(target), event, args, kwargs, seconds(timeout))

    def requestGrandMaster(
        self, event: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Ask the process at the very top, and return its answer. Blocks and raises as ``request`` does.

        At the top itself, this process is asked.
        """
        return ask(self._life.asks, _TOP, event, args, kwargs, seconds(timeout))

    def requestGrandMasterAsync(
        self, event: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Answer:
        """Ask the process at the very top, and return an Answer. Blocks and raises as ``requestAsync`` does.

        At the top itself, this process is asked.
        """
        return ask_async(self._life.asks, _TOP, event, args, kwargs, seconds(timeout))

    def requestAll(
        self, event: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Iterator[tuple[str, Any]]:
        """Ask every other process of the tree that answers this event.

        Asked are the processes that are known to answer at this moment. Returns an iterator over
        ``(pid, value)`` in the order in which the answers come. In place of a value there is the exception
        that was raised there, or AnswererLost for a process that has ended, and for all that were below it
        together. It ends when all have answered, and is empty if nobody answers.

        The call sends, and blocks only while an outbox is full. The iterator blocks until the next answer is
        there, for at most ``timeout`` seconds since the call in all (None: no limit), then raises
        RequestTimeout once, and ends. It is for one thread at a time. To leave it early, or to call its
        ``close()``, gives up the rest: what has not begun never does. This raises as ``requestAsync``; the
        iterator raises Closed when this emitter stops, and WouldDeadlock in a listener where it would wait.
        """
        return gather(self._life.asks, _ALL, event, args, kwargs, seconds(timeout))

    def requestAny(
        self, event: str, /, *args: Any, timeout: float | None = None, retry: int = 0, **kwargs: Any
    ) -> Any:
        """Ask any one process that answers this event, and return its answer.

        The one with the least to do for what it can do at once gets the request, among the processes below
        this one; if none of these answers, among all others of the tree. This process itself answers only if
        no other does. While all have enough to do, the request waits for the first that has room. A child
        that is starting, or about to be started again, is waited for where nobody else answers; one that runs
        and does not say ``online``, for 10 s.

        A process that dies before it has begun costs nothing: another one gets the request. If it may have
        begun, another one gets it at most ``retry`` times, so it may be carried out more than once; not the
        child that was lost with it, unless it is the only one. ``attempts`` of the errors below, and of an
        Answer, says how often it was given out, as far as that is known here.

        Blocks for at most ``timeout`` seconds (None: no limit) and raises as ``request`` does: NoAnswerer if
        no process answers; AnswererLost for the last one that was lost; RequestError too where 100,000
        requests, or 64 MiB, wait already in another process. ValueError or TypeError for a wrong ``retry``.
        """
        return ask(self._life.asks, _any_one(retry), event, args, kwargs, seconds(timeout))

    def requestAnyAsync(
        self, event: str, /, *args: Any, timeout: float | None = None, retry: int = 0, **kwargs: Any
    ) -> Answer:
        """Ask any one process as ``requestAny`` does, and return an Answer at once.

        Blocks only where 100,000 requests, or 64 MiB, wait already here; in a listener that is OutboxFull.
        Otherwise it raises as ``requestAsync``.
        """
        return ask_async(self._life.asks, _any_one(retry), event, args, kwargs, seconds(timeout))

    def mapAny(
        self,
        event: str,
        iterable: Iterable[Any],
        *,
        ordered: bool = True,
        buffersize: int | None = None,
        retry: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Any]:
        """Ask any one process with each item, as ``requestAny(event, item)``, and return an iterator.

        It gives the answers in the order of the items, or as they come with ``ordered=False``. The input is
        read, by this call and by the iterator, only as far ahead as those that answer can take soon; so it
        may be endless, and what is not iterated over is not asked. ``buffersize`` is the most items of which
        the answers were not taken yet; None for no such limit.

        What ``requestAny`` would raise for an item is raised in place of its answer, and the iterator can go
        on after it. To leave it, or its ``close()``, gives up the rest: what has not begun never does. It
        blocks until the next answer is there, for at most ``timeout`` seconds since the call in all (None: no
        limit), then raises RequestTimeout, and ends. The call raises as ``requestAnyAsync``; TypeError and
        ValueError for wrong arguments; the iterator raises WouldDeadlock in a listener where it would wait.
        """
        from ._ask.mapping import map_any, number_of_items  # late, as it is rarely used

        return map_any(
            self._life.asks,
            check_event(event, sending=True),
            iterable,
            ordered=bool(ordered),
            buffersize=number_of_items(buffersize, "buffersize"),
            timeout=seconds(timeout),
            retries=retries_of(retry),
        )

    def answerersBelow(self, event: str) -> int:
        """Return how many processes below this one answer requests of an event: children, clients, theirs.

        This one is not counted, nor one that is just starting. Does not block. Raises InvalidEvent.
        """
        name = check_name(event)
        with self._node.lock:
            return self._node.router.answerers_below(name)

    def cancelled(self) -> bool:
        """Return whether nobody waits any more for the answer that this thread works on.

        That is so after a timeout, a ``cancel()``, or a stop or an end of whoever has asked. A function that
        takes long should look now and then, and return. At a stop of this process it is ``stopping`` that
        becomes true. Does not block. False in code that answers nothing, and in threads that an answering
        function has started itself.
        """
        return self._answering.is_cancelled()

    def _target(self, target: Pid | Iterable[Pid]) -> Target:
        """Return who is meant by a Child, a pid, or a route. Raises TypeError."""
        if isinstance(target, Child) and target._life is self._life:
            return target._target
        kind = type(target)
        if kind is tuple or kind is list:
            route = tuple([_pid(pid) for pid in target])  # type: ignore[union-attr]  # as in sendTo
        else:
            route = _route(target, "a request")
        if not route:
            raise ValueError("a request needs at least one pid, the target first: message.pids is the reply")
        return Target(route=route)

    # Processes

    def worker(
        self,
        target: Callable[..., Any] = THIS_SCRIPT,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        restart: bool | str | None = None,
        delayRestart: float | None = None,
        stopGrace: float | None = None,
        hangTimeout: float | None = None,
    ) -> Child:
        """Start a child process that runs ``target(*args, **kwargs)``, or without a target this script again.

        The target is pickled by this call, by value if necessary: lambdas, closures and functions of the
        script are possible. multiprocessing's locks, queues, connections and the like are passed on as
        ``Process(args=...)`` does. ``name`` is for texts; None takes that of the target. ``restart``,
        ``delayRestart``, ``stopGrace`` and ``hangTimeout`` (the last three in milliseconds) are the options
        of these names for this child alone; None takes the option, and 0 as ``hangTimeout`` is no limit.

        Returns the Child. Blocks until the process is started, some milliseconds, and not until it is online.

        Raises Unpicklable; OptionsError; TypeError for arguments of a wrong type; Closed; OSError if the
        system can start no more processes. Raises WorkerRefused without a target if this process is a worker
        or there is no script, and if no process can be started here (a daemonic process, no interpreter, no
        working directory).
        """
        arguments, inherited = programs.arguments(args), Inheritance()
        if target is None:
            raise TypeError(
                "the target of a worker is a function, not None; "
                "worker() without arguments runs this script again"
            )
        if target is THIS_SCRIPT and self._life.is_worker:
            raise WorkerRefused(
                "worker() without a target was called in a worker, which runs the same script: "
                "call it only if ipem.isMaster is true, or pass a function"
            )
        if target is THIS_SCRIPT:
            if arguments or kwargs:
                raise TypeError(
                    "args and kwargs are for a target; worker() without one runs this script again"
                )
            program = programs.this_script()
        else:
            program = programs.function(target, arguments, kwargs, inherited)
        name = programs.name(name, None if target is THIS_SCRIPT else short_name(target))
        return self._begin(program, True, name, restart, delayRestart, stopGrace, hangTimeout, inherited)

    def fork(
        self,
        path: str | os.PathLike[str],
        args: Iterable[Any] = (),
        *,
        name: str | None = None,
        restart: bool | str | None = None,
        delayRestart: float | None = None,
        stopGrace: float | None = None,
        hangTimeout: float | None = None,
    ) -> Child:
        """Start a child process that runs another script, with ``sys.argv = [path, *args]``.

        Each argument is converted to a str. In the child ``isMaster`` is true. Everything else is as for
        ``worker``. Raises FileNotFoundError if there is no such script, or the directory has no
        ``__main__.py``.
        """
        program = programs.other_script(path, programs.arguments(args))
        name = programs.name(name, os.path.basename(program.argv[0]))
        return self._begin(program, False, name, restart, delayRestart, stopGrace, hangTimeout)

    def pool(
        self,
        workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        name: str | None = None,
        maxJobs: int | None = None,
        maxMemory: int | None = None,
    ) -> Pool:
        """Start worker processes that call functions, and return them as a ``concurrent.futures.Executor``.

        ``workers`` is how many; None for one for each processor that this process may use. Each first calls
        ``initializer(*initargs)``, then does one job after the other in its main thread. After ``maxJobs``
        jobs, or when it takes more than ``maxMemory`` bytes after one, it is replaced by a new one; None for
        no limit. ``name`` is for texts: the workers are ``name-1``, ``name-2`` and so on.

        The workers are children of this process, which nobody is told of by ``online`` and ``offline``. They
        end with ``shutdown()``, at the end of a ``with`` block, with the last reference to the pool, and when
        this emitter stops. An initializer that fails in three starts in a row ends the pool: all jobs have
        PoolFailed.

        Opens only what children need, never the socket for clients. Blocks as ``worker``, for each. Raises as
        ``worker``; TypeError and ValueError for a wrong number.
        """
        # Late: a program without pools does without.
        from ._ask.pool import MOST_WORKERS, Pool
        from ._lifecycle.staff import PoolStaff

        count = _count(workers, "workers", MOST_WORKERS) or _processors()
        max_jobs, max_memory = _count(maxJobs, "maxJobs"), _count(maxMemory, "maxMemory")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer is a function, not {shown(initializer)}")
        arguments, inherited = programs.arguments(initargs), Inheritance()
        event = POOL_EVENT + os.urandom(8).hex()
        given = (event, initializer, arguments, max_jobs, max_memory)
        program = programs.function(run_pool_worker, given, None, inherited, is_pools=True)
        staff = PoolStaff(self._life, program, inherited)
        self._life.open()
        name = programs.name(name, "pool")
        has_initializer = initializer is not None
        pool = Pool(self._life.asks, staff, event, count, name, has_initializer=has_initializer)
        self._life.pools.add(pool)
        self._life.had_pool = True
        return pool

    def _begin(
        self,
        program: Program,
        is_worker: bool,
        name: str,
        restart: bool | str | None,
        delay: float | None,
        grace: float | None,
        hang: float | None,
        inherited: Inheritance | None = None,
    ) -> Child:
        """Do what ``worker`` and ``fork`` have in common. ``delay``, ``grace``, ``hang`` are milliseconds."""
        # Late, as all that is for children: with the sockets it took a sixth of the time of the import.
        from ._core.restarts import RestartPolicy
        from ._processes.child_state import ChildState

        life = self._life
        options = life.options
        policy, seconds = child_options(restart, delay, options)
        if life.depth >= MAX_DEPTH:
            raise WorkerRefused(
                f"a tree has at most {MAX_DEPTH} levels; does the script start itself endlessly?"
            )
        child = ChildState(
            name,
            program,
            is_worker,
            RestartPolicy(policy, seconds, options.max_restarts),
            restart is True,
            options.start_method,
            inherited,
            stop_grace=child_grace(grace, options),
            leave_timeout=options.leave_timeout,
            hang_timeout=child_hang_timeout(hang, options),
        )
        handle = child.handle = Child(life, child)
        life.add_child(child)
        return handle

    # What is known

    @property
    def pid(self) -> str:
        """This process's name in the tree: its OS pid; of a TCP client, its address as the server sees it."""
        return self._node.router.pid

    @property
    def parentPid(self) -> str | None:
        """The pid of the parent or server; None while there is no connection to it."""
        return self._node.router.parent_pid()

    @property
    def childsOnline(self) -> int:
        """How many children run and clients are connected, without children that wait for a restart."""
        return len(self._node.router.child_pids())

    @property
    def isGrandMaster(self) -> bool:
        """Whether this process is the top of the tree. False before ``start()``."""
        return self._life.is_grand_master

    @property
    def isMaster(self) -> bool:
        """Whether this is not a worker: a script started by hand or by ``fork``."""
        return not self._life.is_worker

    @property
    def isWorker(self) -> bool:
        """Whether ``worker()`` started this process."""
        return self._life.is_worker

    @property
    def netmap(self) -> dict[str, Any]:
        """The tree below this process as nested dicts: each pid with a dict of what is below it."""
        with self._node.lock:
            return self._node.router.netmap.as_dict()

    def printNetmap(self) -> None:
        """Print this process's pid and the tree below it, one pid in each line."""
        print("\n".join([self.pid, *_indented(self.netmap, 1)]))

    def stats(self) -> dict[str, Any]:
        """Return counters since the start as plain dicts: of this process and, under ``links``, of each peer.

        They account for every event: README, Books, has what each means. ``refused`` has the handshakes that
        failed, by cause.
        """
        supervisor = self._life.supervisor
        if supervisor is None:
            return snapshot(self._node, 0, lambda: 0)
        children = supervisor.children
        return snapshot(self._node, children.restarts, children.waiting)

    def __repr__(self) -> str:
        life = self._life
        return (
            f"<Emitter {self.pid} {self._node.stage.name.lower()}, parent {self.parentPid}, "
            f"{self.childsOnline} children{', worker' if life.is_worker else ''}>"
        )

    def __reduce__(self) -> str:
        """Pickle the default emitter by its name, so that in another process it is the emitter there.

        Raises Unpicklable for any other emitter.
        """
        if not self._is_default:
            raise Unpicklable(f"{self!r} belongs to this process; only ipevents.ipem can be sent")
        return "ipem"


# The module in which pickle finds the default emitter, and in which users see the class.
Emitter.__module__ = __package__


def _pid(value: object) -> str:
    """Return a pid as a plain str. Raises TypeError for what is no pid."""
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, too: headers hold plain values only
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)  # of a member of an enum its number, not its name
    if isinstance(value, Child):
        return value.pid
    raise TypeError(f"a pid is a str, an int or a Child, not {shown(value)}")


def _route(pids: object, what: str = "sendTo()") -> tuple[str, ...]:
    """Return the route that was given to ``sendTo``, or to ``what``, as neither a tuple nor a list.

    Raises TypeError for what is no route. Mappings and sets have no order, or one of their own.
    """
    if isinstance(pids, (str, int, Child)):
        return (_pid(pids),)
    if isinstance(pids, Iterable) and not isinstance(pids, (bytes, bytearray, Mapping, Set)):
        return tuple([_pid(pid) for pid in pids])
    raise TypeError(f"{what} takes a pid, or pids in the order of message.pids, not {shown(pids)}")


def _any_one(retry: object) -> Target:
    """Return who is meant by a request to any. Raises TypeError and ValueError for a wrong ``retry``."""
    if retry == 0 and type(retry) is int:
        return _ANY
    return Target(REQUEST_ANY, retries=retries_of(retry))


def _count(value: object, name: str, most: int | None = None) -> int | None:
    """Return a positive number as it was given, or None. Raises TypeError and ValueError for what is none."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a number, an int, not {shown(value)}")
    if value < 1 or (most is not None and value > most):
        limit = "at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} is {limit}, not {shown(value)}")
    return int(value)


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _check_callable(what: str, listener: object) -> None:
    """Raise InvalidListener if what was given to the method ``what`` as a listener is not callable."""
    if not callable(listener):
        raise InvalidListener(f"{what} takes a listener, a function, not {shown(listener)}")


def _indented(tree: Mapping[str, Any], depth: int) -> list[str]:
    """Return the lines of ``printNetmap`` for a part of the tree."""
    lines = []
    for pid, below in tree.items():
        lines.append("  " * depth + ascii(pid)[1:-1])
        lines += _indented(below, depth + 1)
    return lines
