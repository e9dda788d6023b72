"""What the documents show runs: each block marked `<!-- run -->`, in order, page by page, on tiny models.

`<!-- run: 3 -->` says with which exit code its last command ends; a line with `# hours` is left to the reader. Commands
of crossmatch run in this process, anything else in a shell.
"""

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossmatch.cli import run
from workplace import workplace  # noqa: F401

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("start.md"), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
PAGES.append(ROOT / "docs" / "reference" / "python.md")
_BLOCK = re.compile(r"^<!-- run(?:: (?P<code>\d+))? -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One block: its language, its text, and the exit code of its last command."""

    language: str
    text: str
    code: int


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text())
    return [Block(one["language"], one["text"], int(one["code"] or 0)) for one in found]


def run_bash(block: Block) -> list[int]:
    """Exit codes of its commands."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [_command(line) for line in lines if line.strip() and "# hours" not in line]


def _command(line: str) -> int:
    words = shlex.split(line, comments=True)
    if words[0] == "crossmatch":
        return run(words[1:])
    return subprocess.run(line, shell=True, check=False).returncode


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(
    page: Path,
    workplace: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    shutil.copytree(workplace, here)
    if page.name == "README.md":
        # Its Python writes the merge.
        shutil.rmtree(here / "models" / "merged")
    monkeypatch.chdir(here)
    found = blocks(page)
    assert found
    for block in found if page.name != "README.md" else [Block("python", _python_of(page), 0), *found]:
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), {})
        else:
            codes = run_bash(block)
            seen = capsys.readouterr()
            assert codes == [0] * (len(codes) - 1) + [block.code], (block.text, seen.err[-2000:])


def _python_of(page: Path) -> str:
    """The ten lines of the README."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)[0]


def test_every_page_of_the_first_ten_minutes_has_blocks_that_run() -> None:
    for page in PAGES:
        shown = re.findall(r"^```(?:bash|python)$", page.read_text(), re.M)
        # All of Python and bash but the README's ten lines, which run first.
        assert len(blocks(page)) == len(shown) - (page.name == "README.md"), page


def test_the_readme_is_short_and_its_links_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / link).exists() or link == "docs/reference/commands.md", link
