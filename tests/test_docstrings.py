"""Public names are documented completely: every parameter, and an example that runs."""

import importlib
import inspect

import pytest
from numpydoc.validate import Validator

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
    "measures",
    "comparison",
    "displays",
]


def public_objects():
    names = {f"sharpfit.{name}" for name in sharpfit.__all__}
    for package in PACKAGES:
        module = importlib.import_module(f"sharpfit.{package}")
        names |= {f"sharpfit.{package}.{name}" for name in getattr(module, "__all__", [])}
    found = {}
    for name in sorted(names):
        package, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(package), attribute)
        if inspect.isclass(value) or inspect.isfunction(value):
            found.setdefault(value, name)
    return sorted(found.values())


def is_exception(name):
    package, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(package), attribute)
    return inspect.isclass(value) and issubclass(value, Exception)


@pytest.mark.parametrize("name", public_objects())
def test_docstring_is_complete(name):
    docstring = Validator(Validator._load_obj(name))
    assert docstring.summary, f"{name} has no summary"
    if is_exception(name):
        return
    documented = set(docstring.doc_all_parameters)
    expected = set(docstring.signature_parameters)
    assert not expected - documented, f"{name} does not document {sorted(expected - documented)}"


@pytest.mark.parametrize("name", sharpfit.__all__)
def test_top_level_name_has_an_example(name):
    value = getattr(sharpfit, name)
    documented = value if inspect.isclass(value) or inspect.isfunction(value) else type(value)
    assert ">>> " in (inspect.getdoc(documented) or ""), f"{name} shows no example"
