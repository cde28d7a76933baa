"""Which script runs here, and what a child is told of it; how it runs is in system/test_programs.py."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import types
import zipapp

import pytest

from ipevents import WorkerRefused
from ipevents._processes import scripts
from ipevents._processes.scripts import CONTAINER, MODULE, SCRIPT


@pytest.fixture
def main(monkeypatch):
    """Another __main__; put back afterwards, and the test runner's body is not seen on any stack."""
    module = types.ModuleType("__main__")
    for name in ("__main__", "__mp_main__"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(scripts, "_known", None)
    monkeypatch.setattr(scripts, "_body", lambda frame: None)
    monkeypatch.delattr(sys, "ps1", raising=False)
    return module


def test_a_module_is_run_again_if_nothing_contradicts(main, monkeypatch, tmp_path):
    main.__file__ = str(tmp_path / "tool.py")
    main.__spec__ = importlib.machinery.ModuleSpec("tool", None, origin=main.__file__)
    monkeypatch.setattr(sys, "argv", [main.__file__, "x"])
    assert scripts.here()[:3] == (MODULE, "tool", (main.__file__, "x"))


def test_a_module_that_may_be_a_tool_is_refused(main, monkeypatch, tmp_path):
    main.__file__ = str(tmp_path / "tool.py")
    main.__spec__ = importlib.machinery.ModuleSpec("tool", None, origin=main.__file__)
    monkeypatch.setattr(sys, "argv", ["script.py", "x"])  # by the tool, for what it runs
    with pytest.raises(WorkerRefused, match=r"__main__ is the module tool, .* 'script\.py'; pass a function"):
        scripts.here()


def test_a_script_under_a_profiler_is_a_script_whatever_its_spec_says(main, monkeypatch, tmp_path):
    main.__file__ = str(tmp_path / "script.py")
    (tmp_path / "script.py").touch()
    main.__spec__ = importlib.machinery.ModuleSpec("__main__", None, origin=main.__file__)
    assert scripts.here()[:2] == (SCRIPT, main.__file__)


def test_a_script_seen_at_the_import_is_known_when_its_file_is_no_longer_named(main, monkeypatch, tmp_path):
    path = tmp_path / "script.py"
    path.touch()
    monkeypatch.setattr(scripts, "_known", scripts.Known(vars(main), str(path)))
    assert scripts.here()[:2] == (SCRIPT, str(path))
    assert scripts.describe(vars(main))[0] == str(path)


@pytest.mark.parametrize("path", ["/dev/stdin", "/proc/self/fd/0", "/nonexistent/script.py"])
def test_what_cannot_be_read_again_is_named(main, path):
    main.__file__ = path
    with pytest.raises(WorkerRefused, match=f"'{path}' cannot be read again"):
        scripts.here()


def test_the_first_entry_of_the_path_is_the_childs_own_and_not_ours(main, monkeypatch, tmp_path):
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "script.py").touch()
    main.__file__ = str(tmp_path / "ours" / "script.py")
    monkeypatch.setattr(sys, "path", ["added by the script", str(tmp_path / "ours"), "/usr/lib", ""])
    other = scripts.other(tmp_path / "other" / "script.py", ())
    assert other.path == (str(tmp_path / "other"), "added by the script", "/usr/lib", scripts._began_in())
    assert scripts.here().path[:2] == (str(tmp_path / "ours"), "added by the script")


def test_an_archive_without_a_main_is_refused_at_the_call(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        archive.writestr("beside.py", "")
    with pytest.raises(FileNotFoundError, match=r"no __main__\.py in the archive"):
        scripts.other(tmp_path / "app.pyz", ())


def test_an_archive_is_known_by_its_content_and_not_by_its_name(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "__main__.py").touch()
    zipapp.create_archive(tmp_path / "source", tmp_path / "tool")
    assert scripts.other(tmp_path / "tool", ())[:2] == (CONTAINER, str(tmp_path / "tool"))
    (tmp_path / "app.pyz").write_text("print('a script all the same')\n")
    assert scripts.other(tmp_path / "app.pyz", ())[:2] == (SCRIPT, str(tmp_path / "app.pyz"))


def test_the_working_directory_counts_when_fork_is_called(tmp_path, monkeypatch):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "script.py").touch()
    (tmp_path / "link").symlink_to("real/inner")
    monkeypatch.chdir(tmp_path)
    other = scripts.other("link/../script.py", ())
    assert other.what == os.path.join(str(tmp_path), "link/../script.py")
    assert other.path[0] == str(tmp_path / "real")


@pytest.mark.parametrize(
    "loader",
    [
        None,
        importlib.machinery.SourceFileLoader("pack.tool", "/pack/tool.py"),
        importlib.machinery.SourcelessFileLoader("__main__", "/pack/tool.pyc"),
    ],
)
def test_main_in_a_child_is_as_it_is_here(main, loader):
    main.__file__ = "/pack/tool.py"
    main.__package__ = "pack"
    main.__spec__ = importlib.machinery.ModuleSpec("pack.tool", loader, origin="/pack/tool.py")
    main.__loader__ = loader
    told = scripts.describe(vars(main))
    scripts.install(told)
    there = sys.modules["__main__"]
    assert there is not main
    assert sys.modules["__mp_main__"] is there
    assert scripts.describe(vars(there)) == told
    assert (there.__file__, there.__package__, there.__spec__.name) == ("/pack/tool.py", "pack", "pack.tool")
    assert type(there.__loader__) is type(loader)


def test_main_of_a_prompt_has_no_file_in_a_child_either(main):
    main.__loader__ = importlib.machinery.BuiltinImporter
    told = scripts.describe(vars(main))
    assert told == (None, None, None, None)
    scripts.install(told)
    assert not hasattr(sys.modules["__main__"], "__file__")


def test_an_archive_that_is_gone_only_costs_the_lines(main):
    scripts.install(("/gone.pyz/__main__.py", "", ("__main__", None), ("zipimporter", "/gone.pyz")))
    assert sys.modules["__main__"].__loader__ is None
