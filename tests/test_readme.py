"""What the README says is so: its programs run, its tables are those of the code."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest
from scripts import running
from test_architecture import PACKAGE, ROOMS

import ipevents
from ipevents import Child, Emitter, Message, _exceptions, _options
from ipevents._ask.pool import Pool
from ipevents._core import outbox, wire
from ipevents._lifecycle.lifecycle import Lifecycle

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


def test_security_begins_with_what_holding_the_key_means():
    """D18: who holds the key can run code, and that is the first thing said."""
    text = " ".join(" ".join(section("Security")).split())
    said = [
        "Whoever holds the tree's key can run code in all its processes, because events and functions are",
        "All trees of a user share one key file, unless you set a key",
        "What goes over TCP is signed, not encrypted",
        "Through a tunnel or a forwarded port they do not; then both set ``socket.forwarded=True``",
        "A listener of ``error`` is told of strangers",
        "There is no defence against what it does on purpose, as it can run code",
    ]
    found = [text.find(words) for words in said]
    assert found == sorted(found)
    assert 0 <= found[0] < 5
    assert "whoever holds the tree's key can run code" in " ".join(LINES[:25])


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


def test_what_comes_instead_of_an_answer_is_what_is_shown():
    (program,) = [each for each in PROGRAMS if 'show("multiply"' in each]
    (shown,) = [each for each in blocks("::") if each.startswith("0.25\n")]

    printed = run(program).out

    (pid,) = set(re.findall(r"work \((\d+)\)", printed))
    assert printed == shown.replace("4718", pid)


def test_a_worker_that_dies_costs_what_is_shown():
    (program,) = [each for each in PROGRAMS if "def look_up" in each]
    (shown,) = [each for each in blocks("::") if each.startswith("('USERS', 'a')\n")]

    printed = run(program).out

    (pid,) = set(re.findall(r"pool-1 \((\d+)\)", printed))
    assert printed == shown.replace("4718", pid)


@pytest.mark.parametrize(("title", "cls"), [("Emitter", Emitter), ("Message", Message), ("Child", Child)])
def test_a_class_has_the_names_and_parameters_of_its_table(title, cls):
    assert rows(title) == public(cls)


def test_a_pool_has_the_names_and_parameters_of_its_table():
    """It has more: what the library itself calls."""
    assert rows("Pool").items() <= public(Pool).items()
    assert {"map", "shutdown", "submit"} < set(rows("Pool"))


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

    defaults = {row.name: row.default for row in _options._TABLE}
    defaults["startMethod"] = _options._first_start_method(None)  # these tests may run with another one
    assert shown == [(name, repr(value).replace("'", '"')) for name, value in defaults.items()]


def test_the_options_that_may_change_later_are_named():
    text = " ".join(section("Options"))
    sentence = re.search(r"After ``start\(\)`` only (.*?) may change", text)

    assert sentence is not None
    later = re.findall(r"``(\w+)``", sentence[1])
    assert later == [row.name for row in _options._TABLE if row.later]


def test_the_version_has_its_changes():
    assert ipevents.__version__ in section("Changes")


def test_the_public_part_of_the_changes_is_on_top_of_them():
    changes = "\n".join(section("Changes"))

    assert changes.strip().startswith("Public is what stands on this page")
    assert re.findall(r"(?m)^(\S+)\n    ", changes)[:2] == ["Unreleased", ipevents.__version__]


# How it is built


def table(title: str) -> list[list[str]]:
    """The rows of the last list-table in a section, without its header."""
    rows: list[list[str]] = []
    for line in section(title):
        if line.startswith("   * - "):
            rows.append([line[7:]])
        elif line.startswith("     -") and rows:
            rows[-1].append(line[7:])
        elif line.startswith("       ") and rows:
            rows[-1][-1] += f" {line.strip()}"
    return rows


def test_the_rooms_are_those_of_the_architecture_in_the_same_order():
    row = re.search(r"``(__init__ > [^`]*)``", "\n".join(section("Rooms")))

    assert row is not None
    assert re.split(r"\s*>\s*", row[1]) == ["__init__", *ROOMS[1:]]


def test_each_room_has_its_paragraph_and_its_place_in_the_picture():
    files = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" and path.name != "__init__.py"}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    picture = "\n".join(line for line in section("Rooms") if line.startswith("    "))

    terms = re.findall(
        r"``(\w+(?:\.py)?)/?``", "\n".join(line for line in section("Rooms") if line[:2] == "``")
    )
    assert set(terms) - {"__init__"} == files | folders
    assert set(re.findall(r"(\w+\.py|\w+(?=/))", picture)) >= files | folders


def thread_name(node: ast.expr) -> str:
    return re.sub(r"\{.*?\}", "*", ast.unparse(node).strip("f'\""))


def started_threads() -> set[str]:
    """The names of the threads that the code starts, with ``*`` for what differs."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "start_thread":
                names.add("ipevents-" + thread_name(node.args[0]))
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "Thread":
                names |= {thread_name(each.value) for each in node.keywords if each.arg == "name"}
    names.discard("ipevents-*")  # in start_thread
    return names


def test_the_table_of_threads_has_those_that_the_code_starts():
    rows = table("Threads")[1:]

    assert {re.sub(r"<\w+>", "*", row[0].strip("`")) for row in rows} == started_threads()
    assert all(len(row) == 5 and all(row[:4]) for row in rows)


def test_the_locks_are_where_they_are_said_to_be():
    locks = re.findall(r"``(\w+)``\s+\(``(_\w+/\w+\.py)``\)", "\n".join(section("Locks")))

    assert len(locks) == 9
    for name, file in locks:
        assert re.search(rf"^(    +self\.)?{name} = ", (PACKAGE / file).read_text(), re.MULTILINE)


def test_the_files_that_are_named_are_there():
    named = re.findall(r"``((?:_\w+|tests|examples)/[\w/]+\.py)``", README)

    assert len(named) > 5
    assert [name for name in named if not ((PACKAGE if name[0] == "_" else ROOT) / name).exists()] == []


def test_what_a_change_would_touch_is_there():
    (_, *changes) = table("Contributing")

    assert [change for change, _ in changes] == [
        "A heartbeat for a link",
        "A new option",
        "A second serializer",
        "A new lifecycle event",
    ]
    for _, text in changes:
        words = re.findall(r"``([^`]+)``", text)
        files = [PACKAGE / word for word in words if word.endswith((".py", "/"))]
        assert files
        assert [file for file in files if not file.exists()] == []
        code = "".join(file.read_text() for file in files if file.is_file())
        names = [word for word in words if word.isidentifier()]
        assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_the_causes_of_a_loss_are_those_of_the_code():
    shown = {row[0].strip("`") for row in table("Debugging")}
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    dropped = set(re.findall(r"(?:\.drop|\bcount)\(\"([a-z-]+)\"", code))

    assert dropped - shown == set()
    assert {cause for cause in shown if f'"{cause}"' not in code} == set()


def test_the_limits_of_the_flow_are_those_of_the_code():
    flow = " ".join(section("Flow"))

    assert f"{outbox.OUTBOX_BYTES >> 20} MiB or {outbox.OUTBOX_RECORDS:,} records" in flow
    assert f"nothing for {outbox.STALLED_SECONDS:g} s" in flow
    assert f"up to {wire.FRAME_BYTES >> 20} MiB" in flow


def test_comments_point_to_sections_of_this_page():
    titles = {
        LINES[number - 1] for number, line in enumerate(LINES) if re.fullmatch(r"-+|~+", line) and number
    }
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    text = {str(path): path.read_text() for path in files if path != Path(__file__)}

    pointed = {section for each in text.values() for section in re.findall(r"README, ([A-Z][\w -]*\w)", each)}
    assert pointed <= titles
    elsewhere = re.compile(r"\b(?:[A-Z]{5,}\.md|[A-Z]{5,} (?:section|[A-Z]?)\s?\d)")
    assert {path: elsewhere.findall(each) for path, each in text.items() if elsewhere.search(each)} == {}


def test_the_steps_of_a_stop_are_those_of_the_code():
    """The first is request_stop(); the function that has the others numbers them as the README does."""
    text = README.partition("\nA stop\n~~~~~~\n")[2].partition("\n---")[0]
    steps = re.findall(r"^(\d+)\. ", text, re.MULTILINE)
    comments = re.findall(r"^ +# (\d+)\. ", inspect.getsource(Lifecycle.carry_out_stop), re.MULTILINE)
    assert steps == [str(number) for number in range(1, 13)]
    assert comments == steps[1:]
