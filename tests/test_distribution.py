"""A source distribution holds what its user needs to test it, and the settings say what they must."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCES = (
    ".*_cache",
    ".git",
    "__pycache__",
    "*.egg-info",
    ".hypothesis",
    "build",
    "dist",
    ".venv",
    "venv",
)


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_a_source_distribution_has_the_package_its_tests_and_the_examples(tmp_path):
    pytest.importorskip("setuptools", reason="built with setuptools, which the extra test brings along")
    sources = tmp_path / "sources"
    shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    build = "import sys, setuptools.build_meta as backend; print(backend.build_sdist(sys.argv[1]))"

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, str(tmp_path)],
        cwd=sources,
        capture_output=True,
        text=True,
        check=True,
    )

    with tarfile.open(tmp_path / done.stdout.splitlines()[-1]) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    python = {str(path.relative_to(sources)) for path in sources.rglob("*.py")}
    other = {
        "README.rst",
        "LICENSE",
        "setup.cfg",
        "ipevents/py.typed",
        ".ci/run",
        ".github/workflows/ci.yml",
        ".ruff.toml",
    }
    assert python | other <= packed
    assert not [name for name in packed if name.endswith(".pyc")]


def test_linters_are_pinned_and_part_of_what_the_tests_install():
    extras = settings()["options.extras_require"]

    lint = extras["lint"].split()
    assert [re.split("==", line)[0] for line in lint] == ["ruff", "mypy"]
    assert all(re.fullmatch(r"[a-z]+==[\d.]+", line) for line in lint)
    assert "ipevents[lint]" in extras["test"].split()


def test_the_workflow_only_prepares_a_python_and_calls_the_checks():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()

    assert re.findall(r"- run: (.*)", workflow) == [".ci/run"]
    versions = re.findall(
        r"Programming Language :: Python :: (3\.\d+)", settings()["metadata"]["classifiers"]
    )
    assert re.findall(r'"(3\.\d+)"', workflow) == versions
