"""The fork server of a process: it forks, is replaced when it must be, and ends when nobody needs it."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest
from raw_children import sleep_for_ever, starting, wait_end

from ipevents._exceptions import Closed, WorkerRefused
from ipevents._processes import fork_server as module
from ipevents._processes import moment, process
from ipevents._processes.fork_server import ForkServer, Unavailable, fork_server
from ipevents._processes.forking import REPORT
from ipevents._processes.preparation import quiet_start

CEILING_SECONDS = 30.0
PR_SET_DUMPABLE, PR_CAPBSET_DROP, CAP_SYS_PTRACE = 4, 24, 19


@pytest.fixture
def server():
    made = ForkServer()
    yield made
    made.release(None)


def fork(server: ForkServer, inherited=()):
    with quiet_start():
        return server.fork(list(inherited), moment.fingerprint_now())


def end_of(forked) -> int | None:
    """Give a start up, wait for the end of the process, and return its exit code, None if none came."""
    forked.data.close()
    assert select.select([forked.pidfd.number], [], [], CEILING_SECONDS)[0]
    code = forked.report.recv(REPORT.size)
    forked.pidfd.close()
    forked.report.close()
    return REPORT.unpack(code)[0] if code else None


def pid_of(server: ForkServer) -> int:
    return server._server._pids[0]


def kill(server: ForkServer) -> None:
    """Kill the server, and wait until it has ended."""
    os.kill(pid_of(server), signal.SIGKILL)
    assert server._server.has_ended(CEILING_SECONDS)


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_a_child_whose_start_is_given_up_ends(server):
    assert end_of(fork(server)) == 1


def test_a_child_is_no_child_of_this_process_and_has_the_pid_that_is_told(server):
    forked = fork(server)
    with open(f"/proc/{forked.pid}/stat") as file:
        assert int(file.read().rsplit(")", 1)[1].split()[1]) == pid_of(server)
    end_of(forked)


def test_one_server_serves_all_and_ends_with_the_last_that_retains_it(server):
    one, other = object(), object()
    server.retain(one)
    server.retain(other)
    end_of(fork(server))
    pid = pid_of(server)
    end_of(fork(server))
    server.release(one)
    assert pid_of(server) == pid
    server.release(other)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_leaves_no_descriptor(server):
    end_of(fork(server))
    server.release(None)
    before = descriptors()
    end_of(fork(server))
    server.release(None)
    assert descriptors() == before


def test_its_sockets_block_also_where_the_program_has_a_default_timeout(server, monkeypatch):
    made = []
    original = socket.socketpair

    def socketpair(*args):
        made.extend(original(*args))
        return made[-2:]

    monkeypatch.setattr(socket, "socketpair", socketpair)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CEILING_SECONDS)
    try:
        end_of(fork(server))
    finally:
        socket.setdefaulttimeout(before)
    assert {each.gettimeout() for each in made} == {None}


def test_a_server_that_was_killed_is_replaced(server):
    end_of(fork(server))
    before = pid_of(server)
    kill(server)
    end_of(fork(server))
    assert pid_of(server) != before


def test_a_server_that_ends_in_the_middle_of_a_start_is_replaced_and_the_start_repeated(server, monkeypatch):
    end_of(fork(server))
    before = pid_of(server)
    os.kill(before, signal.SIGSTOP)  # the request waits in its socket, and is lost with it
    reply = ForkServer._reply

    def killed(self, *args):
        monkeypatch.undo()
        os.kill(before, signal.SIGKILL)
        return reply(self, *args)

    monkeypatch.setattr(ForkServer, "_reply", killed)
    end_of(fork(server))
    assert pid_of(server) != before


def test_a_server_that_does_not_answer_is_killed_and_replaced(server, monkeypatch):
    end_of(fork(server))
    before = pid_of(server)
    os.kill(before, signal.SIGSTOP)
    kill_it = module._Server.kill

    def killed(self):
        monkeypatch.undo()  # the next one gets the time that it needs
        kill_it(self)

    monkeypatch.setattr(module._Server, "kill", killed)
    monkeypatch.setattr(module, "_REPLY_SECONDS", 0.0)
    end_of(fork(server))
    assert pid_of(server) != before


def test_a_server_of_which_only_the_pid_is_known_is_killed_at_its_end(server, monkeypatch):
    """A signal handler that raises between its start and its pidfd leaves it so; it may be stopped, too."""
    end_of(fork(server))
    one, pid = server._server, pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    os.close(one._pidfds.pop())
    server.release(None)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_of_before_a_change_of_the_user_is_given_up_and_another_one_forked(server, monkeypatch):
    """Another thread changes the user while the server has not answered yet: the child would be root's."""
    end_of(fork(server))
    before = pid_of(server)
    reply, first = ForkServer._reply, []

    def changed(self, *args):
        monkeypatch.undo()
        first.append(reply(self, *args))
        monkeypatch.setattr(moment, "identity", lambda: "another")
        return first[0]

    monkeypatch.setattr(ForkServer, "_reply", changed)
    forked = fork(server)
    assert forked.pid != first[0].pid
    assert first[0].data.fileno() == first[0].report.fileno() == first[0].pidfd.number == -1
    assert pid_of(server) != before
    end_of(forked)


def test_a_child_for_whose_descriptor_there_is_no_number_is_refused(server, monkeypatch):
    end_of(fork(server))
    receive = socket.socket.recvmsg
    descriptors = []

    class Short(socket.socket):
        def recvmsg(self, *args):
            content, ancillary, flags, address = receive(self, *args)
            descriptors.extend(module._INT.unpack(packed)[0] for _, _, packed in ancillary)
            return content, [], flags, address

    monkeypatch.setattr(module, "_pair", lambda: [Short(fileno=one.detach()) for one in socket.socketpair()])
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        fork(server)
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], CEILING_SECONDS)[0], "the child ends"
        os.close(descriptor)


def test_a_stopped_server_is_killed_by_who_waits_for_an_exit_code(monkeypatch):
    monkeypatch.setattr(process, "_EXITCODE_SECONDS", 0.05)
    with starting("forkserver") as start:
        children = [start(sleep_for_ever) for _ in range(3)]
        os.kill(pid_of(fork_server), signal.SIGSTOP)
        children.pop().discard()
        for child in children:
            child.send_signal(signal.SIGKILL)
            wait_end(child)
        assert [child.reap() for child in children] == [None, None]
        assert fork_server._server.has_ended(CEILING_SECONDS)


def test_the_fall_back_to_spawn_is_logged_once(server, monkeypatch, caplog):
    caplog.set_level("INFO", "ipevents.supervisor")
    monkeypatch.setattr(moment, "unfit", lambda: "it is a test")
    for _ in range(2):
        with pytest.raises(Unavailable, match="it is a test"):
            server.check()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["it is a test"]


def test_a_child_outlives_its_server_and_its_code_is_not_known_then(server):
    forked = fork(server)
    kill(server)
    assert not select.select([forked.pidfd.number], [], [], 0)[0]
    assert end_of(forked) is None


def test_a_replaced_server_still_reports_the_ends_of_its_children(server):
    forked = fork(server)
    before = pid_of(server)
    with quiet_start():
        other = server.fork([], (moment.identity(), "another"))
    assert pid_of(server) != before
    assert end_of(forked) == 1
    assert end_of(other) == 1
    assert server._servers[0].has_ended(CEILING_SECONDS)
    end_of(fork(server))
    assert before not in [item._pids[0] for item in server._servers]


def test_the_children_of_the_server_get_no_descriptor_of_each_other(server):
    first = fork(server)
    second = fork(server)
    kill(server)
    assert first.report.recv(1) == b""  # the server had it, and no child has
    end_of(first)
    end_of(second)


def test_the_server_lets_go_of_the_standard_streams(server):
    end_of(fork(server))
    for number in range(3):
        assert os.readlink(f"/proc/{pid_of(server)}/fd/{number}") == os.devnull


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_to_the_group_do_not_end_it(server, number):
    end_of(fork(server))
    before = pid_of(server)
    os.kill(before, number)
    end_of(fork(server))
    assert pid_of(server) == before


def test_where_none_can_be_started_that_is_said_and_remembered(server, monkeypatch):
    monkeypatch.setattr(module, "_program", lambda control: "raise SystemExit(1)")
    with pytest.raises(Unavailable, match="each one ends"):
        fork(server)
    monkeypatch.undo()
    with pytest.raises(Unavailable, match="each one ends"):
        fork(server)


def test_another_ipevents_does_not_serve(server, monkeypatch):
    right = module._program
    monkeypatch.setattr(module, "_program", lambda control: right(control).replace("__init__.py", "other.py"))
    with pytest.raises(Unavailable):
        fork(server)


def test_without_an_interpreter_the_start_is_refused(server, monkeypatch):
    from multiprocessing import spawn

    monkeypatch.setattr(spawn, "_python_exe", b"/nowhere/python")
    with pytest.raises(WorkerRefused, match="/nowhere/python"):
        fork(server)


def test_what_the_system_refuses_is_raised(server, monkeypatch):
    end_of(fork(server))
    monkeypatch.setattr(socket, "socketpair", refuse)
    with pytest.raises(OSError, match="no more"):
        fork(server)


def refuse(*args):
    raise OSError(24, "no more")


def test_threads_start_children_side_by_side(server):
    forked = []
    threads = [threading.Thread(target=lambda: forked.append(fork(server))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.pid for one in forked}) == 8
    assert len(server._servers) == 1
    assert [end_of(one) for one in forked] == [1] * 8


def test_it_ends_when_its_owner_is_killed():
    code = """
    import sys, signal
    from ipevents._processes import moment
    from ipevents._processes.fork_server import fork_server
    from ipevents._processes.preparation import quiet_start
    with quiet_start():
        forked = fork_server.fork([], moment.fingerprint_now())
    print(fork_server._server._pids[0], forked.pid, flush=True)
    signal.pause()
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as owner:
        pids = [os.pidfd_open(int(word)) for word in owner.stdout.readline().split()]
        owner.kill()
        for pidfd in pids:  # the server, and the child, whose start nobody goes on with
            assert select.select([pidfd], [], [], CEILING_SECONDS)[0]
            os.close(pidfd)


def test_it_serves_an_owner_that_hides_from_it():
    from tests.starters import in_child

    def hidden():
        prctl = ctypes.CDLL(None).prctl
        assert prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0  # as setuid() does
        prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0)  # with which root sees all; others have not got it
        made = ForkServer()
        assert end_of(fork(made)) == 1
        before = pid_of(made)
        assert end_of(fork(made)) == 1
        assert pid_of(made) == before
        assert len(made._servers) == 1
        made.release(None)

    in_child(hidden)


def test_in_a_forked_process_it_is_another_ones(server):
    end_of(fork(server))
    before = pid_of(server)
    from tests.starters import in_child

    def own():
        server.abandon()
        end_of(fork(server))
        assert pid_of(server) != before
        server.release(None)

    in_child(own)
    end_of(fork(server))
    assert pid_of(server) == before


def test_an_owner_that_ignores_the_ends_of_children_learns_their_codes(server):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        end_of(fork(server))
        assert end_of(fork(server)) == 1
        server.release(None)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_stop_that_a_handler_waits_for_in_the_middle_of_a_start_comes_to_its_end(server, monkeypatch):
    right = module._Server.start
    ended = []

    def stopped(self, command):
        right(self, command)
        if not ended:  # as if a signal handler called stop() here, and waited
            thread = threading.Thread(target=lambda: ended.append(server.release(None)))
            thread.start()
            thread.join(CEILING_SECONDS)

    monkeypatch.setattr(module._Server, "start", stopped)
    with pytest.raises(Closed):
        fork(server)
    assert ended == [None]
    assert server._servers == []
    end_of(fork(server))
