"""A module imports from lower layers only; who may import torch, skorch and matplotlib is fixed."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import sharpfit

ROOT = Path(sharpfit.__file__).parent

# Packages that share a number do not import each other.
LAYERS = {
    "theory": 1,
    "linalg": 1,
    "objective": 2,
    "curvature": 3,
    "jacobian": 3,
    "networks": 4,
    "bridge": 5,
    "analysers": 6,
    "model_selection": 7,
    "monitoring": 7,
    "measures": 8,
    "comparison": 9,
    "displays": 10,
}
ONLY_IN = {
    # model_selection: a stopping callback is part of it.
    "skorch": {"networks", "bridge", "model_selection", "monitoring"},
    "matplotlib": {"displays"},
}
NOT_IN = {"torch": {"theory"}}


class Import(NamedTuple):
    """One imported module, where it stands and whether importing the file runs it."""

    source: str
    line: int
    target: str
    inside_function: bool


def imports_of(tree: ast.AST, source: str, package: str) -> Iterator[Import]:
    """Yield what a file imports; `package` is the dotted package the file lies in."""

    def visit(node: ast.AST, inside_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(source, child.lineno, alias.name, inside_function)
            elif isinstance(child, ast.ImportFrom):
                base = package.split(".")[: -child.level + 1 or None] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:
                    yield Import(source, child.lineno, f"{module}.{alias.name}", inside_function)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from visit(child, True)
            elif not is_for_type_checkers(child):
                yield from visit(child, inside_function)

    yield from visit(tree, False)


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def violations(layer: str, imported: Import) -> Iterator[str]:
    """Yield the rules that an import in a package of the library breaks."""
    where = f"{imported.source}:{imported.line} imports {imported.target}"
    top, *rest = imported.target.split(".")
    if top == "sharpfit" and rest and rest[0] in LAYERS and rest[0] != layer:
        lazy_display = rest[0] == "displays" and imported.inside_function
        if LAYERS[rest[0]] >= LAYERS[layer] and not lazy_display:
            yield f"{where}: {layer} is layer {LAYERS[layer]}, {rest[0]} layer {LAYERS[rest[0]]}"
    if top in ONLY_IN and layer not in ONLY_IN[top]:
        yield f"{where}: only {sorted(ONLY_IN[top])} may"
    if layer in NOT_IN.get(top, set()):
        yield f"{where}: {layer} works without {top}"


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_imports_go_down(layer):
    broken = [
        violation
        for file in sorted((ROOT / layer).rglob("*.py"))
        for imported in imports_of(
            ast.parse(file.read_text()),
            str(file.relative_to(ROOT.parent)),
            ".".join(file.relative_to(ROOT.parent).parent.parts),
        )
        for violation in violations(layer, imported)
    ]
    assert not broken, "\n".join(broken)


def test_every_package_has_a_layer():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(LAYERS)


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        ("curvature", "from sharpfit.jacobian import slopes"),
        ("curvature", "from ..jacobian import slopes"),
        ("curvature", "from .. import jacobian"),
        ("linalg", "def f():\n    import sharpfit.objective"),
        ("analysers", "from sharpfit.displays import SpectrumDisplay"),
        ("analysers", "def plot(self):\n    import matplotlib.pyplot"),
        ("theory", "import torch"),
        ("curvature", "from skorch import NeuralNet"),
    ],
)
def test_a_forbidden_import_is_found(layer, code):
    (imported,) = imports_of(ast.parse(code), "file.py", f"sharpfit.{layer}")
    assert list(violations(layer, imported))


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        ("curvature", "from sharpfit.linalg import SymmetricOperator"),
        ("curvature", "from sharpfit.curvature._products import product"),
        ("analysers", "def plot(self):\n    from sharpfit.displays import SpectrumDisplay"),
        ("networks", "from skorch import NeuralNetClassifier"),
    ],
)
def test_an_allowed_import_passes(layer, code):
    (imported,) = imports_of(ast.parse(code), "file.py", f"sharpfit.{layer}")
    assert not list(violations(layer, imported))
