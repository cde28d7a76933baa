"""Processes forked by the user: before ``start()`` each is one of its own, after it the emitter is disarmed."""

from __future__ import annotations

import pytest
from scripts import running

# What every script here has: fork, and say how the child ended.
FORKS = """
import multiprocessing

def forked(run):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        run()
        code = 0
    except Exception as exc:  # os._exit() would hide it
        say(repr(exc))
    finally:
        sys.stdout.flush()
        os._exit(code)

def codes(*pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]

path = os.path.join(os.environ["TMPDIR"], "s")
"""

SERVER = """
hosted = []
def serve():
    here.close()
    ipem.options(useSocket=True, socket={"socketPath": path}).start()
    for event in ("online", "offline"):
        ipem.on(event, lambda message, *args, event=event: hosted.append((event, message.from_, *args)))
    there.send("up")
    with ipem.expecting("bye"):
        pass
    ipem.stop()
    there.send(hosted)

here, there = multiprocessing.Pipe()
server = forked(serve)
there.close()
assert here.recv() == "up"
"""


def test_processes_forked_before_the_start_are_clients_of_their_own():
    text = """
    def client(number, ready, gate):
        ipem.options(useSocket=True, socket={"socketPath": path, "onlyConnect": True}).start()
        assert ipem.pid == str(os.getpid()), ipem.pid
        os.write(ready, b"+")
        os.read(gate, 1)  # all are connected at once
        ipem.sendToParents("hi", number)
        ipem.stop()

    told, ready = os.pipe()
    gate, opens = os.pipe()
    pids = [forked(lambda number=number: client(number, ready, gate)) for number in range(3)]
    seen = b""
    while len(seen) < 3:
        seen += os.read(told, 3)
    os.write(opens, b"+++")
    say("clients", codes(*pids))

    def last():
        ipem.options(useSocket=True, socket={"socketPath": path}).start()
        ipem.sendToParents("bye")
        ipem.stop()

    say("last", codes(forked(last)))
    events = here.recv()
    say("server", codes(server))
    for event in ("online", "offline"):
        say(event, [[item[1] if event == "online" else item[2] for item in events if item[0] == event].count(str(pid)) for pid in pids])
    """
    with running(FORKS, SERVER, text) as script:
        ended = script.ended()
    assert ended.lines == [
        "clients [0, 0, 0]",
        "last [0]",
        "server [0]",
        "online [1, 1, 1]",
        "offline [1, 1, 1]",
    ], ended
    assert ended.err == ""


@pytest.mark.parametrize("before", ["pass", "ipem.start(); ipem.stop()"], ids=["new", "stopped"])
def test_a_daemon_that_forks_twice_has_the_pid_of_its_last_process(before):
    text = """
    from ipevents import Emitter
    other = Emitter()
    incarnations = []

    def work():
        ipem.sendToParents("up", ipem.parentPid)

    def daemon():
        ipem.start()
        with ipem.expecting("up", timeout=20) as got:
            ipem.worker(work)
        say(got.message.args == (str(os.getpid()),), ipem.pid == str(os.getpid()))
        say(other.pid == f"{os.getpid()}.2", Emitter().pid == f"{os.getpid()}.3")
        say(ipem._life.incarnation not in incarnations, other._life.incarnation not in incarnations)
        ipem.stop()

    def middle():
        incarnations.extend([ipem._life.incarnation, other._life.incarnation])
        say("daemon", codes(forked(daemon)))

    BEFORE
    incarnations.extend([ipem._life.incarnation, other._life.incarnation])
    mine = ipem.pid
    say("middle", codes(forked(middle)))
    say(ipem.pid == mine == str(os.getpid()), ipem._life.incarnation == incarnations[0])
    """
    with running(FORKS, text.replace("BEFORE", before)) as script:
        ended = script.ended()
    assert ended.lines == ["True True"] * 3 + ["daemon [0]", "middle [0]", "True True"], ended
    assert ended.err == ""


def test_only_a_fork_of_an_open_emitter_is_disarmed():
    text = """
    from ipevents import Emitter, ForkedError
    other = Emitter().options(useSocket=False)

    def child():
        calls = [ipem.start, ipem.run, lambda: ipem.sendToParents("x"), lambda: ipem.worker(say)]
        for call in (*calls, running.stop, running.kill, running.join):
            try:
                call()
            except ForkedError:
                say("refused")
        with other:
            say(other.pid == f"{os.getpid()}.2")

    with ipem:
        running = ipem.worker(signal.pause)
        say(codes(forked(child)), running.alive)
    """
    with running(FORKS, text) as script:
        ended = script.ended()
    assert ended.lines == ["refused"] * 7 + ["True", "[0] True"], ended


def test_a_process_forked_from_a_thread_that_starts_the_emitter_does_not_go_on_with_that():
    text = """
    from ipevents import ForkedError

    @ipem.on("ready")
    def ready(message):
        def child():
            try:
                ipem.worker(say)
            except ForkedError:
                say("refused")
        say(codes(forked(child)))

    with ipem:
        pass
    """
    with running(FORKS, text) as script:
        ended = script.ended()
    assert ended.lines == ["refused", "[0]"], ended


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_what_the_parent_went_through_does_not_decide_how_a_forked_process_ends(number):
    """It was interrupted, caught that, stopped, and forked: the new one stays after its body, and serves."""
    text = """
    ipem.start()
    try:
        os.kill(os.getpid(), signal.NUMBER)
        signal.pause()
    except (KeyboardInterrupt, SystemExit):
        pass
    ipem.stop()
    pid = os.fork()
    if pid:
        say(codes(pid))
    else:
        say("hook", sys.excepthook is sys.__excepthook__)
        ipem.start()
        def end():
            from ipevents._platform import exits
            while not exits._in_hook:  # nobody tells that the body is over
                time.sleep(0.001)
            say("stays")
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=end, daemon=True).start()
    """
    with running(FORKS, text.replace("NUMBER", number)) as script:
        ended = script.ended()
    assert ended.lines == ["hook True", "stays", "[-15]"], ended
    assert ended.status == 0


def test_a_pool_forked_after_the_import_has_emitters_of_its_own_and_no_children():
    text = """
    def work(number):
        from ipevents import WorkerRefused
        with ipem:
            try:
                ipem.worker(print)
            except WorkerRefused as exc:
                return ipem.pid == str(os.getpid()), "daemonic" in str(exc) and "daemon=False" in str(exc)

    with multiprocessing.get_context("fork").Pool(2) as pool:
        say(pool.map(work, range(2)))
        pool.close()
        pool.join()
    """
    with running(FORKS, text) as script:
        ended = script.ended()
    assert ended.lines == ["[(True, True), (True, True)]"], ended


def test_threads_of_a_forked_process_are_not_taken_for_threads_of_the_library():
    text = """
    from ipevents._platform.threads import library_threads

    def child():
        say(library_threads)

    with ipem:
        say(len(library_threads) > 0)
        say(codes(forked(child)))
    """
    with running(FORKS, text) as script:
        ended = script.ended()
    assert ended.lines == ["True", "set()", "[0]"], ended
