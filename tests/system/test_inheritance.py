"""Locks, queues, connections and the like as arguments of a worker: as in ``multiprocessing.Process``."""

from __future__ import annotations

import pytest
from matrix import slow
from scripts import running

from ipevents._options import Options

START = """
import functools, gc, multiprocessing, socket
from multiprocessing import shared_memory, sharedctypes
from ipevents import StartFailed, Unpicklable, WorkerRefused

context = multiprocessing.get_context("spawn")
ipem.options(startMethod=sys.argv[1], restart=False)

def answer(target, *args, **kwargs):
    with ipem.expecting("answer", timeout=25) as got:
        ipem.worker(target, args, kwargs)
        del args, kwargs  # as after Process.start(), nobody but the library holds them now
        gc.collect()
    return got.message.args
"""

USUAL = Options().start_method  # what .ci/run asks for on this Python
METHODS = pytest.mark.parametrize(
    "method", [method if method == USUAL else slow(method) for method in ("spawn", "forkserver")]
)


def lines(text, method="spawn", *, err=""):
    with running(START, text, args=(method,)) as script:
        ended = script.ended()
    assert (ended.status, ended.err) == (0, err), ended
    return ended.lines


@METHODS
def test_each_kind_that_a_process_takes_is_the_same_one_in_the_worker(method):
    text = """
    def locked(lock):
        ipem.sendToParents("answer", lock.acquire(block=False))

    def let(semaphore):
        semaphore.release()
        ipem.sendToParents("answer", True)

    def put(queue):
        queue.put("from the worker")
        ipem.sendToParents("answer", type(queue).__name__)

    def end(event):
        event.set()
        ipem.sendToParents("answer", True)

    def notify(condition):
        with condition:
            condition.notify()

    def meet(barrier):
        barrier.wait()

    def count(value):
        value.value += 1
        ipem.sendToParents("answer", value.value)

    def fill(array):
        array[0] = 7
        ipem.sendToParents("answer", len(array))

    with ipem:
        for make in (context.Lock, context.RLock):
            lock = make()
            with lock:
                say(answer(locked, lock), "while it is held")
            say(answer(locked, make()))
        for make in (context.Semaphore, context.BoundedSemaphore):
            semaphore = make(1)
            semaphore.acquire()
            say(answer(let, semaphore), semaphore.acquire(timeout=20))
        for queue in (context.Queue(), context.SimpleQueue(), context.JoinableQueue()):
            say(answer(put, queue), queue.get())
        event = context.Event()
        say(answer(end, event), event.wait(20))
        condition = context.Condition()
        with condition:
            ipem.worker(notify, [condition])
            say(condition.wait(20))
        barrier = context.Barrier(2)
        ipem.worker(meet, [barrier])
        say(barrier.wait(20) in (0, 1))
        for value in (context.Value("i", 4), sharedctypes.RawValue("i", 4)):
            say(answer(count, value), value.value)
        for array in (context.Array("i", 3), sharedctypes.RawArray("i", 3)):
            say(answer(fill, array), list(array))
    """
    assert lines(text, method) == [
        *["(False,) while it is held", "(True,)"] * 2,
        *["(True,) True"] * 2,
        "('Queue',) from the worker",
        "('SimpleQueue',) from the worker",
        "('JoinableQueue',) from the worker",
        "(True,) True",
        "True",
        "True",
        *["(5,) 5"] * 2,
        *["(3,) [7, 0, 0]"] * 2,
    ]


@METHODS
def test_connections_and_sockets_are_passed_on_wherever_they_stand(method):
    text = """
    class Holder:
        pass

    def use(end, more):
        end.send(more)
        ipem.sendToParents("answer", end.recv())

    def nested(things, *, holder):
        things["list"][0].send(holder.end is things["list"][0])
        ipem.sendToParents("answer", None)

    def plain(ours):
        ours.sendall(b"bytes")
        ipem.sendToParents("answer", ours.family.name)

    with ipem:
        for duplex in (True, False):
            here, there = context.Pipe(duplex)
            if duplex:
                here.send("down")
                say(answer(use, there, "up"), here.recv())
            else:
                say(answer(lambda end: (end.send(1), ipem.sendToParents("answer", end.writable)), there), here.recv())
        here, there = context.Pipe()
        holder = Holder()
        holder.end = there
        say(answer(nested, {"list": [there]}, holder=holder), here.recv())
        here.send("by partial")
        say(answer(functools.partial(use, there), 1), here.recv())
        here.send("by closure")
        say(answer(lambda: use(there, 2)), here.recv())
        one, other = socket.socketpair()
        say(answer(plain, other), one.recv(5))
    """
    assert lines(text, method) == [
        "('down',) up",
        "(True,) 1",
        "(None,) True",
        "('by partial',) 1",
        "('by closure',) 2",
        "('AF_UNIX',) b'bytes'",
    ]


def test_what_the_target_and_an_argument_have_in_common_is_one_object():
    text = """
    lock = context.RLock()
    here, there = context.Pipe()

    def outer():
        shared, end = lock, there

        def work(same, same_end):
            with shared, same:
                same_end.send("one")
                ipem.sendToParents("answer", shared is same, end is same_end)

        return work

    with ipem:
        say(answer(outer(), lock, there), here.recv())
    """
    assert lines(text) == ["(True, True) one"]


@METHODS
def test_a_thousand_locks_are_no_burden_for_the_start(method):
    text = """
    def count(locks):
        ipem.sendToParents("answer", len(locks), all(lock.acquire(block=False) for lock in locks))

    with ipem:
        say(answer(count, [context.Lock() for _ in range(1000)]))
    """
    assert lines(text, method) == ["(1000, True)"]


def test_as_many_connections_as_the_fork_server_takes_arrive_with_those_of_the_library():
    text = """
    from ipevents._payload.inheritance import MAX_DESCRIPTORS

    def count(ends):
        for end in ends:
            end.send(None)
        ipem.sendToParents("answer", len(ends))

    with ipem:
        pipes = [context.Pipe(duplex=False) for _ in range(MAX_DESCRIPTORS["forkserver"])]
        say(answer(count, [there for _, there in pipes]), len([here.recv() for here, _ in pipes]))
    """
    assert lines(text, "forkserver") == ["(240,) 240"]


@METHODS
def test_more_connections_than_a_start_passes_on_are_refused_with_the_limit(method):
    text = """
    from ipevents._payload import inheritance
    inheritance.MAX_DESCRIPTORS = {"spawn": 200, "forkserver": 200}  # as many as a fork server takes in fact

    def count(ends):
        for end in ends:
            end.send(None)
        ipem.sendToParents("answer", len(ends))

    with ipem:
        pipes = [context.Pipe() for _ in range(201)]
        say(answer(count, [there for _, there in pipes[1:]]), len([here.recv() for here, _ in pipes[1:]]))
        try:
            ipem.worker(count, [[there for _, there in pipes]])
        except WorkerRefused as exc:
            say(exc)
    """
    assert lines(text, method) == [
        "(200,) 200",
        "201 connections and the like in the arguments of a worker, and the start method "
        f"{method} passes 200 on",
    ]


@METHODS
def test_a_restart_gets_them_as_well(method):
    text = """
    def work(end, event, value):
        ipem.start()
        with value.get_lock():
            value.value += 1
        end.send(value.value)
        if value.value < 3:
            sys.exit(1)
        event.set()
        ipem.stop()

    with ipem:
        here, there = context.Pipe()
        event, value = context.Event(), context.Value("i", 0)
        child = ipem.worker(work, [there, event, value], restart="on-failure")
        del there
        say([here.recv() for _ in range(3)], event.wait(20))
        say(child.join(20), child.restarts)
    """
    assert lines(text, method) == ["[1, 2, 3] True", "True 2"]


def test_a_restart_whose_connection_was_closed_fails_with_the_reason_and_is_the_last():
    text = """
    ipem.on("error", lambda message, exc: say(type(exc).__name__, exc))

    def work(end):
        ipem.sendToParents("up")
        end.recv()

    with ipem:
        here, there = context.Pipe()
        with ipem.expecting("up", timeout=25):
            child = ipem.worker(work, [there], restart=True)
        there.close()  # as one does, to hear of the end of the process
        os.kill(int(child.pid), signal.SIGKILL)
        try:
            here.recv()
        except (EOFError, ConnectionResetError):
            say("end")
        say(child.join(20), child.restarts)
    """
    said = lines(text)
    assert "end" in said
    (failure,) = [line for line in said if line.startswith("StartFailed")]
    assert "could not be started again" in failure
    assert "was closed in this process" in failure
    assert "close it after the child's final end, or use restart=False" in failure
    assert "True 0" in said  # perhaps before the listener of error has said its word


def test_the_arguments_are_let_go_of_with_the_final_end():
    text = """
    import weakref

    def work(lock):
        pass

    with ipem:
        lock = context.Lock()
        gone = weakref.ref(lock)
        child = ipem.worker(work, [lock])
        del lock
        say(gone() is not None, child.join(20))
        gc.collect()
        say(gone() is None)
    """
    assert lines(text) == ["True True", "True"]


def test_what_was_made_for_fork_is_refused_with_the_way_out():
    text = """
    fork = multiprocessing.get_context("fork")
    things = [getattr(fork, name)() for name in "Lock RLock Event Condition Queue SimpleQueue".split()]
    with ipem:
        for thing in (*things, fork.Value("i", 1), fork.Barrier(2)):
            try:
                ipem.worker(print, [1, {"nested": thing}])
            except Unpicklable as exc:
                say(exc)
    """
    said = lines(text)
    assert len(said) == 8
    for line in said:
        assert "argument 2" in line
        assert "made for the start method fork" in line
        assert 'multiprocessing.get_context("spawn")' in line


def test_none_of_them_travels_with_an_event_which_says_the_way_out():
    text = """
    names = "Lock Event Condition Queue JoinableQueue SimpleQueue".split()
    things = [getattr(context, name)() for name in names]
    things += context.Barrier(2), context.Value("i", 1), context.Array("i", 1), context.Pipe()[0], socket.socket()

    def here_only():
        pass

    with ipem.options(stopGrace=0):
        child = ipem.worker(signal.pause)
        for thing in things:
            # the second is made by cloudpickle
            for args, kwargs in (([1, thing], {}), ([here_only], {"deep": {"list": [thing]}})):
                try:
                    child.send("x", *args, **kwargs)
                except Unpicklable as exc:
                    say("worker(args=...)" in str(exc), ("argument 2" in str(exc)) is not bool(kwargs), ipem.stats()["sent"])
    """
    assert lines(text) == ["True True 0"] * 22


def test_proxies_of_a_manager_and_shared_memory_work_in_both_ways():
    text = """
    def work(proxy, memory):
        proxy.append(bytes(memory.buf[:3]))
        memory.buf[:3] = b"new"
        memory.close()
        ipem.sendToParents("answer", proxy)

    if __name__ == "__main__":
        with context.Manager() as manager, ipem:
            memory = shared_memory.SharedMemory(create=True, size=3)
            memory.buf[:3] = b"old"
            proxy = manager.list()
            (back,) = answer(work, proxy, memory)
            say(list(back), bytes(memory.buf[:3]))
            memory.close()
            memory.unlink()
    """
    with running(START, text, args=("spawn",)) as script:
        ended = script.ended()
    assert ended.lines == ["[b'old'] b'new'"], ended


@METHODS
def test_processes_that_the_application_starts_have_their_own_signal_mask(method):
    text = """
    def work():
        ipem.sendToParents("answer", [number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])])

    def mask(queue):
        queue.put([number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])])

    if __name__ == "__main__":
        with ipem:
            say(answer(work))
        queue = multiprocessing.get_context(sys.argv[1]).SimpleQueue()
        process = multiprocessing.get_context(sys.argv[1]).Process(target=mask, args=[queue])
        process.start()
        say(queue.get())
        process.join()
    """
    assert lines(text, method) == ["([],)", "[]"]
