"""A change of the criterion repeats the criterion and nothing else."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "experiments"))
criterion = pytest.importorskip("selection_criterion", reason="benchmarks are not installed")


def trained(configuration):
    with (Path(configuration["traces"]) / "trained").open("a") as file:
        file.write("x")
    if configuration["x"] < 0:
        raise FloatingPointError("outputs are not finite")
    return {"sharpness": 2.0 * configuration["x"]}


def judged(configuration):
    with (Path(configuration["traces"]) / "judged").open("a") as file:
        file.write("x")
    if configuration["x"] < 0:
        raise FloatingPointError("outputs are not finite")
    return {"selection_criterion": 3.0 * configuration["x"]}


def test_only_the_criterion_is_taken_again_when_its_code_has_changed(tmp_path, monkeypatch):
    runs = [{"x": x, "traces": str(tmp_path)} for x in (1, 2, -1)]

    def rows():
        return criterion.completed_with_criterion(
            trained, judged, runs, name="runs", directory=tmp_path / "kept"
        )

    def calls(name):
        return len((tmp_path / name).read_text())

    first = rows()
    assert [row.get("sharpness") for row in first] == [2, 4, None]
    assert [row.get("selection_criterion") for row in first] == [3, 6, None]
    assert first[2]["status"] == "diverged: outputs are not finite"
    assert set(first[0]) - set(runs[0]) == {"status", "seconds", "sharpness", "selection_criterion"}
    assert rows() == first
    assert (calls("trained"), calls("judged")) == (3, 3)
    monkeypatch.setattr(criterion, "package_digest", lambda part: "other code")
    assert rows() == first
    assert (calls("trained"), calls("judged")) == (3, 6)


def test_the_criterion_s_code_is_told_from_the_rest_of_the_package(tmp_path, monkeypatch):
    code_version = importlib.import_module("code_version")
    (tmp_path / "model_selection").mkdir()
    (tmp_path / "__init__.py").write_text("x = 1\n")
    (tmp_path / "model_selection" / "selection.py").write_text("x = 1\n")
    monkeypatch.setattr(code_version.sharpfit, "__file__", str(tmp_path / "__init__.py"))
    digests = []
    for changed in ("__init__.py", "model_selection/selection.py"):
        code_version.package_digest.cache_clear()
        before = code_version.package_digest("model_selection")
        (tmp_path / changed).write_text("x = 2\n")
        code_version.package_digest.cache_clear()
        digests.append(code_version.package_digest("model_selection") == before)
    code_version.package_digest.cache_clear()
    assert digests == [True, False]
