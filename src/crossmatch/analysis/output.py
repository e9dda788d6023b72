"""Where an analysis is written: tried before the work, filled after it."""

from pathlib import Path
from tempfile import TemporaryFile

from crossmatch.analysis.analyse import Opened
from crossmatch.checkpoint import disk_error
from crossmatch.errors import InputError, OutputError
from crossmatch.report import write_analysis, write_pictures
from crossmatch.result_kinds import ANALYSIS
from crossmatch.results.analysis import AnalysisJson
from crossmatch.runtime import Progress

RESULT, PAGE = "analysis.json", "analysis.html"


def try_output(output: Path | None, *, pictures: bool) -> None:
    """Raise InputError for pictures without a directory, OutputError for a file, and for a directory that could not be
    written when all is done; leaves nothing."""
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


def check_output(output: Path | None, opened: Opened) -> None:
    """Raise OutputError for a place inside of what is analysed."""
    if output is None:
        return
    for path in (opened.base.path, *(Path(one.path) for one in opened.facts.values())):
        if output.resolve().is_relative_to(path.resolve()):
            raise OutputError(f"{output} lies in {path}, which is analysed; give another directory")


def write_result(output: Path, facts: AnalysisJson, progress: Progress, *, pictures: bool) -> None:
    """The result as JSON and as a page in a directory, in the place of earlier ones."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with progress.task("page"):
            write_analysis(facts, output / PAGE)
            ANALYSIS.replace(output / RESULT, facts)
            if pictures:
                write_pictures(facts, output / "pictures")
    except OSError as error:
        raise disk_error(error, output) from error
