"""The public API. The only place, with ``_options.py``, that knows its spelling.

Longer than other files because it is one class with all public names: contracts in docstrings, aliases and
signatures. What a call does stands in the packages below; only what a caller got wrong is told apart here.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Set
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._child import Child
from ._core.callable_names import short_name
from ._core.messages import (
    BROADCAST,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
    Message,
    check_name,
)
from ._core.restarts import RestartPolicy
from ._dispatch.listeners import check_listener
from ._exceptions import InvalidListener, Unpicklable, WorkerRefused, shown
from ._expectation import Expectation
from ._lifecycle import child_main
from ._lifecycle.lifecycle import Lifecycle
from ._node.snapshot import snapshot
from ._options import MAX_STOP_SECONDS, child_grace, child_options, seconds
from ._payload.inheritance import Inheritance
from ._processes import programs
from ._processes.child_state import ChildState
from ._processes.programs import Program

if TYPE_CHECKING:
    from blinker import Signal

Listener = Callable[..., Any]
F = TypeVar("F", bound=Listener)
Pid = str | int | Child

MAX_DEPTH = 64  # levels of a tree; fork(__file__) without a test would be endless

_numbers = itertools.count(1)


class _ThisScript:
    """The default target of ``worker()``, so that a None given by mistake is told from no target at all."""

    def __call__(self) -> None:
        """Never called; so that the type of a target is that of a function."""

    def __repr__(self) -> str:
        return "<this script>"


THIS_SCRIPT = _ThisScript()


class Emitter:
    """One process's end of the tree: listen with ``on``, send with the eight sending functions.

    A process has one that is made for it, ``ipevents.ipem``. Everything may be called from any thread.
    Listeners are called one at a time, in library threads, as ``listener(message, *args, **kwargs)``.

    What a send gets wrong (an unknown child, a reserved name, an argument that cannot be pickled, ...) is an
    ``error`` event if anyone listens to ``error``, else it is raised at the call, and always in a listener
    of ``error`` itself. Arguments of a wrong type, and whatever other calls get wrong, are always raised.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        pid = str(os.getpid())
        self._is_default = number == 1
        self._life = Lifecycle(pid if number == 1 else f"{pid}.{number}", self._reply, child_main.run)
        if self._is_default:
            child_main.serve_with(self._life)
        self._node = self._life.node
        self._outgoing = self._node.outgoing  # what a send looks up; through the node it takes longer
        self._events = self._node.events

    # Configuration and life

    def options(self, mapping: Mapping[str, Any] | None = None, **options: Any) -> Emitter:
        """Set options; those not named stay, in ``socket`` as well. Returns the emitter.

        Times are milliseconds. ``restart`` (True; False, ``"on-failure"``), ``delayRestart`` (1000),
        ``maxRestarts`` (None), ``useSocket`` (True), ``stopTimeout`` (8000), ``stopGrace`` (1000),
        ``leaveTimeout`` (None), ``startMethod`` ("spawn"; "forkserver"), ``socket``: ``socketPath`` (None),
        ``port`` (7100), ``host`` ("localhost"), ``reconnect`` (True), ``delayReconnect`` (3000),
        ``onlyConnect`` (False), ``authkey`` (None), ``maxMessage`` (16 MiB, in bytes). A relative
        ``socketPath`` is made absolute here. Of a ``host`` all addresses are used, of IPv4 and IPv6.

        Raises OptionsError for an unknown name, a wrong value, or a change that comes too late: after
        ``start()`` only restart, delayRestart, maxRestarts, stopTimeout, stopGrace and leaveTimeout may
        change, for later children.
        """
        life = self._life
        life.options = life.options.merged(mapping, options, started=life.has_started)
        return self

    def start(self) -> Emitter:
        """Take part in the tree; returns the emitter. A second call does nothing.

        A top process connects to the socket, or listens there if nobody answers; ``useSocket=False`` does
        neither. ``ready`` and the own ``online`` have been emitted, in this thread, when it returns; a client
        that has to wait for its server gets them later. Blocks for the connection, for a stop that is going
        on, and while another thread runs a listener, see ``emit``. A ``stop()`` that meets it, from any
        thread, listener or signal handler, breaks it off: then it returns, and the emitter is stopped. If it
        raises, all is as it was before.

        End the script with ``run()``. Raises AddressInUse (a stranger on the port), AuthenticationFailed,
        LinkError.
        """
        self._life.start()
        return self

    def stop(self, timeout: float | None = None) -> None:
        """End this process's part of the tree: children first, then what is queued is sent, then the links.

        ``stopping`` becomes true and is an event, waits for events end. A child's program that does not end
        after the option ``stopGrace`` gets SIGTERM in its main thread, which raises SystemExit there.
        Waits for the end, also for listeners to return, at most ``timeout`` seconds (None: the option
        ``stopTimeout``), after which children are killed. In a listener or a signal handler it only asks for
        it and returns. A ``start()`` that is going on in another thread is broken off, and returns. May be
        called several times; afterwards ``start()`` may follow, the listeners are still there.
        """
        self._life.stop(seconds(timeout, MAX_STOP_SECONDS))

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._life.stopping.is_set()

    def run(self, timeout: float | None = None) -> bool:
        """Start, then wait in this thread until stopped: True, or False after ``timeout`` seconds.

        The last line of a script. Ctrl-C and SIGTERM stop the tree, then SystemExit(130) or (143) is raised;
        so is the SystemExit of a listener. Returns at once if it was stopped since it was started.
        """
        life = self._life
        given = seconds(timeout)
        if not life.stopping.is_set():
            life.start()
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
        """Call ``listener(message, *args, **kwargs)`` at every such event; returns the emitter.

        Without a listener it is a decorator. Listeners are called in the order of their registration, the
        same one as often as it is registered. ``sender``: only events of this origin.
        Raises InvalidEvent, InvalidListener.
        """
        return self._register(event, listener, sender, once=False)

    @overload
    def once(self, event: str, listener: Listener, *, sender: Pid | None = None) -> Emitter: ...
    @overload
    def once(self, event: str, listener: None = None, *, sender: Pid | None = None) -> Callable[[F], F]: ...
    def once(self, event: str, listener: Listener | None = None, *, sender: Pid | None = None) -> Any:
        """As ``on``, for the next such event only."""
        return self._register(event, listener, sender, once=True)

    def off(self, event: str | None = None, listener: Listener | None = None) -> Emitter:
        """Remove the newest registration of a listener, all of an event, or all; returns the emitter.

        A listener that is not registered changes nothing. Raises InvalidEvent; InvalidListener for what could
        not be one.
        """
        name = None if event is None else check_name(event)
        if listener is not None:
            _check_callable("off()", listener)
        self._node.dispatcher.remove(name, listener)
        return self

    def removeAllListeners(self, event: str | None = None) -> Emitter:
        """Remove all listeners of an event, or of all events; returns the emitter. Waits go on."""
        return self.off(event)

    def addListener(self, event: str, listener: Listener) -> Emitter:
        """``on(event, listener)``."""
        _check_callable("addListener()", listener)
        return self.on(event, listener)

    def removeListener(self, event: str, listener: Listener) -> Emitter:
        """``off(event, listener)``."""
        _check_callable("removeListener()", listener)
        return self.off(event, listener)

    def listeners(self, event: str) -> list[Listener]:
        """The listeners of an event, in the order in which they are called; waits are none."""
        return self._node.dispatcher.listeners(check_name(event))

    def listenerCount(self, event: str) -> int:
        """How many listeners an event has."""
        return self._node.dispatcher.count(check_name(event))

    def eventNames(self) -> list[str]:
        """The events that have listeners."""
        return self._node.dispatcher.events()

    def signal(self, event: str) -> Signal:
        """The ``blinker.Signal`` behind an event. What is connected to it is called like a listener.

        It is the same one as long as something is connected to it, or you hold it.
        """
        return self._node.dispatcher.signal(check_name(event))

    def _register(self, event: str, listener: Listener | None, sender: Pid | None, *, once: bool) -> Any:
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

    def waitFor(self, event: str, timeout: float | None = None, where: Listener | None = None) -> Message:
        """Block until the next such event comes, and return its message.

        ``where(message, *args, **kwargs)`` says which one will do. ``timeout`` in seconds, None for ever.
        Raises TimeoutError; WouldDeadlock in a listener; Closed when the emitter is stopped.
        """
        with self.expecting(event, timeout, where) as expectation:
            pass
        return expectation.message

    def expecting(
        self, event: str, timeout: float | None = None, where: Listener | None = None
    ) -> Expectation:
        """``waitFor`` as a context manager: listens before the block runs, waits at its end.

        Nothing that the block provokes is missed. ``with ipem.expecting("done") as got: ...``, then
        ``got.message``. Arguments and errors as for ``waitFor``.
        """
        name, given = check_name(event), seconds(timeout)
        if where is not None:
            check_listener(where, "where")
        return Expectation(self._life, name, given, where)

    # Sending

    def emit(self, event: str, /, *args: Any, **kwargs: Any) -> bool:
        """An event for the listeners of this process only, in this thread. Returns whether there were any.

        Waits while another thread runs a listener, since one runs at a time in a process: hold no lock that a
        listener may want. In a listener it does not wait. A SystemExit of a listener is raised here only if
        this was called by a listener, or nothing is open that could end.

        Raises InvalidEvent, ReservedEvent, as the sends do: only where nobody listens to ``error``.
        """
        name = self._events.checked(event, sending=False)
        return name is not None and self._events.emit(name, args, kwargs)

    def bubble(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """To the listeners here, then to every process between here and the grand master.

        Returns the emitter. The listeners here have heard it also where the arguments are then refused. It
        waits for a listener of another thread as ``emit`` does.
        """
        name = self._events.checked(event, sending=True)
        if name is not None:
            if self._node.may_send():
                self._events.emit(name, args, kwargs)
            self._outgoing.send(TO_PARENTS, name, args, kwargs)
        return self

    def sendToParents(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """To every process above this one. Returns the emitter, as all that follow.

        Returning means: the arguments are pickled and the event is in an outbox. It blocks while that is
        full and the peer takes something; in a listener OutboxFull is raised instead. Raises NotStarted,
        Closed, Unpicklable, MessageTooLarge, InvalidEvent, ReservedEvent; so do all that follow.
        """
        self._outgoing.send(TO_PARENTS, event, args, kwargs)
        return self

    def sendToChilds(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """To every process below this one that listens to it."""
        self._outgoing.send(TO_CHILDS, event, args, kwargs)
        return self

    def sendToSiblings(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """To the other children of this process's parent, those that listen to it."""
        self._outgoing.send(TO_SIBLINGS, event, args, kwargs)
        return self

    def sendToGrandMaster(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """To the process at the very top; from there to its own listeners, as ``emit`` does.

        Raises NotConnected in an outage.
        """
        self._outgoing.send(TO_GRAND_MASTER, event, args, kwargs)
        return self

    def broadcast(self, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """To every other process of the tree; downwards where it is listened to."""
        self._outgoing.send(BROADCAST, event, args, kwargs)
        return self

    def sendToChild(self, pid: Pid, event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """To one direct child; what is sent before its ``online`` waits for that. Raises UnknownProcess.

        A Child is what runs under it now or next, as for ``Child.send``; a pid only that process.
        """
        if type(pid) is not str:
            if isinstance(pid, Child) and pid._life is self._life:
                pid.send(event, *args, **kwargs)
                return self
            pid = _pid(pid)
        self._outgoing.send_child(pid, event, args, kwargs)
        return self

    def sendTo(self, pids: Pid | Iterable[Pid], event: str, /, *args: Any, **kwargs: Any) -> Emitter:
        """Along a route, hop by hop: the target first, the next hop last, the own pid at the end or not.

        That is what ``message.pids`` holds, so ``sendTo(message.pids, ...)`` is the reply. With the own pid
        alone it is ``emit``. Raises
        UnknownProcess for an unknown next hop; a hop that is unknown further on comes back as an
        ``error`` event with Undeliverable. TypeError for what is no pid.
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
        """What a message's ``reply`` calls; ours, so that a pickled message replies by the emitter there."""
        self._outgoing.send_route(pids, event, args, kwargs)

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
    ) -> Child:
        """Start a child process that runs ``target(*args, **kwargs)``; without one, this script again.

        The target is pickled now, by value where it has to be: lambdas, closures and functions of the script
        work. multiprocessing's locks, queues, connections and the like are passed on, as by
        ``Process(args=...)``. ``restart``, ``delayRestart`` and ``stopGrace`` (milliseconds): as the options
        of that name, for this child. Blocks for the start of the process, some milliseconds, not for its
        ``online``.

        Raises Unpicklable; WorkerRefused without a target inside a worker, where there is no script, or where
        no process can be started (a daemonic one, no interpreter, no working directory); OptionsError;
        TypeError for arguments of a wrong type; Closed; OSError where the system has no more processes.
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
        return self._begin(program, True, name, restart, delayRestart, stopGrace, inherited)

    def fork(
        self,
        path: str | os.PathLike[str],
        args: Iterable[Any] = (),
        *,
        name: str | None = None,
        restart: bool | str | None = None,
        delayRestart: float | None = None,
        stopGrace: float | None = None,
    ) -> Child:
        """Start a child process that runs another script, with ``sys.argv = [path, *args]``.

        Arguments that are no texts become texts. It is a master there (``isMaster``). The rest as for
        ``worker``. Raises FileNotFoundError for no script, or a directory without a ``__main__.py``.
        """
        program = programs.other_script(path, programs.arguments(args))
        name = programs.name(name, os.path.basename(program.argv[0]))
        return self._begin(program, False, name, restart, delayRestart, stopGrace)

    def _begin(
        self,
        program: Program,
        is_worker: bool,
        name: str,
        restart: bool | str | None,
        delay: float | None,
        grace: float | None,
        inherited: Inheritance | None = None,
    ) -> Child:
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
        )
        handle = child.handle = Child(life, child)
        life.add_child(child)
        return handle

    # What is known

    @property
    def pid(self) -> str:
        """This process's name in the tree: its OS pid, or what the server calls a TCP client."""
        return self._node.router.pid

    @property
    def parentPid(self) -> str | None:
        """The parent's or server's pid while connected to it, else None."""
        return self._node.router.parent_pid()

    @property
    def childsOnline(self) -> int:
        """Children started here and clients connected; one that waits for its restart is not counted."""
        return len(self._node.router.child_pids())

    @property
    def isGrandMaster(self) -> bool:
        """Whether this is the very top, since ``start()``."""
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
        """What is known of the tree below: nested dicts, pid to what is below it."""
        with self._node.lock:
            return self._node.router.netmap.as_dict()

    def printNetmap(self) -> None:
        """Print the tree below this process, one pid a line."""
        print("\n".join([self.pid, *_indented(self.netmap, 1)]))

    def stats(self) -> dict[str, Any]:
        """Counters since the start, as plain dicts: of this process, and by peer under ``links``.

        Events: sent, received, forwarded, delivered, dropped by cause, queued now and peak. Handshakes:
        ``refused`` by cause.
        """
        supervisor = self._life.supervisor
        return snapshot(self._node, 0 if supervisor is None else supervisor.children.restarts)

    def __repr__(self) -> str:
        life = self._life
        return (
            f"<Emitter {self.pid} {self._node.stage.name.lower()}, parent {self.parentPid}, "
            f"{self.childsOnline} children{', worker' if life.is_worker else ''}>"
        )

    def __reduce__(self) -> str:
        """Inside a function that is sent to another process the default emitter is that process's own."""
        if not self._is_default:
            raise Unpicklable(f"{self!r} belongs to this process; only ipevents.ipem can be sent")
        return "ipem"


# The name under which pickle finds the default emitter, and users the class.
Emitter.__module__ = __package__


def _pid(value: object) -> str:
    """A pid as the tree spells it. Raises TypeError for what is none."""
    if isinstance(value, str):
        return str.__str__(value)  # plain, whatever it was: headers hold plain values only
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)  # not the name of a member of an enum
    if isinstance(value, Child):
        return value.pid
    raise TypeError(f"a pid is a str, an int or a Child, not {shown(value)}")


def _route(pids: object) -> tuple[str, ...]:
    """The route that ``sendTo`` was given in another form than a tuple or a list. Raises TypeError."""
    if isinstance(pids, (str, int, Child)):
        return (_pid(pids),)
    if isinstance(pids, Iterable) and not isinstance(pids, (bytes, bytearray, Mapping, Set)):
        return tuple([_pid(pid) for pid in pids])
    raise TypeError(f"sendTo() takes a pid, or pids in the order of message.pids, not {shown(pids)}")


def _check_callable(what: str, listener: object) -> None:
    if not callable(listener):
        raise InvalidListener(f"{what} takes a listener, a function, not {shown(listener)}")


def _indented(tree: Mapping[str, Any], depth: int) -> list[str]:
    lines = []
    for pid, below in tree.items():
        lines.append("  " * depth + pid)
        lines += _indented(below, depth + 1)
    return lines
