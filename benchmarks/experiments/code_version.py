"""Which code a run depends on, so that only what can change its result makes it another run."""

import ast
import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sharpfit

_IMPORTS = (ast.Import, ast.ImportFrom)
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_OWN_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

Definition = tuple[Path, str]


def code_version(function: Callable[..., Any]) -> str:
    """Return what, besides its arguments, the result of a function depends on.

    The code that the function reaches counts: its own, and every function, class and constant of
    its file and of those beside it that this code names. Comments and docstrings do not count, and
    neither does what else is in these files, such as the verdicts on the runs. Of sharpfit the
    version counts.

    Parameters
    ----------
    function : callable
        Defined at the top level of a file.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the file does not define the function at its top level.
    """
    found = [
        (path.name, name, [ast.dump(part) for part in parts if not isinstance(part, _IMPORTS)])
        for (path, name), parts in sorted(definitions_of(function).items())
    ]
    digest = hashlib.sha256(repr(found).encode()).hexdigest()
    return f"{sharpfit.__version__}-{digest[:12]}"


def definitions_of(function: Callable[..., Any]) -> dict[Definition, list[ast.stmt]]:
    """Return the definitions that a function reaches, itself among them.

    Parameters
    ----------
    function : callable

    Returns
    -------
    dict of (Path, str) to list of ast.stmt
        By file and name, the statements that define it.
    """
    function = inspect.unwrap(function)
    start = (Path(inspect.getfile(function)).resolve(), function.__name__)
    if start[1] not in _definitions(start[0]):
        raise ValueError(
            f"{start[0].name} does not define {start[1]!r} at its top level, so that the code "
            "which it depends on is not known"
        )
    reached: dict[Definition, list[ast.stmt]] = {}
    to_do = [start]
    while to_do:
        path, name = to_do.pop()
        if (path, name) not in reached:
            reached[path, name] = _definitions(path)[name]
            for statement in reached[path, name]:
                to_do += _named_in(statement, path, name)
    return reached


@functools.cache
def package_digest(part: str = "") -> str:
    """Return a digest of sharpfit's code, without its comments and docstrings.

    While a version is being developed its code changes, and all of it may matter to a run. That
    would be another run after every change, so it is kept beside the result instead.

    Parameters
    ----------
    part : str, default=""
        A subpackage, such as "model_selection"; everything by default.

    Returns
    -------
    str
    """
    files = sorted((Path(sharpfit.__file__).parent / part).rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(ast.dump(_tree(file)).encode())
    return digest.hexdigest()[:12]


def _tree(path: Path) -> ast.Module:
    """Parse a file, without its docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, *_DEFINITIONS))
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


@functools.cache
def _definitions(path: Path) -> dict[str, list[ast.stmt]]:
    """Return the statements at the top level of a file that give each of its names a value."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in _tree(path).body:
        for name in _names_given(statement):
            found.setdefault(name, []).append(statement)
    return found


def _names_given(statement: ast.AST) -> set[str]:
    """Return the names that a statement gives a value in the scope that it is in."""
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    if isinstance(statement, _IMPORTS):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Name):
        return {statement.id} if isinstance(statement.ctx, ast.Store) else set()
    if isinstance(statement, _OWN_SCOPES):
        return set()
    return set().union(*map(_names_given, ast.iter_child_nodes(statement)))


def _named_in(statement: ast.stmt, path: Path, name: str) -> list[Definition]:
    """Return the definitions, in the same file and in those beside it, that a statement names."""
    found = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and node.id in _definitions(path):
            found.append((path, node.id))
        elif isinstance(node, ast.ImportFrom) and (file := _beside(path, node.module)):
            # Of the names that a statement at the top level imports, the one asked for counts.
            found += [
                (file, alias.name)
                for alias in node.names
                if node is not statement or (alias.asname or alias.name) == name
            ]
        elif isinstance(node, ast.Import):
            # What is taken from a whole file cannot be told from the import, so all of it counts.
            files = [_beside(path, alias.name) for alias in node.names]
            found += [(file, n) for file in files if file for n in _definitions(file)]
    return found


def _beside(path: Path, module: str | None) -> Path | None:
    *packages, last = (module or "").split(".")
    file = path.with_name(f"{last}.py")
    return file if packages[-1:] in ([], [path.parent.name]) and file.exists() else None
