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

# How high each part stands; a module imports only from its own height or below.
# The options know the limits that keys set.
HEIGHTS = {
    "_bootstrap": 0,
    "_exceptions": 0,
    "_core": 1,
    "_options": 2,
    "_runtime": 2,
    "_child": 3,
    "_waiting": 3,
    "_emitter": 4,
}


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
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
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


@pytest.mark.parametrize("file", [file for file in FILES if name_of(file)[:1] == ("_runtime",)], ids=ids)
def test_the_runtime_never_imports_the_emitter(file):
    assert not {name[0] for name in own(file)} & {"_emitter", "_child", "_waiting"}


@pytest.mark.parametrize(
    "file", [file for file in FILES if name_of(file) and name_of(file)[0] in HEIGHTS], ids=ids
)
def test_imports_point_down(file):
    height = HEIGHTS[name_of(file)[0]]
    for name in own(file, nested=name_of(file) != ("_bootstrap",)):
        assert name[0] in HEIGHTS, f"{ids(file)} imports {'.'.join(name)}"
        assert HEIGHTS[name[0]] <= height, f"{ids(file)} imports {'.'.join(name)}"


def test_the_exceptions_import_nothing():
    assert imports(PACKAGE / "_exceptions.py") == [("", "__future__")]


def test_the_bootstrap_imports_the_package_inside_its_function():
    assert own(PACKAGE / "_bootstrap.py", nested=False) == []
    assert imports(PACKAGE / "_bootstrap.py") != imports(PACKAGE / "_bootstrap.py", nested=False)


def test_every_file_is_in_this_test():
    heads = {name_of(file)[0] for file in FILES if name_of(file)}
    assert heads == set(HEIGHTS)


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_starts_no_thread_and_imports_little():
    script = """
import sys, threading
import ipevents
late = {"blinker", "cloudpickle", "inspect", "asyncio", "dis", "ssl", "numpy"}
late |= {"_hashlib", "logging", "traceback"}  # a fifth of the time in which a child starts
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
