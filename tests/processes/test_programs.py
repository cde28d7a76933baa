from __future__ import annotations

import functools
import os
import re
import sys
import threading
import types

import pytest

from ipevents import Unpicklable, WorkerRefused
from ipevents._processes import programs, scripts
from ipevents._processes.programs import CONTAINER, FUNCTION, MODULE, SCRIPT, Program


@pytest.fixture
def own_main(monkeypatch):
    """What a program changes when it is run, put back afterwards."""
    for name in ("__main__", "__mp_main__"):
        monkeypatch.setitem(sys.modules, name, sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "orig_argv", list(sys.orig_argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(scripts, "_known", None)


def main_module(monkeypatch, **attributes: object) -> None:
    module = types.ModuleType("__main__")
    module.__spec__ = None
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(sys, "argv", ["prog", "x"])
    monkeypatch.setattr(scripts, "_known", None)
    monkeypatch.setattr(scripts, "_body", lambda frame: None if frame is None else vars(module))
    monkeypatch.delattr(sys, "ps1", raising=False)


def test_a_function_travels_with_its_arguments_and_closure():
    factor = 3
    program = programs.function(lambda a, *, b: a * b * factor, (2,), {"b": 5})
    assert program.kind == FUNCTION
    programs.execute(programs.function(exec, ("import sys; sys.programs_test = a * 2", {"a": 4}), {}))
    assert sys.programs_test == 8  # type: ignore[attr-defined]
    del sys.programs_test  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", [None, 3, "script.py"])
def test_what_cannot_be_called_is_no_target(target):
    with pytest.raises(TypeError, match=f"is a function, not {target!r}"):
        programs.function(target, (), {})


async def coroutine():
    """Awaited by nobody."""


def generator():
    yield


@pytest.mark.parametrize("target", [coroutine, generator, functools.partial(coroutine)])
def test_what_would_run_nothing_is_no_target(target):
    with pytest.raises(TypeError, match="would run nothing"):
        programs.function(target, (), {})


@pytest.mark.parametrize("kwargs", [5, "abc", b"ab", [("a", 1)], {"a"}, False])
def test_kwargs_that_are_no_mapping_are_refused(kwargs):
    with pytest.raises(TypeError, match=rf"kwargs is a dict.*, not {re.escape(repr(kwargs))}"):
        programs.function(print, (), kwargs)


def test_the_keys_of_kwargs_are_names():
    with pytest.raises(TypeError, match="and 1 is no name"):
        programs.function(print, (), {"a": 1, 1: 2})


@pytest.mark.parametrize("args", [None, 5, "abc", b"abc", bytearray(b"a"), {"a": 1}, {1}, print])
def test_what_is_no_row_of_arguments_is_refused(args):
    with pytest.raises(TypeError, match=rf"args is a list or tuple.*, not {re.escape(repr(args))}"):
        programs.arguments(args)


@pytest.mark.parametrize("args", [(1, "b"), [1, "b"], iter([1, "b"])])
def test_any_row_of_arguments_will_do(args):
    assert programs.arguments(args) == (1, "b")


def test_a_name_is_what_was_given_or_the_targets():
    assert programs.name("mine", "its") == "mine"
    assert programs.name(None, "its") == programs.name("", "its") == "its"
    assert programs.name(None, None) == programs.name(None, 5) == "worker"
    assert programs.name(None, "x" * 300) == "x" * 256
    assert programs.name("a\udcff", "its") == programs.name(None, "a\udcff") == "a\\udcff"


def test_a_name_is_a_short_text():
    with pytest.raises(TypeError, match="is a str, not 3"):
        programs.name(3, "its")
    with pytest.raises(ValueError, match="at most 256"):
        programs.name("x" * 257, "its")


def test_a_target_that_cannot_be_pickled_is_named():
    lock = threading.Lock()

    def work() -> object:
        return lock

    with pytest.raises(Unpicklable, match="work"):
        programs.function(work, (), {})


def test_an_argument_that_cannot_be_pickled_is_refused():
    with pytest.raises(Unpicklable):
        programs.function(print, (threading.Lock(),), {})


def test_this_script_is_the_file_with_its_arguments(monkeypatch, tmp_path):
    path = tmp_path / "script.py"
    path.write_text("")
    main_module(monkeypatch, __file__=str(path))
    assert programs.this_script()[:3] == (SCRIPT, str(path), ("prog", "x"))


def test_this_script_is_the_module_after_dash_m(monkeypatch):
    main_module(monkeypatch, __spec__=types.SimpleNamespace(name="pack.tool"), __file__="/pack/tool.py")
    assert programs.this_script()[:2] == (MODULE, "pack.tool")
    main_module(
        monkeypatch, __spec__=types.SimpleNamespace(name="pack.__main__"), __file__="/pack/__main__.py"
    )
    assert programs.this_script()[:2] == (MODULE, "pack")


def test_this_script_is_the_directory_that_was_run(monkeypatch, tmp_path):
    spec = types.SimpleNamespace(name="__main__", loader=object())
    main_module(monkeypatch, __spec__=spec, __file__=str(tmp_path / "__main__.py"))
    monkeypatch.setattr(sys, "path", ["first of all", str(tmp_path), *sys.path])  # by the script itself
    assert programs.this_script()[:2] == (CONTAINER, str(tmp_path))


@pytest.mark.parametrize("attributes", [{}, {"__file__": "/nonexistent/script.py"}, {"__file__": "<stdin>"}])
def test_without_a_script_there_is_nothing_to_run_again(monkeypatch, attributes):
    main_module(monkeypatch, **attributes)
    with pytest.raises(WorkerRefused, match="pass a function"):
        programs.this_script()


def test_another_script_has_its_own_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.py").write_text("")
    file = str(tmp_path / "other.py")
    assert programs.other_script("other.py", (1, "b"))[:3] == (SCRIPT, file, ("other.py", "1", "b"))
    given = programs.other_script(b"other.py", (b"a", tmp_path))
    assert given[:3] == (SCRIPT, file, ("other.py", "a", str(tmp_path)))
    assert given.path[0] == str(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no __main__\.py"):
        programs.other_script(tmp_path, ())
    (tmp_path / "__main__.py").write_text("")
    assert programs.other_script(tmp_path, ())[:2] == (CONTAINER, str(tmp_path))


def test_a_script_that_is_not_there_is_refused_at_once(tmp_path):
    for path in (tmp_path / "none.py", "", "a\0b", "\ud800"):
        with pytest.raises(FileNotFoundError, match="no script"):
            programs.other_script(path, ())


@pytest.mark.parametrize("path", [None, 5, ["other.py"]])
def test_what_is_no_path_is_refused_at_once(path):
    with pytest.raises(TypeError, match=rf"path of a script, not {re.escape(repr(path))}"):
        programs.other_script(path, ())


@pytest.fixture
def nobody():
    """For the test this process is no longer root, who may read everything, if it was."""
    users = os.getresuid()
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 0)
    yield
    os.setresuid(*users)


def test_a_script_that_cannot_be_read_is_refused_at_once(tmp_path, monkeypatch, request):
    (tmp_path / "other.py").touch(0o000)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # nobody else may enter the directories above
    request.getfixturevalue("nobody")
    with pytest.raises(PermissionError, match="cannot be read"):
        programs.other_script("other.py", ())


def test_a_script_runs_as_main_and_stays_there(tmp_path, own_main):
    path = tmp_path / "other.py"
    path.write_text("import sys\nseen = (__name__, __file__, sys.argv, sys.path[0])\nclass Own: pass\n")
    programs.execute(programs.other_script(path, ("a",)))
    main = sys.modules["__main__"]
    assert main.seen == ("__main__", str(path), [str(path), "a"], str(tmp_path))
    assert sys.modules[main.Own.__module__].Own is main.Own


def test_a_directory_runs_as_main_and_stays_there(tmp_path, own_main):
    (tmp_path / "__main__.py").write_text("import beside\nseen = (__name__, beside.here)\n")
    (tmp_path / "beside.py").write_text("here = True\n")
    programs.execute(programs.other_script(tmp_path, ()))
    assert sys.modules["__main__"].seen == ("__main__", True)
    del sys.modules["beside"]


@pytest.mark.parametrize(
    ("name", "file"), [("own_tool", "own_tool.py"), ("own_pack", "own_pack/__main__.py")]
)
def test_a_module_runs_as_main_and_stays_there(tmp_path, own_main, name, file):
    target = tmp_path / file
    target.parent.mkdir(exist_ok=True)
    (target.parent / "__init__.py").write_text("")
    target.write_text("import sys\nseen = (__name__, sys.argv[0])\n")
    sys.path.insert(0, str(tmp_path))
    programs.execute(Program(MODULE, name, ("-m", "x")))
    assert sys.modules["__main__"].seen == ("__main__", str(target))
    sys.modules.pop(name, None)


def test_a_module_that_is_not_there_is_an_import_error(own_main):
    with pytest.raises(ImportError):
        programs.execute(Program(MODULE, "no_such_module_at_all", ("x",)))


def test_what_a_program_raises_comes_out(tmp_path, own_main):
    path = tmp_path / "other.py"
    path.write_text("raise SystemExit(7)\n")
    with pytest.raises(SystemExit) as raised:
        programs.execute(programs.other_script(path, ()))
    assert raised.value.code == 7
    assert os.path.exists(path)
