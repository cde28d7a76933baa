"""A child is the same whether it was spawned or forked by the fork server, compared point by point."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scripts import PREAMBLE, running

PROGRAMS = Path(__file__).parents[1] / "programs"
of_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")

FIRST = f"""
import sys
sys.path.append({str(PROGRAMS)!r})
import observed
{PREAMBLE}
from ipevents import Emitter

def look():
    ipem.sendToParents("seen", observed.observe())

METHOD = os.environ.get("IPEVENTS_START", "spawn")
emitters = {{}}
for method in "spawn", "forkserver":
    emitters[method] = Emitter().options(useSocket=False, startMethod=method, restart=False).start()

def seen(method):
    with emitters[method].expecting("seen", timeout=25) as got:
        emitters[method].worker(look, name="look").join()
    return got.message.args[0]
"""
# The fork server runs before the script changes anything.
COMPARED = (
    FIRST
    + """
seen("forkserver")
from ipevents._processes.fork_server import fork_server
server = fork_server._server
CHANGE
spawned, forked = seen("spawn"), seen("forkserver")
is_same = fork_server._server is server
for emitter in emitters.values():
    emitter.stop()
say(len(spawned), "points", is_same)
for point in sorted({*spawned, *forked}):
    if spawned.get(point) != forked.get(point):
        say(point, "SPAWN", spawned.get(point), "FORKSERVER", forked.get(point))
"""
)

# What the server gives each child.
GIVEN = {
    "environment": "os.environ['NEW'] = 'x\\udc80'; os.environ.pop('HOME', None); os.environ['PATH'] += ':/x'",
    "time zone": "os.environ['TZ'] = 'Asia/Kathmandu'",
    "directory": "os.mkdir('below'); os.chdir('below')",
    "umask": "os.umask(0o137)",
    "soft limit": "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (300, r.getrlimit(r.RLIMIT_NOFILE)[1]))",
    "ignored": "signal.signal(signal.SIGUSR1, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    "default": "signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
    "handlers": "signal.signal(signal.SIGUSR2, lambda *args: None)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM})",
    "stdin": "os.dup2(os.open(__file__, os.O_RDONLY), 0)",
    "stdout": "os.dup2(os.open('out', os.O_WRONLY | os.O_CREAT), 1); sys.stdout = os.fdopen(os.dup(KEPT), 'w')",
    "stderr": "os.dup2(os.open('err', os.O_WRONLY | os.O_CREAT), 2)",
    "an inheritable descriptor": "os.set_inheritable(os.open(__file__, os.O_RDONLY), True)",
    "sys.path": "sys.path.insert(0, '/nowhere'); sys.path.append('')",
    "sys.argv": "sys.argv[:] = ['other', 'words']",
    "faulthandler": "import faulthandler; faulthandler.enable()",
    "a timer": "signal.setitimer(signal.ITIMER_REAL, 1000)",
    "authkey": "import multiprocessing as m; m.current_process().authkey = b'another'",
    "start method": "import multiprocessing as m; m.set_start_method('fork', force=True)",
    "fork server of the program": "import multiprocessing as m; m.set_forkserver_preload(['json'])",
    "logging of multiprocessing": "import multiprocessing as m; m.get_logger().setLevel(5)",
}
# What asks for another server.
ASKING = {
    "warnings": "sys.warnoptions.append('ignore::UserWarning')",
    "options": "sys._xoptions['own'] = True",
    "default start method": "os.environ['IPEVENTS_START'] = {'spawn': 'forkserver'}.get(METHOD, 'spawn')",
    "putenv of python": "os.environ['PYTHONWARNINGS'] = 'error::UserWarning'",
    "hash seed": "os.environ['PYTHONHASHSEED'] = '7'",
    "locale": "os.environ['LC_ALL'] = 'C'",
    "utf-8 mode": "os.environ['PYTHONUTF8'] = '1'",
    "encoding of streams": "os.environ['PYTHONIOENCODING'] = 'latin-1:replace'",
    "niceness": "os.nice(3)",
    "affinity": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "scheduler": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
    "hard limit": "import resource as r; r.setrlimit(r.RLIMIT_CORE, (0, 0))",
    "oom score": "open('/proc/self/oom_score_adj', 'w').write('17')",
    "timer slack": "open('/proc/self/timerslack_ns', 'w').write('60000')",
    "no new privileges": "import ctypes; assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0",
    "huge pages": "import ctypes; assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0",
    "coredump filter": "open('/proc/self/coredump_filter', 'w').write('1')",
}
# What undoes others.
APART = {
    "nothing": "",
    "closed": "os.close(0); os.close(2)",
    "a terminal": "import pty; master, terminal = pty.openpty(); os.dup2(terminal, 2); os.dup2(terminal, 0)",
}
OF_ROOT = {
    "groups": "os.setgroups([1, 2, 3])",
    "capabilities": "import ctypes; assert ctypes.CDLL(None).prctl(24, 25, 0, 0, 0) == 0",  # of the bounding set
    "root directory": "os.chroot('/')",
    "negative niceness": "os.nice(-3)",
    "namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x04000000) == 0",  # of host names
}
# After these no fork server serves, or it sees less of its owner.
APART_OF_ROOT = {
    "saved user": "os.setresuid(0, 0, 65534)",
    "effective group": "os.setegid(65534)",
}
# Of a process that leads neither its session nor its group.
OF_A_MEMBER = {
    "process group": "os.setpgid(0, 0)",
    "session": "os.setsid()",
}
FORK = """
import os
if pid := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def compare(change: str, first: str = "", same_server: bool | None = None) -> list[str]:
    """The differences; ``same_server``: whether the server from before the change has to have forked the child."""
    text = COMPARED.replace("CHANGE", change).replace(
        "emitters = {}\n", "KEPT = os.dup(1)\nemitters = {}\n", 1
    )
    with running(first + text, preamble="") as script:
        ended = script.ended()
    assert ended.status == 0, ended.err
    number, *differences = ended.lines
    points, _, is_same = number.split()
    assert int(points) > 60
    assert same_server is None or str(same_server) == is_same
    return differences


@pytest.mark.parametrize(
    ("changes", "same_server"), [(GIVEN, True), ({**GIVEN, **ASKING}, False)], ids=["given", "all"]
)
def test_a_forked_child_is_as_a_spawned_one_after_all_changes(changes, same_server):
    assert compare("\n".join(changes.values()), same_server=same_server) == []


@pytest.mark.parametrize("change", APART)
def test_a_forked_child_is_as_a_spawned_one_after_a_change_of(change):
    assert compare(APART[change]) == []


@pytest.mark.slow
@pytest.mark.parametrize("change", [*GIVEN, *ASKING])
def test_a_forked_child_is_as_a_spawned_one_after_one_change_alone(change):
    assert compare({**GIVEN, **ASKING}[change], same_server=change in GIVEN) == []


@of_root
def test_a_forked_child_is_as_a_spawned_one_after_all_changes_of_root():
    assert compare("\n".join(OF_ROOT.values())) == []


@of_root
@pytest.mark.parametrize("change", APART_OF_ROOT)
def test_a_forked_child_is_as_a_spawned_one_after_a_change_by_root_of(change):
    assert compare(APART_OF_ROOT[change]) == []


@of_root
@pytest.mark.slow
@pytest.mark.parametrize("change", OF_ROOT)
def test_a_forked_child_is_as_a_spawned_one_after_one_change_of_root_alone(change):
    assert compare(OF_ROOT[change]) == []


@pytest.mark.parametrize("change", OF_A_MEMBER)
def test_a_forked_child_is_as_a_spawned_one_after_a_new(change):
    assert compare(OF_A_MEMBER[change], FORK) == []


TOLD = """
import os, random, uuid

def own():
    ipem.sendToParents("own", os.getppid(), hash("a text"), random.random(), str(uuid.uuid4()), os.urandom(8))

ipem.options(useSocket=False, startMethod="forkserver", restart=False).start()
found = []
for _ in range(2):
    with ipem.expecting("own", timeout=25) as got:
        child = ipem.worker(own)
    found.append(got.message.args)
    child.join()
    assert child.exitcode == 0
from ipevents._processes.fork_server import fork_server
parents, hashes, *drawn = zip(*found)
say(set(parents) == {fork_server._server._pids[0]}, len(set(hashes)), [len(set(each)) for each in drawn])
ipem.stop()
"""


def test_forked_children_share_their_parent_and_the_seed_of_hash_and_draw_their_own_numbers():
    """README, Start methods, says so."""
    with running(TOLD) as script:
        ended = script.ended()
    assert (ended.status, ended.err) == (0, "")
    assert ended.lines == ["True 1 [2, 2, 2]"]


# Its own environment, for a search path that the interpreter of the fork server has from its beginning.
WITH_PLACES = """
import os, sys, zipfile

def zipped(**modules):
    with zipfile.ZipFile("new.zip", "w") as file:
        for name, text in modules.items():
            file.writestr(name + ".py", text)
    os.replace("new.zip", "place.zip")

before = os.environ.get("PYTHONPATH", "")
if "place.zip" not in before:
    zipped(early="")
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(os.path.abspath, ("place.zip", "place")), *filter(None, [before])])
    os.execv(sys.executable, [sys.executable, "main.py"])
"""


def test_a_forked_child_imports_from_places_that_have_come_or_changed_since_the_server_was_started():
    change = """
zipped(early="", late="MARK = 'in the zip file'")
os.mkdir("place")
with open("place/later.py", "w") as file:
    file.write("MARK = 'in the directory'")
def look():
    import late, later
    ipem.sendToParents("seen", [late.MARK, later.MARK])
found = seen("spawn"), seen("forkserver")
assert found == (["in the zip file", "in the directory"],) * 2, found
def look():
    ipem.sendToParents("seen", observed.observe())
"""
    assert compare(change, WITH_PLACES) == []


def test_children_of_both_methods_start_where_bytes_may_not_be_compared_with_text():
    text = """
    def look():
        ipem.sendToParents("seen", sys.flags.bytes_warning)
    say(seen("spawn"), seen("forkserver"))
    for emitter in emitters.values():
        emitter.stop()
    """
    with running(FIRST, text, preamble="", python=("-bb",)) as script:
        assert script.ended().lines == ["2 2"]


CONFINED = """
import ctypes, struct

libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges: which alone would ask for another fork server
CREATE, ADD, RESTRICT, WRITE_FILE = 444, 445, 446, 2
rules = libc.syscall(CREATE, struct.pack("Q", WRITE_FILE), 8, 0)

def write():
    try:
        open("file", "w").close()
    except PermissionError:
        ipem.sendToParents("seen", "refused")
    else:
        ipem.sendToParents("seen", "written")

if rules < 0:
    say("none")
else:
    look = write
    say(seen("spawn"), seen("forkserver"))
    device = os.open("/dev", os.O_PATH)
    assert libc.syscall(ADD, rules, 1, struct.pack("=Qi", WRITE_FILE, device), 0) == 0
    assert libc.syscall(RESTRICT, rules, 0) == 0
    say(seen("spawn"), seen("forkserver"))
for emitter in emitters.values():
    emitter.stop()
"""


def test_a_sandbox_that_the_starter_has_entered_is_that_of_its_children():
    with running(FIRST + CONFINED, preamble="") as script:
        ended = script.ended()
    assert ended.status == 0, ended.err
    if ended.lines == ["none"]:
        pytest.skip("this kernel has no Landlock")
    assert ended.lines == ["written written", "refused refused"]
