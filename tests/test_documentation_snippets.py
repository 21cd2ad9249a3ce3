"""The README's commands exist, its example prints what it says, the API reference is complete."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import sharpfit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^\$ make (\S+)", "".join(blocks("console")), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(commands)
    for target in commands:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_example_prints_what_the_readme_says():
    """Text is compared exactly, numbers up to 10 % or one unit of the last digit shown.

    Training amplifies rounding, which depends on the processor.
    """
    (source,), (expected,) = blocks("python"), blocks("text")
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})
    output = printed.getvalue()
    assert NUMBER.sub("#", output).split() == NUMBER.sub("#", expected).split()
    for shown, number in zip(NUMBER.findall(expected), NUMBER.findall(output), strict=True):
        decimals = len(shown.partition(".")[2])
        assert float(number) == pytest.approx(float(shown), rel=0.1, abs=1.01 * 10**-decimals)


@pytest.mark.parametrize("name", sharpfit.__all__)
def test_name_is_in_the_api_reference(name):
    reference = (ROOT / "docs" / "api" / "index.rst").read_text()
    assert re.search(rf"^   {name}$|``{name}``", reference, flags=re.MULTILINE)
