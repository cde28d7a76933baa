"""Trees of real processes: who hears what, what a child may be, what an end looks like."""

from __future__ import annotations

import itertools

import pytest
from directed import Raised
from scripts import CEILING_SECONDS, printed, run, write

from ipevents import Emitter

LOCAL = {"useSocket": False}

# S is the server, C a client of it; the others are workers and forked children.
PARENTS = {"W": "S", "V": "S", "C": "S", "X": "W", "Y": "W", "D": "C"}
ROLES = ("S", "W", "V", "C", "X", "Y", "D")
BELOW = {"S": "WVCXYD", "W": "XY", "V": "", "C": "D", "X": "", "Y": "", "D": ""}
TYPES = {
    "bubble": "toParents",
    "sendToParents": "toParents",
    "sendToChilds": "toChilds",
    "sendToSiblings": "toSiblings",
    "sendToGrandMaster": "toGM",
    "broadcast": "broadcast",
}
# Who hears what W, X, C, D, S send.
RECEIVERS = {
    "bubble": {"S": "S", "W": "WS", "X": "XWS", "C": "CS", "D": "DCS"},
    "sendToParents": {"S": "", "W": "S", "X": "WS", "C": "S", "D": "CS"},
    "sendToChilds": {"S": "WVCXYD", "W": "XY", "X": "", "C": "D", "D": ""},
    "sendToSiblings": {"S": "", "W": "VC", "X": "Y", "C": "WV", "D": ""},
    "sendToGrandMaster": {"S": "S", "W": "S", "X": "S", "C": "S", "D": "S"},
    "broadcast": {"S": "WVCXYD", "W": "SVCXYD", "X": "SWVCYD", "C": "SWVXYD", "D": "SWVCXY"},
}


def above(role, parents=PARENTS):
    """A role and all above it."""
    return [role, *above(parents[role], parents)] if role in parents else [role]


def path(origin, receiver, parents=PARENTS):
    """The processes that a message passes, both ends included."""
    up, down = above(origin, parents), above(receiver, parents)
    top = next(role for role in up if role in down)
    return [*up[: up.index(top)], top, *reversed(down[: down.index(top)])]


def message(who, kind, pids, *, event="evt", args=(), kwargs=None, to=None):
    route = [] if kind == "sendTo" else None
    return (who, event, kind, pids, to, route, list(args), kwargs or {})


def heard(tree):
    """All that was heard since the last look, after a fence."""
    tree.fence()
    keys = ("who", "event", "type", "pids", "to", "route", "args", "kwargs")
    return sorted((tuple(item[key] for key in keys) for item in tree.take()), key=repr)


@pytest.fixture
def full_tree(tree, port):
    """The tree of PARENTS; everybody listens to evt."""
    public = {"socket": {"host": "127.0.0.1", "port": port}}
    tree.top("S", options=public, listen=["evt"])
    tree.child("worker", "S", "W", {"listen": ["evt"]})
    tree.child("fork", "S", "V", {"listen": ["evt"]})
    tree.top("C", options={"socket": {**public["socket"], "onlyConnect": True}}, listen=["evt"])
    for via, role in (("fork", "X"), ("fork", "Y"), ("worker", "D")):
        tree.child(via, PARENTS[role], role, {"listen": ["evt"]})
        tree.wait_heard(role, "parent")
    heard(tree)
    return tree


def test_each_sending_function_reaches_whom_it_should_from_every_place(full_tree):
    tree = full_tree
    for function, by_sender in RECEIVERS.items():
        for sender, receivers in by_sender.items():
            tree[sender].call(function, "evt", 1, key="value")
            wanted = []
            for role in receivers:
                local = role == sender
                kind = "" if local else TYPES[function]
                wanted.append(message(role, kind, path(sender, role), args=[1], kwargs={"key": "value"}))
            assert heard(tree) == sorted(wanted, key=repr), (function, sender)


# Five levels deep at both sides of the socket: S serves, C is its client.
DEEP = {"A": "S", "B": "A", "E": "B", "F": "E", "C": "S", "D": "C", "G": "D", "H": "G"}


# Routing in deep trees is also shown without processes, in core/test_routing_in_trees.py.
@pytest.mark.slow
@pytest.mark.parametrize("senders", ["SBH", "AEFCDG"])
def test_every_function_reaches_whom_it_should_five_levels_deep(tree, port, senders):
    public = {"socket": {"host": "127.0.0.1", "port": port}}
    tree.top("S", options=public, listen=["evt"])
    tree.top("C", options={"socket": {**public["socket"], "onlyConnect": True}}, listen=["evt"])
    for via, role in zip(itertools.cycle(["worker", "fork"]), "ABEFDGH", strict=False):
        tree.child(via, DEEP[role], role, {"listen": ["evt"]})
        tree.wait_heard(role, "parent")
    heard(tree)
    everybody = ["S", *DEEP]
    pids = {role: tree.pid(role) for role in everybody}
    for sender in senders:
        others = [role for role in everybody if role != sender]
        wanted = {
            "emit": [sender],
            "bubble": above(sender, DEEP),
            "sendToParents": above(sender, DEEP)[1:],
            "sendToChilds": [role for role in others if sender in above(role, DEEP)],
            "sendToSiblings": [role for role in others if DEEP.get(role, "") == DEEP.get(sender)],
            "sendToGrandMaster": ["S"],
            "broadcast": others,
        }
        for function, receivers in wanted.items():
            tree[sender].call(function, "evt")
            assert [item[0] for item in heard(tree)] == sorted(receivers), (function, sender)
        for target in everybody:
            if DEEP.get(target) == sender:
                tree[sender].call("sendToChild", pids[target], "evt")
                assert [item[0] for item in heard(tree)] == [target]
            way = path(sender, target, DEEP)
            tree[sender].call("sendTo", [pids[role] for role in reversed(way)], "evt")
            ((who, _, _, passed, *_),) = heard(tree)
            assert (who, passed) == (target, way)


def test_sendToChild_reaches_direct_children_and_refuses_all_others(full_tree):
    tree = full_tree
    pids = {role: tree.pid(role) for role in ROLES}
    for sender, target in itertools.permutations("SWCXD", 2):
        tree[sender].call("sendToChild", pids[target], "evt", key=1)
        (got,) = heard(tree)
        if PARENTS.get(target) == sender:
            assert got == message(target, "toChild", [sender, target], to=target, kwargs={"key": 1})
        else:
            assert (got[0], got[1], got[6][0]["kind"]) == (sender, "error", "UnknownProcess")


def test_sendTo_reaches_every_process_along_its_route_with_or_without_the_own_pid(full_tree):
    tree = full_tree
    pids = {role: tree.pid(role) for role in ROLES}
    for sender, target in itertools.permutations(ROLES, 2):
        route = [pids[role] for role in reversed(path(sender, target))]
        for given in (route, route[:-1]):
            tree[sender].call("sendTo", given, "evt", sender)
            wanted = message(target, "sendTo", path(sender, target), to=target, args=[sender])
            assert heard(tree) == [wanted]


def test_a_reply_goes_back_the_way_that_a_message_came(full_tree):
    tree = full_tree
    for origin in ("S", "X", "D"):
        tree[origin].call("broadcast", "evt", origin)
        heard(tree)
        for role in ROLES:
            if role != origin:
                tree[role].call("sendTo", tree[role].ever[-1]["pids"], "evt", "reply")
                reply = message(origin, "sendTo", path(role, origin), to=origin, args=["reply"])
                assert heard(tree) == [reply]


def test_a_route_that_is_broken_further_on_comes_back_to_its_origin(full_tree):
    tree = full_tree
    for sender, via in (("X", ["S", "W"]), ("D", ["C"]), ("S", ["W"]), ("V", ["C", "S"])):
        tree[sender].call("sendTo", ["no-such-pid", *(tree.pid(role) for role in via)], "evt")
        (got,) = heard(tree)
        assert (got[0], got[1], got[6][0]["kind"]) == (sender, "error", "Undeliverable")
        text = got[6][0]["error"]
        assert "'evt'" in text
        assert "no-such-pid" in text
        assert tree.pid(via[0]) in text


def test_every_process_knows_its_place_in_the_tree(full_tree):
    tree = full_tree
    children = {role: [name for name in PARENTS if PARENTS[name] == role] for role in ROLES}

    def below(role):
        return {tree.pid(name): below(name) for name in children[role]}

    for role in ROLES:
        state = tree[role].do("state")
        assert tree.name(state["pid"]) == role
        assert tree.name(state["parentPid"]) == PARENTS.get(role)
        assert state["childsOnline"] == len(children[role])
        assert state["isGrandMaster"] == (role == "S")
        assert state["isWorker"] == (role in "WD")
        assert state["isMaster"] == (role not in "WD")
        assert state["netmap"] == below(role)


def test_an_event_whose_only_listener_is_gone_is_not_sent_any_more(tree):
    tree.top("GM", options=LOCAL)
    tree.child("worker", "GM", "W", {})
    tree.child("fork", "W", "X", {"listen": ["evt"]})
    tree.wait_heard("X", "parent")
    heard(tree)

    def sent():
        (link,) = tree["GM"].do("stats")["links"].values()
        return link["sent"] + link["queued"]

    tree["GM"].call("sendToChilds", "evt", 1)
    assert [item[0] for item in heard(tree)] == ["X"]
    tree["X"].call("removeAllListeners", "evt")
    tree.fence()
    before = sent()
    for function in ("sendToChilds", "broadcast"):
        tree["GM"].call(function, "evt", 2)
    assert sent() == before
    tree["X"].do("listen", "evt")
    tree.fence()
    tree["GM"].call("sendToChilds", "evt", 3)
    assert [item[6] for item in heard(tree)] == [[3]]


def test_what_is_sent_to_a_child_before_its_online_waits_for_it_in_order(tree):
    tree.top("GM", options=LOCAL)
    child = tree.child("worker", "GM", "W", {"start": False})
    tree.take()
    for number, function in enumerate(("sendToChild", "sendToChilds", "broadcast", "sendTo", "sendToChild")):
        first = [str(child.pid)] if function in ("sendToChild", "sendTo") else []
        tree["GM"].call(function, *first, "evt", number)
        tree["GM"].call("sendToChilds", "nobody listens to this", number)
    child.do("listen", "evt")
    child.call("start")
    tree.wait_heard("W", "evt", 4)
    events = [(item["event"], item["args"]) for item in tree.take() if item["who"] == "W"]
    lifecycle = [("ready", []), ("online", []), ("parent", ["GM"])]
    assert events == [*lifecycle, *(("evt", [number]) for number in range(5))]


def test_what_waits_for_a_child_that_dies_is_not_given_to_its_successor(tree):
    tree.top("GM", options={**LOCAL, "delayRestart": 100})
    child = tree.child("fork", "GM", "W", {"start": False, "listen": ["evt"]})
    tree["GM"].call("sendToChild", str(child.pid), "evt", "for the first")
    tree.plans["W"]["start"] = True
    tree.kill("W")
    tree.prepared("W", 2)
    tree.wait_heard("W", "parent")
    assert [item for item in heard(tree) if item[1] == "evt"] == []


def test_a_killed_middle_takes_its_subtree_along_and_offline_comes_deepest_first(tree):
    tree.top("GM", options=LOCAL)
    for parent, role in (("GM", "W"), ("W", "X"), ("X", "Z"), ("GM", "V")):
        tree.child("fork", parent, role, {"options": {"restart": False}}, restart=False)
        tree.wait_heard(role, "parent")
    heard(tree)
    tree.kill("W")
    tree.wait_heard("GM", "offline", str(tree["W"].pid))
    tree.wait(lambda: tree["X"].gone and tree["Z"].gone, "the end of the subtree")
    tree.fence()
    found = [item for item in tree.take() if item["who"] == "GM"]
    assert [(item["event"], item["args"], item["pids"], item["exitcode"]) for item in found] == [
        ("offline", ["Z"], ["GM"], None),
        ("offline", ["X"], ["GM"], None),
        ("offline", ["W"], ["GM"], -9),
    ]
    assert tree["GM"].do("state")["netmap"] == {str(tree["V"].pid): {}}


def test_a_killed_client_takes_its_children_along(full_tree):
    tree = full_tree
    dead = {tree.pid(role): role for role in "CD"}
    tree.kill("C")
    for pid in dead:
        tree.wait_heard("S", "offline", pid)
    tree.wait(lambda: tree["D"].gone, "the end of the client's child")
    found = [item for item in tree["S"].ever if item["event"] == "offline"]
    assert [(dead[item["args"][0]], item["exitcode"]) for item in found] == [("D", None), ("C", None)]
    tree.fence()
    assert {item["who"] for item in tree.take()} == {"S"}
    tree["V"].call("broadcast", "evt")
    assert {item[0] for item in heard(tree)} == set("SWXY")


def test_a_listener_may_start_a_child_while_the_main_thread_starts(place):
    script = write(
        place / "script.py",
        """
        import threading
        from ipevents import ipem

        entered, ready = threading.Event(), threading.Event()

        @ipem.on("online")
        def online(message):
            if message.type and not entered.is_set():
                entered.set()
                ready.wait()
                ipem.start()
                ipem.worker(ipem.sendToParents, ("done",))

        @ipem.on("done")
        def done(message):
            print("done")
            ipem.stop()

        ipem.options(useSocket=False)
        child = ipem.worker(ipem.start)
        entered.wait()
        ipem.on("ready", lambda message: None)
        threading.Timer(0.05, ready.set).start()  # by then the main thread waits for the listener's end
        ipem.start()
        ipem.run()
        """,
    )
    assert printed(script) == ["done"]


def test_a_listener_for_one_sender_hears_no_other(place):
    script = write(
        place / "script.py",
        """
        from ipevents import ipem

        def work(number):
            @ipem.on("go")
            def go(message):
                ipem.sendToParents("evt", number)
                ipem.sendToParents("last", number)

        heard, last = [], []

        @ipem.on("last")
        def done(message, number):
            last.append(number)
            if len(last) == 3:
                print(heard)
                ipem.stop()

        ipem.options(useSocket=False).start()
        workers = [ipem.worker(work, (number,)) for number in range(3)]
        ipem.on("evt", lambda message, number: heard.append(number), sender=workers[2])
        for child in workers:
            child.send("go")
        ipem.run()
        """,
    )
    assert printed(script) == ["[2]"]


def test_a_child_that_keeps_dying_young_is_given_up_where_that_was_asked_for(place):
    script = write(
        place / "script.py",
        """
        import os
        from ipevents import ipem

        errors = []
        ipem.on("error", lambda message, exc: errors.append(type(exc).__name__))
        ipem.options(useSocket=False, delayRestart=1, maxRestarts=3).start()
        child = ipem.worker(os._exit, (7,))
        print(child.join(30), child.restarts, child.exitcode)
        ipem.stop()
        print(errors)
        """,
    )
    assert printed(script) == ["True 2 7", "['StartFailed', 'StartFailed', 'StartFailed', 'GaveUp']"]


@pytest.mark.parametrize(("code", "restarts"), [(0, 0), (1, 1)])
def test_on_failure_restarts_only_after_a_failure(place, code, restarts):
    script = write(
        place / "script.py",
        f"""
        import os
        from ipevents import ipem

        def work(mark):
            ipem.start()
            first = not os.path.exists(mark)
            open(mark, "w").close()
            raise SystemExit({code} if first else 0)

        ipem.options(useSocket=False, delayRestart=1, restart="on-failure").start()
        child = ipem.worker(work, ({str(place / "mark")!r},))
        print(child.join(30), child.restarts, child.exitcode)
        ipem.stop()
        """,
    )
    assert printed(script) == [f"True {restarts} 0"]


def test_a_restarted_middle_starts_its_own_children_again(place):
    script = write(
        place / "script.py",
        """
        import os
        from ipevents import ipem

        def leaf():
            ipem.start()

        def middle():
            ipem.worker(leaf)
            ipem.start()

        seen = []
        lives = []

        @ipem.on("online")
        def online(message):
            if len(message.pids) == 3:
                lives.append(message.pids[:2])
                if len(lives) == 1:
                    os.kill(int(message.pids[1]), 9)
                else:
                    different = len({pid for pids in lives for pid in pids})
                    print(different, child.restarts, child.pid == message.pids[1])
                    ipem.stop()

        @ipem.on("offline")
        def offline(message, pid):
            if not ipem.stopping:
                print("offline", lives[0].index(pid), message.exitcode)

        ipem.options(useSocket=False).start()
        child = ipem.worker(middle, delayRestart=50, restart=True)
        ipem.run()
        """,
    )
    assert printed(script) == ["offline 0 None", "offline 1 -9", "4 1 True"]


CHAIN = """
    from ipevents import ipem

    def link(depth):
        @ipem.on("question")
        def question(message, number):
            if depth == 0:
                message.reply("answer", number + 1)

        @ipem.on("answer")
        def answer(message, number):
            ipem.sendToGrandMaster("result", number, len(message.pids))

        if depth:
            ipem.worker(link, (depth - 1,))
        else:
            ipem.sendToGrandMaster("deep", 1)

    @ipem.on("deep")
    def deep(message, number):
        print("deep", len(message.pids), message.type)
        ipem.sendToChilds("question", 41)

    @ipem.on("answer")
    def answer(message, number):
        print("answer", number, len(message.pids), message.type)
        message.reply("answer", number)

    @ipem.on("result")
    def result(message, *numbers):
        print("result", *numbers)
        ipem.stop()

    ipem.options(useSocket=False).start()
    ipem.worker(link, (4,))
    ipem.run()
"""


def test_function_workers_start_workers_five_levels_deep(place):
    script = write(place / "script.py", CHAIN)
    wanted = ["deep 6 toGM", "answer 42 6 sendTo"]
    assert printed(script) == [*wanted, "result 42 6"]


def test_big_arguments_arrive_whole_over_several_hops(place):
    script = write(
        place / "script.py",
        """
        import numpy
        from ipevents import ipem

        def middle():
            ipem.worker(leaf)

        def leaf():
            @ipem.on("work")
            def work(message, blob, *, array, text):
                array += 1
                writable = array.flags.writeable and isinstance(blob, bytes)
                message.reply("done", blob, writable, array=array, text=text)
            ipem.sendToGrandMaster("here")

        blob = bytes(range(256)) * 4096
        array = numpy.arange(300_000, dtype="int64").reshape(300, 1000)

        @ipem.on("here")
        def here(message):
            message.reply("work", blob, array=array, text="x" * 100_000)

        @ipem.on("done")
        def done(message, back, writable, *, array, text):
            numbers = int(array[0, 0]), int(array[-1, -1])
            print(back == blob, writable, *numbers, array.flags.writeable, len(text))
            ipem.stop()

        ipem.options(useSocket=False).start()
        ipem.worker(middle)
        ipem.run()
        """,
    )
    assert printed(script) == ["True True 1 300000 True 100000"]


@pytest.mark.parametrize("end", ["return", "sys.exit()", "sys.exit(3)"])
def test_all_that_a_worker_sends_before_a_clean_exit_arrives_before_its_offline(place, end):
    script = write(
        place / "script.py",
        f"""
        import sys
        from ipevents import ipem

        def work():
            for number in range(200):
                ipem.sendToParents("evt", number)
            {end}

        seen = []
        ipem.on("evt", lambda message, number: seen.append(number))

        @ipem.on("offline")
        def offline(message, pid):
            print(seen == list(range(200)), message.exitcode)
            ipem.stop()

        ipem.options(useSocket=False, restart=False).start()
        ipem.worker(work)
        ipem.run()
        """,
    )
    code = 3 if "3" in end else 0
    assert printed(script) == [f"True {code}"]


def test_closures_lambdas_and_functions_of_the_script_are_targets(place):
    script = write(
        place / "script.py",
        """
        from ipevents import ipem

        FACTOR = 3

        class Job:
            def __init__(self, number):
                self.number = number

        def product(job, other=1):
            ipem.sendToParents("done", "function", job.number * FACTOR * other)

        def closure(number):
            def target():
                ipem.sendToParents("done", "closure", number)
            return target

        results = set()

        @ipem.on("done")
        def done(message, *result):
            results.add(result)
            if len(results) == 3:
                print(sorted(results))
                ipem.stop()

        ipem.options(useSocket=False).start()
        ipem.worker(product, (Job(5),), {"other": 2})
        ipem.worker(closure(7))
        ipem.worker(lambda: ipem.sendToParents("done", "lambda", FACTOR))
        ipem.run()
        """,
    )
    assert printed(script) == ["[('closure', 7), ('function', 30), ('lambda', 3)]"]


def test_what_cannot_be_a_target_is_refused_at_the_call(place):
    script = write(
        place / "script.py",
        """
        import threading
        from ipevents import Unpicklable, ipem

        lock = threading.Lock()
        ipem.options(useSocket=False).start()
        try:
            ipem.worker(lambda: lock)
        except Unpicklable as error:
            print("lambda" in str(error), "lock" in str(error), ipem.childsOnline)
        ipem.stop()
        """,
    )
    assert printed(script) == ["True True 0"]


RERUN = """
    import sys
    from ipevents import ipem

    class Job:
        number = 6

    if ipem.isWorker:
        @ipem.on("job")
        def job(message, job):
            message.reply("done", job.number * 7, sys.modules["__main__"].Job is Job, __name__, sys.argv[1:])
    else:
        @ipem.on("done")
        def done(message, *result):
            print(*result)
            ipem.stop()

        ipem.options(useSocket=False).start()
        child = ipem.worker()
        ipem.sendToChild(child, "job", Job())
    ipem.run()
"""


@pytest.mark.parametrize("how", ["script", "module", "package", "directory"])
def test_a_worker_without_a_target_runs_the_same_program_again(place, how):
    write(place / "package" / "__init__.py", "")
    names = {"script": "script.py", "module": "module.py", "package": "package/__main__.py"}
    write(place / names.get(how, "folder/__main__.py"), RERUN)
    commands = {
        "script": [place / "script.py"],
        "module": ["-m", "module"],
        "package": ["-m", "package"],
        "directory": [place / "folder"],
    }
    assert printed(*commands[how], "one", "two", cwd=place) == ["42 True __main__ ['one', 'two']"]


def test_without_a_script_a_worker_needs_a_target(place):
    program = "from ipevents import ipem\nipem.options(useSocket=False).start()\ntry: ipem.worker()\n"
    program += "except RuntimeError as e: print(type(e).__name__, 'worker(target)' in str(e))\nipem.stop()"
    assert printed("-c", program) == ["WorkerRefused True"]


def test_a_bare_worker_in_a_bare_worker_is_refused_once_and_not_restarted(place):
    script = write(
        place / "script.py",
        """
        from ipevents import WorkerRefused, ipem

        errors = []
        ipem.on("error", lambda message, exc: errors.append((type(exc).__name__, "isMaster" in str(exc))))
        ipem.options(useSocket=False, delayRestart=1).start()
        child = ipem.worker()
        print(child.join(30), child.restarts, child.exitcode)
        ipem.stop()
        print(errors)
        """,
    )
    ended = run(script)
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == ["True 0 1", "[('WorkerRefused', True)]"]


def test_a_script_that_forks_itself_endlessly_is_refused_at_the_last_level(place):
    script = write(
        place / "script.py",
        """
        import sys
        from ipevents import _emitter, ipem

        _emitter.MAX_DEPTH = 3
        level = int(sys.argv[1]) if len(sys.argv) > 1 else 0

        @ipem.on("error")
        def error(message, exc):
            if type(exc).__name__ == "WorkerRefused":
                ipem.sendToGrandMaster("refused", level, "at most 3 levels" in str(exc))

        @ipem.on("refused")
        def refused(message, level, with_reason):
            print(level, with_reason)
            ipem.stop()

        ipem.options(useSocket=False, delayRestart=1).start()
        ipem.fork(__file__, [level + 1])
        ipem.run()
        """,
    )
    ended = run(script)
    assert ended.returncode == 0
    # The one below level 2 could not; level 2 does not start it again.
    assert ended.stdout == "2 True\n"


def test_a_forked_script_has_its_own_arguments_and_is_a_master(place):
    write(
        place / "other.py",
        """
        import sys
        from ipevents import ipem

        ipem.start()
        ipem.sendToParents("hello", sys.argv[1:], __name__, ipem.isMaster, ipem.isWorker, ipem.isGrandMaster)
        """,
    )
    script = write(
        place / "script.py",
        """
        from ipevents import ipem

        @ipem.on("hello")
        def hello(message, *what):
            print(*what, child.name)
            ipem.stop()

        ipem.options(useSocket=False).start()
        child = ipem.fork("other.py", ["a", 2])
        ipem.run()
        """,
    )
    assert printed(script, cwd=place) == ["['a', '2'] __main__ True False False other.py"]


def test_fork_of_a_missing_script_is_refused_at_the_call(place):
    program = "from ipevents import ipem\nipem.options(useSocket=False).start()\ntry: ipem.fork('none.py')\n"
    program += "except FileNotFoundError as e: print(e.filename, ipem.childsOnline)\nipem.stop()"
    assert printed("-c", program, cwd=place) == ["none.py 0"]


def test_a_child_that_ends_before_its_online_is_a_failed_start_with_its_traceback(place):
    script = write(
        place / "script.py",
        """
        from ipevents import ipem

        def broken():
            raise ValueError("no good")

        @ipem.on("error")
        def error(message, exc):
            print(type(exc).__name__, exc.exitcode, "no good" in exc.traceback, exc.pid == child.pid)
            ipem.stop()

        ipem.on("online", lambda message: print("online", message.from_ == ipem.pid))
        ipem.on("offline", lambda message, pid: print("offline"))
        ipem.options(useSocket=False, restart=False).start()
        child = ipem.worker(broken)
        ipem.run()
        """,
    )
    ended = run(script)
    assert ended.stdout.splitlines() == ["online True", "StartFailed 1 True True"]
    assert ended.stderr.count("ValueError: no good") == 1  # the child's own


def test_a_wrong_wish_for_a_child_is_refused_and_changes_nothing(place):
    script = write(
        place / "script.py",
        """
        from ipevents import ipem

        def stay():
            ipem.start()

        def refused(call, *args):
            try:
                call(*args)
            except (TypeError, ValueError) as exc:
                print(type(exc).__name__, exc)

        ipem.options(useSocket=False, restart="on-failure").start()
        child = ipem.worker(stay)
        refused(child.stop, "3")
        refused(child.stop, float("nan"))
        refused(child.join, "x")
        refused(child.join, -1)
        refused(setattr, child, "restart", "sometimes")
        refused(setattr, child, "restart", None)
        print(child.alive, child.restart)
        child.stop()
        refused(child.stop, "3")
        ipem.stop()
        """,
    )
    right = "a timeout is a number of seconds from 0 on, or None"
    option = "option 'restart' must be True, False or \"on-failure\""
    assert printed(script) == [
        f"TypeError {right}, not '3'",
        f"ValueError {right}, not nan",
        f"TypeError {right}, not 'x'",
        f"ValueError {right}, not -1",
        f"OptionsError {option}, not 'sometimes'",
        f"OptionsError {option}, not None",
        "True on-failure",
        f"TypeError {right}, not '3'",
    ]


def test_a_child_is_reached_through_its_handle_over_its_restarts(place):
    script = write(
        place / "script.py",
        """
        from ipevents import UnknownProcess, ipem

        def work():
            @ipem.on("end")
            def end(message):
                raise SystemExit(4)

        pids = set()

        @ipem.on("online")
        def online(message):
            if len(message.pids) == 2:
                pids.add(message.from_)
                if len(pids) < 3:
                    child.send("end")
                else:
                    print(child.restarts, child.exitcode, child.pid == message.from_, child.alive)
                    child.stop()

        ipem.options(useSocket=False, delayRestart=20).start()
        child = ipem.worker(work)
        print(child.join(30), child.alive, child.exitcode, ipem.childsOnline)
        try:
            child.send("end")
        except UnknownProcess as error:
            print("ended" in str(error))
        ipem.stop()
        """,
    )
    assert printed(script) == ["2 4 True True", "True False 0 0", "True"]


def test_no_user_code_can_send_or_emit_what_belongs_to_the_library(tree):
    tree.top("GM", options=LOCAL)
    tree.child("worker", "GM", "W", {"deaf": ["error"]})
    tree.wait_heard("W", "parent")
    heard(tree)
    for event in ("ready", "online", "offline", "parent"):
        for function in ("emit", "bubble", "broadcast", "sendToParents", "sendToGrandMaster"):
            with pytest.raises(Raised, match="ReservedEvent"):
                tree["W"].call(function, event, "x")
    with pytest.raises(Raised, match="ReservedEvent"):
        tree["W"].call("sendToParents", "error", "x")
    assert heard(tree) == []


def test_netmap_and_counters_tell_what_a_tree_did(capsys):
    def middle():
        from ipevents import ipem

        def leaf():
            ipem.on("ask", lambda message, number: message.reply("answer", number))

        ipem.on("count", lambda message: message.reply("counted", ipem.stats()))
        ipem.worker(leaf)

    with Emitter().options(useSocket=False) as top:
        with top.expecting("online", CEILING_SECONDS, lambda message: len(message.pids) == 3) as online:
            child = top.worker(middle)
        pids = online.message.pids
        for number in range(3):
            with top.expecting("answer", CEILING_SECONDS):
                top.sendTo(pids, "ask", number)
        with top.expecting("counted", CEILING_SECONDS) as counted:
            child.send("count")
        top.printNetmap()
        stats = {"top": top.stats(), "middle": counted.message.args[0]}
    assert capsys.readouterr().out.split("\n") == [pids[2], f"  {pids[1]}", f"    {pids[0]}", ""]
    totals = ("pid", "restarts", "sent", "copies", "unheard", "dropped", "refused")
    of_a_link = ("sent", "received", "forwarded", "dropped", "queued")
    assert [stats["top"][key] for key in totals] == [pids[2], 0, 4, 4, 0, {}, {}]
    assert [stats["top"]["links"][pids[1]][key] for key in of_a_link] == [4, 4, 0, {}, 0]
    assert [stats["middle"][key] for key in totals] == [pids[1], 0, 0, 0, 0, {}, {}]
    assert [stats["middle"]["links"][pids[2]][key] for key in of_a_link] == [3, 4, 3, {}, 0]
    assert [stats["middle"]["links"][pids[0]][key] for key in of_a_link] == [3, 3, 3, {}, 0]
    # Delivered is what its listeners have returned from, links that are gone are in the past.
    after = top.stats()
    assert (after["delivered"], after["links"]) == (4, {})
    others = {"unheard": 0, "unreadable": 0, "dropped": 0}
    assert after["past"] == {
        "sent": 4,
        "acknowledged": 4,
        "acknowledgedAs": {"delivered": 1, "forwarded": 3, **others},
        "lost": 0,
        "dropped": {},
        "received": 4,
        "receivedAs": {"delivered": 4, "forwarded": 0, **others},
        "forwarded": 0,
    }
