from __future__ import annotations

import ast
import configparser
import re
import types
from pathlib import Path

import pytest

import ipevents

PACKAGE = Path(ipevents.__file__).parent
SPELLED = {
    "_child.py",
    "_emitter.py",
    "_exceptions.py",
    "_options.py",
}  # the only files with the original's spelling


def test_all_names_what_is_public_in_order():
    public = {name for name in vars(ipevents) if not name.startswith("_")} - {"annotations", "sys", "Any"}
    assert public == set(ipevents.__all__) - {"__version__"}
    assert ipevents.__all__ == sorted(ipevents.__all__)
    assert len(ipevents.__all__) == len(set(ipevents.__all__))


def test_a_star_import_gives_all_of_it():
    names: dict[str, object] = {}
    exec("from ipevents import *", names)
    assert set(ipevents.__all__) <= set(names)


def test_the_version_is_that_of_the_distribution():
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")
    assert ipevents.__version__ == config["metadata"]["version"]


CAMEL = re.compile(r"[a-z]+[A-Z][A-Za-z]*")
# Names of the standard library that are spelled so, as attributes of it.
FOREIGN = {"getEffectiveLevel", "getLogger", "isEnabledFor", "addHandler", "setLevel", "excepthook"}


def defined_names(file: Path) -> set[str]:
    """Names of functions, arguments, variables and attributes that a file makes or uses."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            names.add(node.arg)
    return names


@pytest.mark.parametrize(
    "file",
    [file for file in sorted(PACKAGE.rglob("*.py")) if file.name not in SPELLED],
    ids=lambda file: file.stem,
)
def test_the_originals_spelling_occurs_in_public_files_only(file):
    assert {name for name in defined_names(file) if CAMEL.fullmatch(name)} - FOREIGN == set()


def test_every_public_method_and_attribute_has_a_docstring():
    for owner in (ipevents.Emitter, ipevents.Child, ipevents.Message):
        assert owner.__doc__
        for name, value in vars(owner).items():
            if not name.startswith("_") and isinstance(value, (types.FunctionType, property)):
                assert value.__doc__, f"{owner.__name__}.{name}"


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
