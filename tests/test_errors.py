"""Lines that say what to install."""

import tomllib
from pathlib import Path

import pytest

from crossmatch.errors import pip_line

EXTRAS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_line_names_all_that_an_extra_needs(extra: str) -> None:
    line = pip_line(extra)
    assert line.startswith("pip install '")
    assert line.count("'") == 2 * len(EXTRAS[extra])
    assert "crossmatch" not in line
    for requirement in EXTRAS[extra]:
        assert f"'{requirement.partition('>')[0].partition('=')[0]}" in line
