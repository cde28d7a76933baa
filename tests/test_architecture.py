from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ipevents

PACKAGE = Path(ipevents.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Modules that compute and touch nothing: no thread, lock, clock, socket, process, file, environment, log.
PURE = {
    "__future__",
    "_blake2",
    "_operator",
    "collections",
    "collections.abc",
    "dataclasses",
    "functools",
    "enum",
    "hashlib",
    "hmac",
    "io",
    "pickle",
    "re",
    "secrets",
    "struct",
    "types",
    "typing",
}
IMPURE = {
    "time",
    "threading",
    "_thread",
    "socket",
    "os",
    "logging",
    "blinker",
    "multiprocessing",
    "select",
    "sys",
}

# The rooms, from left to right: a file imports only from its own room and those further right, and no two
# files import each other, however indirectly. What is imported late or for types only counts as well.
ROOMS = (
    "",  # ipevents/__init__.py
    "_emitter",
    "_expectation",
    "_child",
    "_lifecycle",
    "_ask",
    "_network",
    "_processes",
    "_node",
    "_links",
    "_dispatch",
    "_transport",
    "_options",
    "_payload",
    "_platform",
    "_core",
    "_exceptions",
)


def name_of(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(file: Path, *, nested: bool = True) -> list[tuple[str, ...]]:
    """What a file imports, absolute: our own modules without the package, others as written.

    Without ``nested`` only what is imported as soon as the file is.
    """
    tree = ast.parse(file.read_text())
    package = file.relative_to(PACKAGE).parts[:-1]
    found: list[tuple[str, ...]] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(("", alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and not child.level:
                found.append(("", child.module or ""))
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1]
                module = tuple((child.module or "").split(".")) if child.module else ()
                if module:
                    found.append((*base, *module))
                else:
                    found.extend((*base, alias.name) for alias in child.names)
            elif nested or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                visit(child)

    visit(tree)
    return found


def own(file: Path, **how: bool) -> list[tuple[str, ...]]:
    return [name for name in imports(file, **how) if name[0]]


def others(file: Path) -> set[str]:
    return {name[1] for name in imports(file) if not name[0]}


def ids(file: Path) -> str:
    return ".".join(name_of(file)) or "ipevents"


@pytest.mark.parametrize("file", [file for file in FILES if name_of(file)[:1] == ("_core",)], ids=ids)
def test_the_core_imports_only_exceptions_and_what_touches_nothing(file):
    assert others(file) <= PURE
    assert {name[0] for name in own(file)} <= {"_core", "_exceptions"}


def test_the_pure_and_the_impure_have_nothing_in_common():
    assert not PURE & IMPURE


def graph() -> dict[str, set[str]]:
    """What each module imports of the package, by dotted names; the package itself is ``""``."""
    modules = {".".join(name_of(file)): file for file in FILES}
    found: dict[str, set[str]] = {}
    for module, file in modules.items():
        found[module] = set()
        for name in own_or_package(file):
            # ``from .room import module`` names a module, ``from .module import thing`` a part of one.
            found[module].add(name if name in modules else name.rpartition(".")[0])
        found[module].discard(module)
    return found


def own_or_package(file: Path) -> list[str]:
    """As ``own``, with the names that are imported from a folder, and ``""`` for the package itself."""
    tree = ast.parse(file.read_text())
    package = file.relative_to(PACKAGE).parts[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = (*base, *((node.module or "").split(".") if node.module else ()))
            folder = PACKAGE.joinpath(*module).is_dir()
            for alias in node.names:
                found.append(".".join((*module, alias.name) if folder else module))
    return found


GRAPH = graph()


def room_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_file_is_in_a_room():
    assert {room_of(module) for module in GRAPH} == set(ROOMS)


def test_imports_point_to_the_right():
    back = {
        (module, other)
        for module, others in GRAPH.items()
        for other in others
        if ROOMS.index(room_of(module)) > ROOMS.index(room_of(other))
    }
    assert back == set()


def circles() -> set[tuple[str, ...]]:
    """The groups of modules each of which reaches every other one by imports."""
    reach = {module: set(others) for module, others in GRAPH.items()}
    for middle in reach:
        for others in reach.values():
            if middle in others:
                others |= reach[middle]
    return {
        tuple(sorted(other for other in reach if other in reach[module] and module in reach[other]))
        for module in reach
        if module in reach[module]
    }


def test_there_is_no_circle_of_imports():
    assert circles() == set()


# Modules without a test module of their own, each with the reason and the test that shows what it does.
WITHOUT_TESTS: dict[str, str] = {
    "_processes.forking": "another process: test_fork_server.py and system/test_start_methods.py",
}

TESTS = Path(__file__).parent


def its_test_module(module: str) -> Path:
    *rooms, name = module.split(".")
    return TESTS.joinpath(*(room.lstrip("_") for room in rooms), f"test_{name.lstrip('_')}.py")


def test_every_module_has_a_test_module_or_a_reason_why_not():
    modules = {".".join(name_of(file)): file for file in FILES if file.name != "__init__.py"}
    untested = {module for module in modules if not its_test_module(module).exists()}
    assert untested == set(WITHOUT_TESTS)


def wall_clocks(file: Path) -> set[str]:
    """What a file uses that depends on the time of day."""
    tree = ast.parse(file.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            used |= {alias.name for alias in node.names}
    used |= {name for name in others(file) if name == "datetime"}
    return used - {"monotonic", "clock_gettime", "CLOCK_MONOTONIC", "sleep", "tzset"}


def test_no_decision_depends_on_the_time_of_day():
    """B18: a clock that jumps by a day changes nothing."""
    assert {ids(file): wall_clocks(file) for file in FILES if wall_clocks(file)} == {}


def test_the_exceptions_import_nothing():
    assert imports(PACKAGE / "_exceptions.py") == [("", "__future__")]


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_starts_no_thread_and_imports_little():
    script = """
import sys, threading
import ipevents
late = {"blinker", "cloudpickle", "inspect", "asyncio", "dis", "ssl", "numpy"}
late |= {"_hashlib", "logging", "traceback"}  # a fifth of the time in which a child starts
late |= {"multiprocessing.connection", "tempfile"}  # with the next line a sixth of the time of the import
late |= {"ipevents._lifecycle.child_main", "ipevents._processes.supervisor"}
print(threading.active_count(), sorted(late & set(sys.modules)))
"""
    assert run(script) == "1 []"


def test_importing_opens_nothing_and_handles_no_signal():
    script = """
import os, signal
before = (os.listdir("/dev/fd"), [signal.getsignal(n) for n in (2, 15, 17)])
import ipevents
print(before == (os.listdir("/dev/fd"), [signal.getsignal(n) for n in (2, 15, 17)]))
"""
    assert run(script) == "True"


def test_where_it_cannot_run_the_import_says_so():
    script = """
import sys
sys.platform = "win32"
try:
    import ipevents
except ImportError as error:
    print(error)
"""
    assert run(script) == "ipevents runs on Linux (and macOS, untested), not on win32"


def test_nothing_is_printed_by_importing():
    assert run("import ipevents") == ""
