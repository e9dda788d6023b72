"""Show: the page of a finished result."""

from pathlib import Path


def report(
    run: str | Path,
    output: str | Path | None = None,
    *,
    tables: str | Path | None = None,
    figures: str | Path | None = None,
) -> Path:
    """Make the page of a finished study, sweep, analysis or evaluation again, and say where it is.

    run: a run or sweep directory, or what `analyse` or `evaluate` left; output: the page (None: beside its JSON);
    tables, figures: directories for CSV, Markdown and LaTeX, and for SVG, PDF and PNG (None: not written). Raises
    InputError for a directory without a result, DataError for a result of another version, or a damaged one.

        >>> import crossmatch
        >>> crossmatch.report("answers").name
        'summary.html'
    """
    from crossmatch.console import Terminal
    from crossmatch.study.pages import make_page

    place = None if output is None else Path(output)
    files, pictures = (None if one is None else str(one) for one in (tables, figures))
    return make_page(Path(run), place, files, pictures, Terminal()).page
