"""A run is another run if what makes it changes, and only then."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "experiments"
sys.path.insert(0, str(FOLDER))
code_version = pytest.importorskip("code_version", reason="benchmarks are not installed")

RUN = '''"""An experiment."""
from functools import cache

from parts import CHOICES, helper as renamed, unused

LEVEL = 3
CLAIM = "Flat networks generalise."
ALL = [configuration for configuration in range(2)]


@cache
def run(configuration):
    """Do a run."""
    return {"value": part(configuration) + renamed(LEVEL)}


def part(configuration):
    return CHOICES["one"](configuration)


def verdict(rows):
    return CLAIM
'''
PARTS = """
from numpy import mean


class One:
    def __init__(self, x):
        self.x = x


def helper(x):
    from more import scale
    return scale(x)


def unused(x):
    return x


CHOICES = {"one": One}
"""
MORE = """
FACTOR = 2


def scale(x):
    return FACTOR * mean(x)


def other(x):
    return x
"""
FILES = {"experiment": RUN, "parts": PARTS, "more": MORE}


@pytest.fixture
def version(tmp_path, monkeypatch):
    """Return a function that gives the version of the run after a change of the files."""

    def version_after(name="experiment", old="", new="", function="run"):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for file, text in FILES.items():
            assert file != name or old in text
            (folder / f"{file}.py").write_text(text.replace(old, new) if file == name else text)
        with monkeypatch.context() as context:
            context.syspath_prepend(folder)
            for file in FILES:
                context.delitem(sys.modules, file, raising=False)
            spec = importlib.util.spec_from_file_location("experiment", folder / "experiment.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for file in FILES:
                sys.modules.pop(file, None)
        return code_version.code_version(getattr(module, function))

    return version_after


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("experiment", "LEVEL = 3", "LEVEL = 4"),
        ("experiment", "+ renamed", "- renamed"),
        ("experiment", 'CHOICES["one"](configuration)', 'CHOICES["one"](2)'),
        ("parts", "self.x = x", "self.x = -x"),
        ("parts", '"one": One', '"one": helper'),
        ("parts", "scale(x)", "scale(2 * x)"),
        ("more", "FACTOR = 2", "FACTOR = 3"),
    ],
)
def test_what_the_run_reaches_counts(version, name, old, new):
    assert version(name, old, new) != version()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("experiment", "Flat networks generalise.", "Flat networks may generalise."),
        ("experiment", "return CLAIM", "return CLAIM.upper()"),
        ("experiment", "Do a run.", "Do one run."),
        ("experiment", "LEVEL = 3", "LEVEL = 3  # three\n"),
        ("experiment", "An experiment.", "Another."),
        ("parts", "def unused(x):\n    return x", "def unused(x):\n    return -x"),
        ("more", "def other(x):\n    return x", "def other(x):\n    return -x"),
        # A variable of the list has the name of a variable of the run.
        ("experiment", "for configuration in range(2)", "for configuration in range(3)"),
    ],
)
def test_what_else_is_in_the_files_does_not_count(version, name, old, new):
    assert version(name, old, new) == version()


def test_another_function_is_another_version(version):
    assert version(function="part") != version()


def test_a_function_that_no_file_defines_is_refused():
    def inner(configuration):
        return configuration

    with pytest.raises(ValueError, match="does not define 'inner' at its top level"):
        code_version.code_version(inner)


def test_the_digest_of_the_package_is_of_its_code(tmp_path, monkeypatch):
    def digest_of(text):
        (tmp_path / "__init__.py").write_text(text)
        monkeypatch.setattr(code_version.sharpfit, "__file__", str(tmp_path / "__init__.py"))
        code_version.package_digest.cache_clear()
        return code_version.package_digest()

    first = digest_of('"""A package."""\nx = 1\n')
    assert digest_of('"""The package."""\nx = 1  # one\n') == first
    assert digest_of('"""A package."""\nx = 2\n') != first
    code_version.package_digest.cache_clear()


def test_the_verdicts_are_no_part_of_the_sweeps_runs():
    pytest.importorskip("mlxtend", reason="the experiments need the extra bench")
    trained_run = importlib.import_module("trained_run").trained_run
    names = {(path.stem, name) for path, name in code_version.definitions_of(trained_run)}
    assert {("trained_run", "measured"), ("image_networks", "VGG")} <= names
    assert {("image_networks", "_convolution"), ("image_networks", "PixelShift")} <= names
    assert {file for file, _ in names} == {"trained_run", "image_networks", "selection_criterion"}
