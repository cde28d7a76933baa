"""A child runs a script, or a function of it, as python itself would."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest
from matrix import diagonal, slow
from scripts import CEILING_SECONDS, write

# What a script sees of how it was started. It looks before ipevents is imported.
REPORT = """
    import sys

    def report(function):
        space = globals()
        loader = lambda it: it and [type(it).__name__, it.__dict__.get("name"), it.__dict__.get("path")]
        spec = space["__spec__"]
        return {
            "names": sorted(name for name in space if name.startswith("__")),
            "values": [space.get(name) for name in ("__name__", "__file__", "__package__", "__cached__", "__doc__")],
            "annotations": repr(space.get("__annotations__")),
            "spec": spec and [spec.name, spec.origin, spec.cached, spec.has_location, loader(spec.loader)],
            "loader": loader(space["__loader__"]),
            "builtins": type(space["__builtins__"]).__name__,
            "is main": sys.modules["__main__"].__dict__ is space,
            "is main for multiprocessing": sys.modules.get("__mp_main__", sys.modules["__main__"]).__dict__ is space,
            "argv": sys.argv,
            "command": sys.orig_argv[1:],
            "path": sys.path,
            "flags": repr(sys.flags),
            "options": [sys.warnoptions, sorted(sys._xoptions)],
            "future": repr(function.__annotations__),
            "debug": __debug__,
            "unbuffered": sys.stdout.write_through,
        }

    def annotated(x: int) -> str: ...

    seen = report(annotated)
"""
AGAIN = (
    REPORT
    + """
    from ipevents import ipem

    if ipem.isWorker:
        ipem.sendToParents("seen", seen)
    else:
        with ipem.options(useSocket=False, restart=False):
            with ipem.expecting("seen", timeout=30) as got:
                ipem.worker()
        child = got.message.args[0]
        print({key: (seen[key], child[key]) for key in seen if seen[key] != child[key]})
"""
)
FORKED = (
    REPORT
    + """
    import json

    with open(sys.argv[1], "w") as file:
        json.dump(seen, file)
"""
)
FORKS = """
    import sys
    from ipevents import ipem

    with ipem.options(useSocket=False, restart=False):
        print(ipem.fork(sys.argv[1], sys.argv[2:]).join(30))
"""


def python(*command: object, cwd: Path, **environ: str) -> str:
    """What python prints with these arguments; it must end with status 0."""
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=CEILING_SECONDS,
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.path.dirname(HERE), **environ},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def made(place: Path, kind: str, text: str) -> list[str]:
    """Make a program of a kind; returns what follows ``python``, as it is typed in ``place``."""
    if kind in ("script", "dotted"):
        write(place / "script.py", text)
        return ["./script.py" if kind == "dotted" else "script.py"]
    if kind in ("link", "above a link"):
        write(place / "real" / "inner" / "script.py", text)
        if kind == "link":
            (place / "link.py").symlink_to("real/inner/script.py")
            return ["link.py"]
        write(place / "real" / "above.py", text)
        (place / "linked").symlink_to("real/inner")
        return ["linked/../above.py"]  # real/above.py; the text alone says above.py, which is none
    if kind == "compiled":
        py_compile.compile(str(write(place / "source.py", text)), str(place / "script.pyc"), doraise=True)
        return ["script.pyc"]
    if kind == "compiled, without an ending":
        py_compile.compile(str(write(place / "source.py", text)), str(place / "script"), doraise=True)
        return ["script"]
    if kind in ("directory", "archive"):
        write(place / "source" / "__main__.py", text)
        if kind == "directory":
            return ["source"]
        zipapp.create_archive(place / "source", place / "app.pyz")
        return ["app.pyz"]
    if kind == "module":
        write(place / "module.py", text)
        return ["-m", "module"]
    write(place / "package" / "__init__.py", "")
    write(place / "package" / "inner" / "__main__.py", text)  # a namespace package
    return ["-m", "package.inner"]


KINDS = [
    "script",
    "dotted",
    "link",
    "above a link",
    "compiled",
    "compiled, without an ending",
    "directory",
    "archive",
    "module",
    "package",
]


@pytest.mark.parametrize("kind", [slow(kind) if " " in kind else kind for kind in KINDS])
def test_a_script_that_runs_again_sees_the_start_that_the_first_one_saw(tmp_path, kind):
    assert python(*made(tmp_path, kind, AGAIN), "one", "two", cwd=tmp_path) == "{}\n"


OPTIONS = [
    ["-I"],
    ["-O", "-u"],
    ["-OO", "-B"],
    ["-Werror::ImportWarning", "-Wignore:a"],
    ["-X", "dev", "-X", "int_max_str_digits=5000", "-X", "own=3"],
]
if sys.version_info >= (3, 11):
    OPTIONS.append(["-P"])


@pytest.mark.parametrize(("kind", "options"), diagonal(["script", "directory"], OPTIONS))
def test_a_script_that_runs_again_has_the_options_of_the_interpreter(tmp_path, kind, options):
    if "-I" in options and not is_installed():
        pytest.skip("with -I the package is not found where it is not installed")
    assert python(*options, *made(tmp_path, kind, AGAIN), cwd=tmp_path) == "{}\n"


def is_installed() -> bool:
    return not subprocess.run([sys.executable, "-I", "-c", "import ipevents"], capture_output=True).returncode


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH came with 3.11")
@pytest.mark.parametrize("kind", [slow("script"), "directory"])
def test_a_script_that_runs_again_has_no_folder_of_its_own_where_the_first_had_none(tmp_path, kind):
    assert python(*made(tmp_path, kind, AGAIN), cwd=tmp_path, PYTHONSAFEPATH="1") == "{}\n"


@pytest.mark.parametrize(
    ("kind", "by"),
    diagonal([kind for kind in KINDS if kind not in ("module", "package")], ["script", "command"]),
)
def test_a_forked_script_sees_the_start_that_python_gives_it(tmp_path, kind, by):
    (name,) = made(tmp_path, kind, FORKED)
    python(name, "seen.json", "x", cwd=tmp_path)
    alone = json.loads((tmp_path / "seen.json").read_text())
    (tmp_path / "seen.json").unlink()
    write(tmp_path / "elsewhere" / "forks.py", FORKS)
    start = (
        ["elsewhere/forks.py"]
        if by == "script"
        else ["-c", "exec(open('elsewhere/forks.py').read().strip())"]
    )
    assert python(*start, name, "seen.json", "x", cwd=tmp_path) == "True\n"
    forked = json.loads((tmp_path / "seen.json").read_text())
    if by == "script":
        assert forked["command"] == alone["command"]
    assert {key: (alone[key], forked[key]) for key in alone if alone[key] != forked[key]} == {}


# Under tools, and without a main module

FUNCTION = """
    import sys
    from ipevents import ipem

    def work():
        ipem.sendToParents("ran", ipem.isWorker, sys.modules["__main__"].work is work)

    with ipem.options(useSocket=False, restart=False):
        with ipem.expecting("ran", timeout=30) as got:
            ipem.worker(work)
    print("done", got.message.args)
"""
BARE = """
    import sys
    from ipevents import ipem

    if ipem.isWorker:
        ipem.sendToParents("ran", sys.argv[1:], __name__)
    else:
        with ipem.options(useSocket=False, restart=False):
            with ipem.expecting("ran", timeout=30) as got:
                ipem.worker()
        print("done", got.message.args)
"""
TOOLS = {
    "pdb": ["-m", "pdb", "-c", "continue"],
    "cProfile": ["-m", "cProfile", "-o", "profile"],
    "profile": ["-m", "profile", "-o", "profile"],
    "trace": ["-m", "trace", "--count", "--coverdir", "covered"],
    "runpy": [
        "-c",
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
    ],
}


@pytest.mark.parametrize("tool", [tool if tool == "pdb" else slow(tool) for tool in TOOLS])
def test_a_function_of_a_script_runs_in_a_worker_under_a_tool(tmp_path, tool):
    write(tmp_path / "script.py", FUNCTION)
    assert "done (True, True)" in python(*TOOLS[tool], "script.py", cwd=tmp_path)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_worker_without_a_function_runs_the_script_and_not_the_tool_or_an_argument(tmp_path, tool):
    write(tmp_path / "script.py", BARE)
    victim = write(tmp_path / "victim.py", "open('executed', 'w')\n")
    printed = python(*TOOLS[tool], "script.py", victim, cwd=tmp_path)
    assert f"done ([{str(victim)!r}], '__main__')" in printed
    assert not (tmp_path / "executed").exists()


def test_a_worker_without_a_function_runs_the_module_that_a_tool_runs(tmp_path):
    write(tmp_path / "pack" / "__main__.py", BARE)
    assert "done (['x'], '__main__')" in python(
        "-m", "cProfile", "-o", "out", "-m", "pack", "x", cwd=tmp_path
    )


@pytest.mark.parametrize(
    ("program", "before"),
    diagonal(
        {"function": FUNCTION, "bare": BARE},
        {
            "no spec": "del sys.modules['__main__'].__spec__",
            "no module": "kept = sys.modules.pop('__main__')",
        },
    ),
)
def test_a_main_module_without_a_spec_or_none_at_all_is_no_hindrance(tmp_path, before, program):
    if program is FUNCTION:
        program = program.replace('sys.modules["__main__"].work is work', "True")
    write(tmp_path / "script.py", f"\n    import sys\n    {before}\n" + program)
    assert "done" in python("script.py", cwd=tmp_path)


@pytest.mark.parametrize("how", ["command", "stdin", "pipe"])
def test_what_cannot_be_read_again_is_refused_with_the_way_out(tmp_path, how):
    program = "from ipevents import ipem\nipem.options(useSocket=False).start()\n"
    program += "try: ipem.worker()\nexcept RuntimeError as exc: print(exc)\nipem.stop()\n"
    command = {"command": ["-c", program], "stdin": ["-"], "pipe": ["/dev/stdin"]}[how]
    ended = subprocess.run(
        [sys.executable, *command],
        input=program,
        capture_output=True,
        text=True,
        timeout=CEILING_SECONDS,
        check=True,
        cwd=tmp_path,
    )
    assert "pass a function: worker(target)" in ended.stdout


@pytest.mark.skipif(
    (3, 12) <= sys.version_info[:3] < (3, 12, 3),
    reason="these can start no thread after a script's body, see README, Limits",
)
def test_a_script_that_has_ended_and_serves_can_still_be_run_again(tmp_path):
    text = """
        from ipevents import ipem

        if ipem.isWorker:
            ipem.sendToParents("ran")
        else:
            @ipem.on("go")
            def go(message):
                ipem.worker(restart=False)

            @ipem.on("ran")
            def ran(message):
                print("ran")
                ipem.stop()

            import atexit
            ipem.options(useSocket=False).start()
            atexit.register(ipem.emit, "go")  # called after the script's body, before the library's own hook
    """
    write(tmp_path / "script.py", text)
    assert python("script.py", cwd=tmp_path) == "ran\n"


# Functions

NESTED = """
    import concurrent.futures, multiprocessing, os, pickle, sys
    from ipevents import ipem

    class Point:
        def __init__(self, x): self.x = x

    def square(point):
        return Point(point.x ** 2)

    def use(how):
        spawn = multiprocessing.get_context("spawn")
        if how == "pickle":
            return pickle.loads(pickle.dumps(square(Point(3))))
        if how == "pool":
            with spawn.Pool(1) as pool:
                return pool.map(square, [Point(3)])[0]
        if how == "executor":
            with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
                return pool.submit(square, Point(3)).result()
        process = spawn.Process(target=square, args=(Point(3),))
        process.start()
        process.join()
        return Point(9 - process.exitcode)

    def work(how, levels):
        if levels:
            ipem.worker(work, [how, levels - 1], restart=False).join(30)
            return
        import __main__
        result = use(how)
        ipem.sendToGrandMaster("done", result.x, type(result) is Point is __main__.Point, result)

    if __name__ == "__main__":
        how, levels = sys.argv[1], int(sys.argv[2])
        with ipem.options(useSocket=False, restart=False):
            with ipem.expecting("done", timeout=30) as got:
                ipem.worker(work, [how, levels])
        *told, result = got.message.args
        print(*told, type(result) is Point)
"""


@pytest.mark.parametrize(("how", "levels"), diagonal(["pickle", "pool", "executor", "process"], [0, 2]))
def test_in_a_worker_pickle_and_multiprocessing_know_what_the_script_defines(tmp_path, how, levels):
    write(tmp_path / "script.py", NESTED)
    assert python("script.py", how, levels, cwd=tmp_path) == "9 True True\n"


def test_in_a_worker_of_a_module_a_pool_finds_the_module(tmp_path):
    write(tmp_path / "pack" / "__init__.py", "")
    write(tmp_path / "pack" / "tool.py", NESTED)
    assert python("-m", "pack.tool", "pool", 0, cwd=tmp_path) == "9 True True\n"


def test_a_script_that_runs_again_can_use_a_pool_for_what_it_defines(tmp_path):
    text = NESTED.replace("ipem.worker(work, [how, levels])", "ipem.worker()").replace(
        '    if __name__ == "__main__":',
        '    if ipem.isWorker:\n        work("pool", 0)\n    elif __name__ == "__main__":',
    )
    write(tmp_path / "script.py", text)
    told = python("script.py", "pool", 0, cwd=tmp_path)
    assert told == "9 True False\n"  # a class of another run of the script is another class, see README


@pytest.mark.parametrize("kind", ["script", "archive"])
def test_the_traceback_of_a_function_has_its_file_and_its_lines(tmp_path, kind):
    text = """
        from ipevents import ipem

        def broken():
            raise ValueError("no good")

        with ipem.options(useSocket=False, restart=False):
            with ipem.expecting("error", timeout=30) as got:
                ipem.worker(broken)
        print(got.message.args[0].traceback)
    """
    path = made(tmp_path, kind, text)
    file = tmp_path / path[0] / "__main__.py" if kind == "archive" else tmp_path / path[0]
    printed = python(*path, cwd=tmp_path)
    assert f'File "{file}", line 5, in broken\n    raise ValueError("no good")\n' in printed


def test_a_class_with_slots_comes_back_as_what_it_is(tmp_path):
    text = """
        import dataclasses
        from ipevents import ipem

        @dataclasses.dataclass(slots=True)
        class Result:
            n: int

        def work(given):
            ipem.sendToParents("result", Result(given.n + 1), hasattr(given, "__dict__"))

        with ipem.options(useSocket=False, restart=False):
            with ipem.expecting("result", timeout=30) as got:
                ipem.worker(work, [Result(1)])
        print(got.message.args, type(got.message.args[0]) is Result)
    """
    write(tmp_path / "script.py", text)
    assert python("script.py", cwd=tmp_path) == "(Result(n=2), False) True\n"


def test_a_worker_without_a_function_stays_refused_in_a_worker_with_one(tmp_path):
    text = """
        from ipevents import ipem

        def work():
            try:
                ipem.worker()
            except RuntimeError as exc:
                ipem.sendToParents("refused", str(exc))

        with ipem.options(useSocket=False, restart=False):
            with ipem.expecting("refused", timeout=30) as got:
                ipem.worker(work)
        print("pass a function" in got.message.args[0])
    """
    write(tmp_path / "script.py", text)
    assert python("script.py", cwd=tmp_path) == "True\n"


@pytest.mark.parametrize("options", [[], ["-O"], ["-X", "dev", "-W", "error"]])
def test_what_looks_at_functions_and_classes_sees_in_a_worker_what_it_sees_in_the_script(tmp_path, options):
    text = """
        import dataclasses, inspect, sys, typing, warnings
        from ipevents import ipem

        @dataclasses.dataclass
        class Job:
            n: int
            after: "list[Job]" = dataclasses.field(default_factory=list)

            def total(self):
                return self.n + sum(job.total() for job in self.after)

        class Special(Job):
            def total(self):
                return super().total() * 10

        def work(job: "Job", other: "Special | None" = None):
            try:
                warnings.warn("look", UserWarning)
                warned = "shown"
            except UserWarning:
                warned = "raised"
            return [
                __name__, __file__, __debug__, sys.flags.dev_mode, warned, job.total(),
                repr(typing.get_type_hints(work)), repr(typing.get_type_hints(Job)),
                [field.name for field in dataclasses.fields(job)],
                inspect.getsource(work), inspect.getsource(Job), inspect.getmodule(work) is sys.modules["__main__"],
            ]

        def tell(job):
            ipem.sendToParents("seen", work(job))

        job = Special(1, [Job(2), Special(3)])
        with ipem.options(useSocket=False, restart=False):
            with ipem.expecting("seen", timeout=30) as got:
                ipem.worker(tell, [job])
        print(got.message.args[0] == work(job))
    """
    write(tmp_path / "script.py", text)
    assert python(*options, "script.py", cwd=tmp_path) == "True\n"
