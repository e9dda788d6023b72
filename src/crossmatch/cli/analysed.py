"""What analyse writes and says beside its tables."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from crossmatch.cli.console import Terminal, say
from crossmatch.errors import InputError, OutputError

if TYPE_CHECKING:
    from crossmatch.analysis import Opened

RESULT, PAGE = "analysis.json", "analysis.html"


def try_output(output: Path | None, *, pictures: bool) -> None:
    """Raise InputError for pictures without a directory, OutputError for a file, and for a directory that could not be
    written when all is done; leaves nothing."""
    from crossmatch.checkpoint import disk_error

    if output is None:
        if pictures:
            raise InputError("--svg needs -o DIR, where the pictures go")
        return
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; give a directory")
    place = next(path for path in (output, *output.absolute().parents) if path.exists())
    try:
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise disk_error(error, output) from error


def check_output(output: Path | None, opened: "Opened") -> None:
    """Raise OutputError for a place inside of what is analysed."""
    if output is None:
        return
    for path in (opened.base.path, *(Path(one["path"]) for one in opened.facts.values())):
        if output.resolve().is_relative_to(path.resolve()):
            raise OutputError(f"{output} lies in {path}, which is analysed; give another directory")


def say_notes(base: str, facts: dict[str, Any]) -> None:
    """What a reader of the figures must know."""
    for name, one in facts["vectors"].items():
        if one["on_its_base"] is False:
            say(f"note: {name} was made on other weights than {base} has")


def write(output: Path, facts: dict[str, Any], *, pictures: bool) -> None:
    """The result as JSON and as a page in a directory, in the place of earlier ones."""
    from crossmatch.checkpoint import disk_error, replace_json
    from crossmatch.report import write_analysis, write_pictures

    try:
        output.mkdir(parents=True, exist_ok=True)
        with Terminal().task("page"):
            write_analysis(facts, output / PAGE)
            replace_json(output / RESULT, facts)
            if pictures:
                write_pictures(facts, output / "pictures")
    except OSError as error:
        raise disk_error(error, output) from error
