"""crossmatch audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import Terminal, emit, plain, say
from crossmatch.cli.options import Json, split_pairs
from crossmatch.errors import ExitCode, InputError, OutputError

if TYPE_CHECKING:
    from crossmatch.evaluation.audit import AuditReport, Pair

_FORMS = "a .jsonl, .json, .txt (a document a line), .parquet or suite .yaml file, or a hub data set; repeat."


def audit_command(
    train: Annotated[list[str], typer.Option(metavar="NAME=FILE", help=f"A train set: {_FORMS}")],
    held_out: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help=f"What training must not have seen: {_FORMS}")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the result as JSON.")] = None,
    fail_above: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Exit with 1 if more of a held-out set is found; 0 to 1.")
    ] = None,
    ngram_share: Annotated[float, typer.Option(help="Share of an item's n-grams from which on it is found.")] = 0.5,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    as_json: Json = False,
) -> None:
    """Look for held-out items in the train sets, and for each train set in those before it."""
    from crossmatch.checkpoint import replace_json
    from crossmatch.evaluation.audit import Criteria, Work, audit, open_corpus

    if fail_above is not None and not 0 <= fail_above <= 1:
        raise InputError(f"--fail-above {fail_above}: give a share from 0 to 1")
    if fail_above is not None and not held_out:
        raise InputError("--fail-above judges held-out sets; add --held-out NAME=FILE")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise OutputError(f"{output} cannot be written; give the name of a file in a directory that exists")
    sources = split_pairs(train, "--train"), split_pairs(held_out, "--held-out")
    corpora = [{name: open_corpus(file) for name, file in files.items()} for files in sources]
    work = Work(processes=processes)
    report = audit(corpora[0], corpora[1], criteria=Criteria(share=ngram_share), work=work, progress=Terminal())
    facts = report.to_dict()
    for kind, files, read in zip(("train", "held_out"), sources, corpora, strict=True):
        for name, file in files.items():
            facts[kind][name] = {"source": file, "digest": read[name].digest(), **facts[kind][name]}
    failed = [name for name in report.ids if fail_above is not None and (report.share(name) or 0) > fail_above]
    facts["gate"] = None if fail_above is None else {"fail_above": fail_above, "failed": failed}
    if output is not None:
        replace_json(output, facts)
    if as_json:
        emit(facts)
    else:
        show(report)
    if output is not None:
        say(f"written: {output}")
    for name in failed:
        say(f"failed: of {name} {report.share(name):.2%} were found, more than {fail_above:.2%}")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def show(report: "AuditReport") -> None:
    """A table for each pair, then what is clean."""
    for pair in report.pairs:
        _show_pair(pair)
    for name, ids in report.ids.items():
        found = len(report.contaminated[name])
        print(f"\n{name}: {found:,} of {len(ids):,} items found, {len(ids) - found:,} are clean")


def _show_pair(pair: "Pair") -> None:
    from crossmatch.evaluation.audit import LEVELS, SCOPES

    cells = {(o.level, o.scope): o for o in pair.overlaps}
    share = f"{pair.found:,} of {pair.documents:,} documents ({pair.found / pair.documents:.2%})"
    print(f"\n{pair.against} in {pair.train}: {share}")
    print(f"  {'':11}" + "".join(f"{scope:>22}" for scope in SCOPES))
    for level in LEVELS:
        row = [cells[level, scope] for scope in SCOPES]
        print(f"  {level:11}" + "".join(f"{_cell(o.found, o.n):>22}" for o in row))
        if level == "ngram":
            print(f"  {'  one or more':11}" + "".join(f"{_cell(o.any_hit, o.n):>22}" for o in row).removeprefix("  "))
    for scope in SCOPES:
        short = [(level, cells[level, scope].too_short) for level in LEVELS]
        if any(n for _, n in short):
            print(f"  {scope} too short for: {', '.join(f'{level} {n:,}' for level, n in short if n)}")
    for o in pair.overlaps:
        for example in o.examples[:1]:
            value = "" if example.value is None else f" {example.value:.2f}"
            line = plain(f"  {o.level}, {o.scope}{value}: {example.id} in {example.train_id}")
            print(line if len(line) < 80 else f"{line[:78]}…")
    if pair.cut:
        print(f"  near: {pair.cut:,} texts of {pair.train} had more candidates than were compared")


def _cell(found: int | None, n: int) -> str:
    return f"{found:,} of {n:,} {found / n:7.2%}" if n and found is not None else "-"
