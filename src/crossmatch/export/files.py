"""Tables and figures as files: CSV, Markdown and LaTeX; SVG, PDF and PNG."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmatch.errors import OutputError
from crossmatch.export.formats import FORMATS, to_csv
from crossmatch.export.table import Json, Table

INDEX = "index.md"
# Width of a figure in CSS pixels, and what a PNG has of each.
_WIDTH, _SCALE = 640, 2.0


def check_directory(directory: Path) -> None:
    """Raise OutputError if files could not be written there: before the work, not after it. Leaves nothing."""
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"{directory} is a file; give a directory")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror or error}") from error


def write_tables(tables: Mapping[str, Table], directory: Path) -> list[Path]:
    """Every table as CSV, and those without a row a module as Markdown and LaTeX too; `index.md` says what is there.

    Earlier files of these names are replaced, others are left. Returns the files. Raises OutputError.
    """
    written = []
    for name, table in tables.items():
        ends = {"csv": to_csv} if table.by_module else FORMATS
        written += [_put(directory / f"{_stem(name)}.{end}", form(table)) for end, form in ends.items()]
    return [*written, _put(directory / INDEX, _index(tables))]


def write_figures(charts: Mapping[str, Json], directory: Path) -> list[Path]:
    """Every chart (Vega-Lite) as SVG, PDF and PNG; returns the files. Raises OutputError."""
    import vl_convert

    written = []
    for name, chart in charts.items():
        spec = {**chart, "width": _WIDTH} if chart.get("width") == "container" else dict(chart)
        # Drawn once: the other forms are made of the drawing.
        drawn = vl_convert.vegalite_to_svg(spec)
        forms = {"svg": drawn, "pdf": vl_convert.svg_to_pdf(drawn), "png": vl_convert.svg_to_png(drawn, scale=_SCALE)}
        written += [_put(directory / f"{_stem(name)}.{end}", content) for end, content in forms.items()]
    return written


def charts_of(facts: Json, name: str = "") -> dict[str, Any]:
    """Every chart of a result as plain JSON, those of its page (study, evaluation's summary, analysis, sweep).

    name: an evaluation's. Other results have none.
    """
    from crossmatch.report.page.study import analysis_view, build_view, evaluation_view
    from crossmatch.report.page.sweep import sweep_view

    if "study" in facts and "verdicts" in facts:
        return build_view(facts)["charts"] | _scores(facts.get("summary"))
    if "conditions" in facts and "variants" in facts:
        return evaluation_view({"name": name, "summary": facts})["charts"] | _scores(facts)
    if "alignment" in facts and "vectors" in facts:
        return analysis_view(facts)["charts"]
    if "recommendation" in facts and "points" in facts:
        return sweep_view(facts)["charts"]
    return {}


def _scores(summary: Json | None) -> dict[str, Any]:
    """What is read first of every suite, with its intervals: a row a variant, a panel a metric."""
    from crossmatch.export.scores_figure import scores_figure
    from crossmatch.export.tables.evaluation import evaluation_tables

    tables = evaluation_tables(summary) if summary else []
    drawn = {t.name.replace("overview.", "scores."): scores_figure(t) for t in tables if t.name.startswith("overview.")}
    return {name: chart for name, chart in drawn.items() if chart}


def _index(tables: Mapping[str, Table]) -> str:
    lines = ["# Tables", "", "CSV files hold every digit; Markdown and LaTeX are rounded as a page shows them.", ""]
    for name, table in tables.items():
        ends = "CSV" if table.by_module else "CSV, Markdown, LaTeX"
        heads = ", ".join(column.heading for column in table.columns)
        rows = "1 row" if len(table.rows) == 1 else f"{len(table.rows)} rows"
        lines.append(f"- `{_stem(name)}` ({ends}, {rows}): {table.title}. Columns: {heads}.")
    return "\n".join([*lines, ""])


def _stem(name: str) -> str:
    """A name from a file never becomes a path unchecked."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".") or "table"


def _put(file: Path, content: str | bytes) -> Path:
    """Write beside `file` and rename: a reader sees the old file or the whole new one."""
    temporary = file.with_name(f".{file.name}.crossmatch-partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{file} was not written: {error.strerror or error}") from error
    return file
