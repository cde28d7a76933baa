"""When a child is online: what it has to do for that."""

from __future__ import annotations

import sys
import threading

import pytest
from scripts import printed, write

from ipevents import Closed, Emitter
from ipevents._processes.children import Children
from ipevents._processes.fork_server import fork_server

CEILING_SECONDS = 30.0

# Each of these scripts stays afterwards, so it is not its end that makes it online.
TAKES_PART = {
    "start": "ipem.start()",
    "a send": "ipem.sendToParents('x')\nthreading.Event().wait()",
    "waitFor": "ipem.waitFor('never')",
    "expecting": "with ipem.expecting('never'): threading.Event().wait()",
    "run": "ipem.run()",
    "with": "with ipem: threading.Event().wait()",
    "a child of its own": "ipem.worker(ipem.run)\nthreading.Event().wait()",
    "its end": "ipem.on('x', lambda message: None)",
}


@pytest.mark.parametrize("how", TAKES_PART)
def test_a_child_is_online_as_soon_as_it_takes_part(place, how):
    script = write(place / "script.py", "import threading\nfrom ipevents import ipem\n" + TAKES_PART[how])
    with Emitter().options(useSocket=False) as emitter:
        with emitter.expecting("online", CEILING_SECONDS) as got:
            child = emitter.fork(script)
        assert (got.message.from_, child.alive) == (child.pid, True)


def loaded():
    return [name for name in sys.modules if name.startswith(("ipevents.", "blinker", "cloudpickle"))]


def tell_what_is_loaded():
    from ipevents import ipem

    ipem.start()
    ipem.sendToParents("loaded", *loaded())


def test_a_child_imports_only_what_it_needs(place):
    options = {"useSocket": False, "startMethod": "spawn"}  # a fork server has more of it loaded before
    with Emitter().options(options) as emitter, emitter.expecting("loaded", CEILING_SECONDS) as got:
        emitter.worker(tell_what_is_loaded)
    assert "ipevents._lifecycle.child_main" in got.message.args
    late = ("_dispatch.event_signal", "_network.public_socket", "_network.client", "_transport.connector")
    unwanted = {"blinker", "cloudpickle", *(f"ipevents.{name}" for name in late)}
    assert not unwanted.intersection(got.message.args)


def test_what_the_first_child_did_not_wait_for_is_there_for_the_second():
    found = []
    with Emitter().options(useSocket=False, startMethod="forkserver") as emitter:
        for _ in range(2):
            with emitter.expecting("loaded", CEILING_SECONDS) as got:
                emitter.worker(tell_what_is_loaded)
            found.append("cloudpickle" in got.message.args)
    assert found == [False, True]


def test_a_child_that_only_listens_is_not_online_before_its_function_ends(place):
    script = write(
        place / "script.py",
        """
        import os
        from ipevents import ipem

        def work():
            ipem.on("x", print)
            print("listens", flush=True)
            open("go").close()  # returns when the parent opens it as well

        @ipem.on("online")
        def online(message):
            print("online", message.from_ == ipem.pid, flush=True)

        os.mkfifo("go")
        with ipem.options(useSocket=False):
            with ipem.expecting("online"):
                ipem.worker(work)
                open("go", "w").close()
        """,
    )
    assert printed(script, cwd=place) == ["online True", "listens", "online False"]


@pytest.mark.parametrize("first", ["the stop", "the server"])
def test_a_stop_that_overtakes_the_first_worker_leaves_no_fork_server(first, monkeypatch):
    emitter = Emitter().options(useSocket=False, startMethod="forkserver").start()
    boot = Children._boot_server

    def overtaken(children):
        if first == "the server":
            boot(children)
        stop = threading.Thread(target=emitter.stop)
        stop.start()
        stop.join(CEILING_SECONDS)
        assert not stop.is_alive()
        if first == "the stop":
            boot(children)

    users = set(fork_server._users)
    monkeypatch.setattr(Children, "_boot_server", overtaken)
    with pytest.raises(Closed):
        emitter.worker(print)
    assert fork_server._users == users
    assert users or fork_server._servers == []
