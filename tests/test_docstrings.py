"""Public names are documented completely, and those of the top level show an example."""

import dataclasses
import importlib
import inspect

import pytest
from numpydoc.docscrape import ClassDoc
from numpydoc.validate import validate

import sharpfit

PACKAGES = [
    "theory",
    "linalg",
    "objective",
    "curvature",
    "jacobian",
    "networks",
    "bridge",
    "analysers",
    "model_selection",
    "monitoring",
    "measures",
    "comparison",
    "displays",
]
# numpydoc's codes: no docstring, no summary, parameters left out, parameters that do not exist.
REQUIRED = {"GL08", "SS01", "PR01", "PR02"}
# Refers to GeneralisationBound, whose parameters these are.
DOCUMENTED_ELSEWHERE = {"sharpfit.analysers.BoundSettings"}


def public_object(name):
    package, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(package), attribute)


def public_names():
    names = [f"sharpfit.{name}" for name in sharpfit.__all__]
    for package in PACKAGES:
        module = importlib.import_module(f"sharpfit.{package}")
        names += [f"sharpfit.{package}.{name}" for name in module.__all__]
    objects = {id(public_object(name)): name for name in reversed(names)}
    return sorted(
        name
        for name in set(objects.values()) - DOCUMENTED_ELSEWHERE
        if callable_with_signature(name)
    )


def callable_with_signature(name):
    value = public_object(name)
    is_exception = inspect.isclass(value) and issubclass(value, Exception)
    return (inspect.isclass(value) or inspect.isfunction(value)) and not is_exception


@pytest.mark.parametrize("name", public_names())
def test_docstring_is_complete(name):
    value = public_object(name)
    errors = [(code, message) for code, message in validate(name)["errors"] if code in REQUIRED]
    if dataclasses.is_dataclass(value):
        # What a result holds is documented as attributes; nobody constructs one.
        errors = [error for error in errors if error[0] != "PR01"]
        sections = ClassDoc(value)
        documented = {
            part.strip()
            for entry in [*sections["Attributes"], *sections["Parameters"]]
            for part in entry.name.split(",")
        }
        fields = {field.name for field in dataclasses.fields(value) if field.name[0] != "_"}
        errors += [("PR01", f"{field} is not documented") for field in fields - documented]
    assert not errors, f"{name} {errors}"


@pytest.mark.parametrize("name", sharpfit.__all__)
def test_top_level_name_has_an_example(name):
    if callable_with_signature(f"sharpfit.{name}"):
        assert ">>> " in inspect.getdoc(public_object(f"sharpfit.{name}"))
