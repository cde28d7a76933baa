"""Processes in unusual surroundings: each works, or says with an exception of the library why it does not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
from matrix import diagonal, slow
from scripts import PREAMBLE, running

STAYS = """
from ipevents import StartFailed, WorkerRefused

ipem.on("error", lambda message, exc: say("error", type(exc).__name__, exc))

def serve():
    @ipem.on("leave")
    def leave(message, code):
        sys.exit(code)
    ipem.start()

def refused(call):
    try:
        call()
    except WorkerRefused as exc:
        say("refused:", exc)
"""

# Standard streams

# What a script's own code finds or puts in place of them.
STREAMS = {
    "None": "sys.stdout = sys.stderr = None",
    "closed": "sys.stdout.close(); sys.stderr.close()",
    "a broken pipe": """
reader, writer = os.pipe()
os.close(reader)
sys.stdout = sys.stderr = os.fdopen(writer, "w")
sys.stdout.write("never read")
""",
    "an object that raises": """
class Stream:
    def __getattr__(self, name):
        raise LookupError(name)
sys.stdout = sys.stderr = Stream()
""",
}


@pytest.mark.parametrize(("streams", "end"), diagonal(list(STREAMS), ["SIGTERM", "3", "'words'"]))
def test_the_status_of_a_script_that_stays_does_not_depend_on_its_streams(streams, end):
    text = """
    ipem.on("leave", lambda message: sys.exit(END))
    ipem.start()

    def end():
        from ipevents._platform import exits
        while not exits._in_hook:  # nobody tells that the body is over
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM) if "END" == "SIGTERM" else ipem.emit("leave")

    threading.Thread(target=end, daemon=True).start()
    """
    with running(text.replace("END", end), STREAMS[streams]) as script:
        ended = script.ended()
    assert ended.status == {"SIGTERM": -signal.SIGTERM, "3": 3}.get(end, 1), ended


@pytest.mark.parametrize("closed", [slow((1,)), slow((2,)), (0, 1, 2)])
def test_a_daemon_without_streams_has_the_status_of_its_signal(closed):
    text = """
    ipem.start()
    with ipem.expecting("up"):
        ipem.worker(lambda: (ipem.on("x", print), ipem.sendToParents("up")))
    os.kill(os.getpid(), signal.SIGTERM)
    """
    redirections = " ".join(f"{number}>&-" for number in closed)
    with running(text) as script:
        script.ended()
        code = script.folder / "code" / "main.py"
        command = f'exec "{sys.executable}" "{code}" {redirections}'
        status = subprocess.run(["sh", "-c", command], check=False, capture_output=True).returncode
    assert status == 143


def test_nothing_of_ours_takes_the_place_of_a_closed_standard_stream():
    """Else what a program writes to its stdout would go into a link, to another process."""
    text = """
    def names():
        return [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]

    def work():
        os.system("echo this goes nowhere; echo nor this >&2")
        ipem.sendToParents("names", names())

    told = os.dup(1)
    os.closerange(0, 3)
    with ipem:
        with ipem.expecting("names", timeout=25) as got:
            ipem.worker(work)
        os.system("echo this goes nowhere")
        os.write(told, f"{names()} {got.message.args[0]}".encode())
    """
    with running(text) as script:
        ended = script.ended()
    assert ended.out == f"{['/dev/null'] * 3} {['/dev/null'] * 3}", ended


def test_a_child_without_streams_has_its_own_exit_code():
    text = """
    def work(end):
        ipem.start()
        sys.stdout.close()
        sys.stdout = sys.stderr = None
        end()

    def fail():
        raise ValueError

    with ipem.options(restart=False):
        for end in (sys.exit, lambda: sys.exit(3), fail, lambda: sys.exit("words")):
            child = ipem.worker(work, [end])
            child.join(25)
            say(child.exitcode)
    """
    with running(text) as script:
        ended = script.ended()
    assert ended.lines == ["0", "3", "1", "1"], ended


# The first process of a container


def _can_unshare() -> bool:
    if os.geteuid() or not shutil.which("unshare"):
        return False
    command = ["unshare", "-pf", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_unshare(), reason="only root can make a pid namespace (unshare -pf)")
@pytest.mark.parametrize(
    ("last", "number"),
    diagonal({"run": "ipem.run()", "stay": "pass"}, {"term": signal.SIGTERM, "int": signal.SIGINT}),
)
def test_process_1_ends_with_the_status_of_its_signal(last, number, tmp_path):
    status = 128 + number
    text = f"""
import os, signal, sys, threading, time
from ipevents import ipem

ipem.options(useSocket=False).start()
ipem.worker(lambda: ipem.on("x", print))

def end():
    from ipevents._platform import exits, latches
    while not (exits._in_hook or ({last!r} != "pass" and latches._main_bell.is_waited_for)):
        time.sleep(0.001)  # nobody tells that the main thread waits
    os.kill(1, {int(number)})

threading.Thread(target=end, daemon=True).start()
assert os.getpid() == 1
{last}
"""
    script = tmp_path / "main.py"
    script.write_text(text)
    command = ["unshare", "-pf", "--mount-proc", sys.executable, str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (status, "")


# Directories and the interpreter


@pytest.mark.parametrize("umask", [0o777, slow(0o277), slow(0o077), 0o000])
def test_a_tree_with_a_socket_works_under_every_umask(umask):
    text = """
    os.umask(UMASK)
    ipem.options(useSocket=True, socket={"socketPath": os.path.join(os.environ["TMPDIR"], "s")}).start()
    with ipem.expecting("up", timeout=25):
        ipem.worker(lambda: ipem.sendToParents("up"))
    for folder, names, files in os.walk(os.path.dirname(os.environ["TMPDIR"])):
        for name in names + files:
            if "ipevents" in os.path.join(folder, name) or name.startswith("s."):
                mode = os.lstat(os.path.join(folder, name)).st_mode & 0o7777
                say(name.partition("-")[0], oct(mode))
    ipem.stop()
    """
    with running(text.replace("UMASK", str(umask))) as script:
        ended = script.ended()
    assert ended.status == 0, ended
    assert sorted(set(ended.lines)) == [
        "children 0o600",
        "ipevents 0o700",
        "key 0o600",
        "s.lock 0o600",
    ], ended


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_without_a_working_directory_a_start_works_and_a_child_says_what_it_needs(method):
    text = """
    os.mkdir("gone")
    os.chdir("gone")
    ipem.options(startMethod=sys.argv[1])
    with ipem:
        child = ipem.worker(serve)
        with ipem.expecting("online", timeout=25, where=lambda message: message.from_ == child.pid):
            pass
        os.rmdir("../gone")
        refused(lambda: ipem.worker(serve))
        with ipem.expecting("error", timeout=25):
            child.send("leave", 1)
        with ipem.expecting("online", timeout=25, where=lambda message: message.from_ == child.pid):
            os.chdir("/")
        say(child.restarts)
    """
    with running(STAYS, text, args=(method,)) as script:
        ended = script.ended()
    first, *errors, last = ended.lines
    assert first.startswith(
        "refused: a child starts in the working directory of this process, and that is gone"
    )
    assert {line.partition(" ended")[0].split()[1] for line in errors} == {"StartFailed"}
    assert all(
        "could not be started again: WorkerRefused: a child starts in the working directory" in line
        for line in errors
    )
    assert last == "1", ended


@pytest.mark.parametrize("path", ["None", "''", "'/nonexistent/python'"])
def test_without_an_interpreter_a_child_says_so(path):
    text = """
    from multiprocessing import spawn

    with ipem:
        child = ipem.worker(serve)
        with ipem.expecting("online", timeout=25, where=lambda message: message.from_ == child.pid):
            pass
        right, spawn._python_exe = spawn._python_exe, PATH
        refused(lambda: ipem.worker(serve))
        with ipem.expecting("error", timeout=25):
            child.send("leave", 1)
        with ipem.expecting("online", timeout=25, where=lambda message: message.from_ == child.pid):
            spawn._python_exe = right
        say(child.restarts, ipem.childsOnline)
    """
    with running(STAYS, text.replace("PATH", path)) as script:
        ended = script.ended()
    first, *errors, last = ended.lines
    assert first.startswith("refused: there is no Python interpreter to run a child")
    assert "multiprocessing.set_executable(path)" in first
    assert {line.split()[1] for line in errors} == {"StartFailed"}
    assert last == "1 1", ended


def test_a_daemonic_process_is_told_that_it_can_have_no_children():
    text = """
    import multiprocessing

    def daemon():
        with ipem:
            refused(lambda: ipem.worker(serve))

    if __name__ == "__main__":
        process = multiprocessing.get_context("spawn").Process(target=daemon, daemon=True)
        process.start()
        process.join()
        say(process.exitcode)
    """
    with running(STAYS, text) as script:
        ended = script.ended()
    assert ended.lines[0].startswith("refused: this process is a daemonic one of multiprocessing")
    assert "daemon=False" in ended.lines[0]
    assert ended.lines[1:] == ["0"], ended


# Who waits for what, and how

# In every process of the script: beside it, and imported by the interpreter itself.
WITHOUT_PIDFD = {
    "missing": "import os\ndel os.pidfd_open",
    "forbidden": """
import errno, os

def pidfd_open(pid, flags=0):
    raise PermissionError(errno.EPERM, "Operation not permitted")

os.pidfd_open = pidfd_open
""",
}

EVERYWHERE = "import os\nos.environ['PYTHONPATH'] = os.getcwd()\nimport sitecustomize\n"

ENDS = """
import multiprocessing

def work(end):
    ipem.start()
    end()

def helped():
    pool = multiprocessing.get_context("fork").Pool(1)  # it inherits the sentinel and the link
    ipem.sendToParents("up")
    signal.pause()
    pool.close()

def ended(end):
    child = ipem.worker(work, [end], restart=False)
    child.join(25)
    return child.exitcode

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def zombies():
    states = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                rest = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
            except OSError:
                continue
            states += [name] if rest[0] == "Z" and rest[1] == str(os.getpid()) else []
    return states
"""


@pytest.mark.parametrize(("how", "method"), diagonal(list(WITHOUT_PIDFD), ["spawn", "forkserver"]))
def test_without_pidfds_exit_codes_are_right_and_all_is_reaped(how, method):
    text = """
    with ipem.options(startMethod=sys.argv[1]):
        say([ended(end) for end in (sys.exit, lambda: os._exit(3), kill)])
        child = ipem.worker(signal.pause, restart=False)
        child.kill()
        say(child.join(25), child.exitcode)
        again = ipem.worker(work, [lambda: sys.exit(1)], restart="on-failure")
        with ipem.expecting("online", timeout=25, where=lambda message: again.restarts == 2):
            pass
        again.stop()
    say(zombies())
    """
    text = text.replace(
        'with ipem.expecting("offline", timeout=25) as got:\n            ', "if True:\n            "
    )
    with running(
        ENDS,
        text,
        args=(method,),
        preamble=EVERYWHERE + PREAMBLE,
        files={"sitecustomize.py": WITHOUT_PIDFD[how]},
    ) as script:
        ended = script.ended()
    assert ended.lines == ["[0, 3, -9]", "True -9", "[]"], ended


def test_without_pidfds_a_death_is_noticed_though_the_childs_own_forks_live():
    text = """
    with ipem:
        with ipem.expecting("up", timeout=25):
            child = ipem.worker(helped, restart=False)
        os.kill(int(child.pid), signal.SIGKILL)
        say(child.join(25), child.exitcode)
    """
    with running(
        ENDS, text, preamble=EVERYWHERE + PREAMBLE, files={"sitecustomize.py": WITHOUT_PIDFD["missing"]}
    ) as script:
        script.wait_line("True")
        ended = script.ended()
    assert ended.lines == ["True -9"], ended


WAITS = {
    "join": "process.join()",
    "is_alive": "while process.is_alive(): pass",
    "exitcode": "while process.exitcode is None: pass",
    "waitpid": "os.waitpid(process.pid, 0)",
}


@pytest.mark.parametrize("wait", WAITS)
def test_an_end_that_somebody_else_waits_for_is_told_once(wait):
    text = """
    offlines = []
    ipem.on("offline", lambda message, pid: offlines.append(message.exitcode))

    def wait(process):
        try:
            WAIT
        except ChildProcessError:  # we were faster
            pass

    with ipem:
        for _ in range(5):
            with ipem.expecting("up", timeout=25):
                child = ipem.worker(lambda: ipem.waitFor("end") and os._exit(3), restart=False)
                ipem.emit("up")
            process = child.process
            waiter = threading.Thread(target=wait, args=[process])
            waiter.start()
            with ipem.expecting("offline", timeout=25):
                child.send("end")
            child.join(25)
            waiter.join()
            say(child.exitcode, process.exitcode, process.is_alive())
            process.join()
        say(len(offlines))
    """
    with running(text.replace("WAIT", WAITS[wait])) as script:
        ended = script.ended()
    # Somebody who takes the status with a call of the system's may be faster: then nobody else knows it.
    possible = {"3 3 False", "None 255 False"} if wait == "waitpid" else {"3 3 False"}
    assert ended.lines.pop() == "5"
    assert set(ended.lines[:5]) <= possible, ended
    assert ended.err == ""


@pytest.mark.parametrize(("method", "codes"), [("spawn", "[None, None]"), ("forkserver", "[0, 3]")])
def test_ends_are_told_where_the_system_reaps_by_itself(method, codes):
    text = """
    ipem.options(startMethod=METHOD)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with ipem:
        say([ended(end) for end in (sys.exit, lambda: sys.exit(3))])
        again = ipem.worker(work, [lambda: sys.exit(1)])
        with ipem.expecting("online", timeout=25, where=lambda message: again.restarts == 2):
            pass
        again.stop()
    say(multiprocessing.active_children())
    """
    with running(ENDS, text.replace("METHOD", repr(method))) as script:
        ended = script.ended()
    assert ended.lines == [codes, "[]"], ended
    assert (ended.status, ended.err) == (0, "")


# Limits of the system


def test_a_start_without_a_descriptor_raises_and_leaves_nothing():
    text = """
    import resource

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    with ipem.options(restart=False):
        ipem.worker(lambda: None).join(25)
        before = descriptors()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        failures = 0
        for room in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + room, limits[1]))
            try:
                child = ipem.worker(lambda: None)
            except OSError as exc:
                failures += 1
            else:
                child.join(25)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        until = time.monotonic() + 20
        while descriptors() > before and time.monotonic() < until:
            time.sleep(0.005)  # the last thread of a link that has ended closes its socket
        say(0 < failures < 12, descriptors() <= before, len(ipem._life.supervisor.children), zombies())
        child = ipem.worker(lambda: None)
        say(child.join(25), child.exitcode)
    """
    with running(ENDS, text) as script:
        ended = script.ended()
    assert ended.lines == ["True True 0 []", "True 0"], ended
