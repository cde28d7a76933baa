"""What the README says is so: its programs run, its tables are those of the code."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

import pytest
from scripts import running

import ipevents
from ipevents import Child, Emitter, Message, _exceptions, _options

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.rst").read_text(encoding="utf-8")
LINES = README.splitlines()

SIGNATURE = re.compile(r"   \* - ``(\w+)(\(.*\))?``$")
COMMANDS = [
    "python -m pip install . && python examples/quickstart.py",
    'python -m pip install -e ".[test]" && python -m pytest',
]


def blocks(opening: str) -> list[str]:
    """The indented texts behind the lines that end with ``opening``, dedented."""
    found = []
    for number, line in enumerate(LINES):
        if not line.endswith(opening):
            continue
        indent = len(line) - len(line.lstrip())
        block = []
        for text in LINES[number + 1 :]:
            if text.strip() and len(text) - len(text.lstrip()) <= indent:
                break
            block.append(text)
        found.append(textwrap.dedent("\n".join(block)).strip() + "\n")
    return found


def section(title: str) -> list[str]:
    """The lines of a section, without its subsections."""
    underlined = [
        number
        for number, line in enumerate(LINES)
        if re.fullmatch(r"(=+|-+|~+)", line) and number and len(line) == len(LINES[number - 1])
    ]
    starts = {LINES[number - 1]: number for number in underlined}
    after = [number - 1 for number in underlined if number > starts[title]]
    return LINES[starts[title] + 1 : min(after, default=len(LINES))]


def rows(title: str) -> dict[str, str]:
    """The first column of the tables in a section: names, and what stands in brackets behind them."""
    matches = [SIGNATURE.fullmatch(line) for line in section(title)]
    return {match[1]: match[2] or "" for match in matches if match}


def public(cls: type) -> dict[str, str]:
    """The public names of a class, and for methods their parameters as the README writes them."""
    found = {}
    for name in dir(cls):
        if name.startswith("_"):
            continue
        value = inspect.getattr_static(cls, name)
        found[name] = parameters(value) if inspect.isfunction(value) else ""
    return found


def parameters(function: object) -> str:
    signature = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()][1:]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def run(program):
    with running(program, preamble="") as script:
        return script.ended()


PROGRAMS = blocks(".. code-block:: python")


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_runs_and_ends(number):
    ended = run(PROGRAMS[number])

    assert (ended.status, ended.err) == (0, "")
    assert ended.out


def test_the_first_program_is_the_quickstart():
    quickstart = (ROOT / "examples/quickstart.py").read_text()

    assert quickstart.endswith(PROGRAMS[0])


def test_the_first_program_prints_what_is_shown():
    shown = blocks("It prints, with other numbers::")[0]
    shown_pids = re.findall(r"process online (\d+)", shown)

    printed = run(PROGRAMS[0]).out

    pids = re.findall(r"process online (\d+)", printed)
    for name, pid in zip(shown_pids, pids, strict=True):
        shown = shown.replace(name, pid)
    assert printed == shown


def test_the_two_commands_stand_on_the_first_screen():
    first_screen = "\n".join(LINES[:24])

    assert all(command in first_screen for command in COMMANDS)
    assert "one tree" in first_screen
    assert "can run code" in first_screen


@pytest.mark.parametrize(("title", "cls"), [("Emitter", Emitter), ("Message", Message), ("Child", Child)])
def test_a_class_has_the_names_and_parameters_of_its_table(title, cls):
    assert rows(title) == public(cls)


def test_the_module_has_the_names_of_its_table_and_tree():
    tree = {match[1] for match in map(re.compile(r"[ │├└─]* (\w+)(?= |$)").match, error_tree()) if match}

    assert tree == set(_exceptions.__all__)
    assert set(rows("Module")) | tree == set(ipevents.__all__)


def error_tree() -> list[str]:
    lines = section("Errors")
    return lines[lines.index("::") + 2 : lines.index("In brackets: the builtin that is a base as well.") - 1]


def test_the_tree_of_errors_has_their_bases():
    path: list[str] = []
    for line in error_tree():
        match = re.match(r"    ([ │├└─]*)(\w+)(?: \((\w+)\))?", line)
        assert match is not None
        depth, name, builtin = len(match[1]) // 4, match[2], match[3]
        del path[depth:]
        error = getattr(ipevents, name)
        bases = [getattr(ipevents, path[-1])] if path else [Exception]
        if builtin:
            bases.append(getattr(__import__("builtins"), builtin))
        assert list(error.__bases__) == bases
        path.append(name)


def test_the_options_and_defaults_are_those_of_the_code():
    shown = re.findall(r"   \* - ``([\w.]+)``\n     - ``(.*)``\n", "\n".join(section("Options")))

    actual = [(row.name, repr(row.default).replace("'", '"')) for row in _options._TABLE]
    assert shown == actual


def test_the_options_that_may_change_later_are_named():
    text = " ".join(section("Options"))
    sentence = re.search(r"After ``start\(\)`` only (.*?) may change", text)

    assert sentence is not None
    later = re.findall(r"``(\w+)``", sentence[1])
    assert later == [row.name for row in _options._TABLE if row.later]


def test_the_version_has_its_changes():
    assert ipevents.__version__ in section("Changes")
