"""crossmatch analyse."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.analyse.options import Items, Nulls, Openings, Positions, Questions, Texts
from crossmatch.cli.exports import Figures, Tables
from crossmatch.cli.options import Adapters, Detail, Json
from crossmatch.console import Terminal, emit, say
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.results.analysis import AnalysisJson


def named(vectors: list[str]) -> dict[str, str]:
    """[NAME=]PATH texts by name; without one the last part of the path. Raises InputError for two of one name."""
    from crossmatch.checkpoint import safe_name

    result: dict[str, str] = {}
    for text in vectors:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            path, name = text, Path(text).name or Path(text).resolve().name
            name = name.partition("@")[0]
        if not safe_name(name) or not path:
            raise InputError(f"{text}: write it as NAME=PATH; a name is letters, digits, '_', '.', '-'")
        if name in result:
            raise InputError(f"two vectors are called {name}; name them, as in first={result[name]} second={path}")
        result[name] = path
    return result


def analyse_command(
    base: Annotated[str, typer.Argument(help="The base: a directory or a hub id.")],
    vectors: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]PATH", help="Adapters, stored vectors, or checkpoints tuned from the base."),
    ] = None,
    adapter: Adapters = None,
    k: Annotated[
        list[str] | None,
        typer.Option("--k", metavar="K", help="Leading directions: a number, r (the delta's rank), or 90%; repeat."),
    ] = None,
    no_alignment: Annotated[
        bool, typer.Option("--no-alignment", help="Sizes and overlaps alone; adapters: the base's weights stay unread.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the base's directions are kept, else ~/.cache/crossmatch.")
    ] = None,
    sign_conflict: Annotated[
        bool, typer.Option("--sign-conflict", help="Also compare signs, element by element: minutes for large models.")
    ] = False,
    texts: Texts = None,
    positions: Positions = 4096,
    nulls: Nulls = 4,
    questions: Questions = None,
    openings: Openings = None,
    items: Items = 32,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Also write DIR/analysis.json and its page.")
    ] = None,
    svg: Annotated[bool, typer.Option("--svg", help="With -o: every picture as an SVG file, too.")] = False,
    detail: Detail = False,
    tables: Tables = None,
    figures: Figures = None,
    as_json: Json = False,
) -> None:
    """Say what fine-tuning changed: size, place on the base's singular directions, overlap of two vectors.

    With --texts, --questions or --openings the models are run as well, in float32.
    Exit code 1: a tuned checkpoint is the base itself, so that there is nothing to analyse.
    """
    from crossmatch.analysis import DEFAULT_KS, Wanted
    from crossmatch.analysis.output import PAGE, RESULT
    from crossmatch.analysis.run_analysis import AnalysisRequest, run_analysis
    from crossmatch.analysis.texts import TextRequest
    from crossmatch.export.wanted import export, wanted_exports
    from crossmatch.runtime import keep_heap

    keep_heap()
    given = [*(vectors or []), *(adapter or [])]
    if not given:
        raise InputError("nothing to analyse: give adapters, stored vectors or tuned checkpoints, as in pt=runs/pt")
    wanted = Wanted(tuple(dict.fromkeys(k or DEFAULT_KS)), not no_alignment, cache, sign_conflict)
    asked = TextRequest(texts, questions, openings, positions, nulls, items, k or ())
    exports = wanted_exports(tables, figures, output)
    facts = run_analysis(AnalysisRequest(base, named(given), wanted, asked, output, svg), Terminal())
    say_notes(base, facts)
    if as_json:
        from crossmatch.result_kinds import ANALYSIS

        emit(ANALYSIS, facts)
        if output is not None:
            say(f"written: {output / RESULT}; page: {output / PAGE}")
    else:
        from crossmatch.report.terminal.result import print_analysis

        page, source = (output / PAGE, output / RESULT) if output else (None, None)
        print_analysis(facts, page, source, detail=detail)
    export(facts, exports, Terminal())


def say_notes(base: str, facts: "AnalysisJson") -> None:
    """What a reader of the figures must know."""
    for name, one in facts["vectors"].items():
        if one["on_its_base"] is False:
            say(f"note: {name} was made on other weights than {base} has")
