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


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_that_runs_again_sees_the_start_that_the_first_one_saw(tmp_path, kind):
    assert python(*made(tmp_path, kind, AGAIN), "one", "two", cwd=tmp_path) == "{}\n"


@pytest.mark.parametrize(
    "options",
    [
        ["-I"],
        ["-O"],
        ["-OO", "-B"],
        ["-Werror::ImportWarning", "-Wignore:a"],
        ["-X", "dev", "-X", "int_max_str_digits=5000", "-X", "own=3"],
        pytest.param(
            ["-P"], marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="-P came with 3.11")
        ),
    ],
)
@pytest.mark.parametrize("kind", ["script", "directory"])
def test_a_script_that_runs_again_has_the_options_of_the_interpreter(tmp_path, kind, options):
    if "-I" in options and not is_installed():
        pytest.skip("with -I the package is not found where it is not installed")
    assert python(*options, *made(tmp_path, kind, AGAIN), cwd=tmp_path) == "{}\n"


def is_installed() -> bool:
    return not subprocess.run([sys.executable, "-I", "-c", "import ipevents"], capture_output=True).returncode


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH came with 3.11")
@pytest.mark.parametrize("kind", ["script", "directory"])
def test_a_script_that_runs_again_has_no_folder_of_its_own_where_the_first_had_none(tmp_path, kind):
    assert python(*made(tmp_path, kind, AGAIN), cwd=tmp_path, PYTHONSAFEPATH="1") == "{}\n"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("module", "package")])
@pytest.mark.parametrize("by", ["script", "command"])
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
