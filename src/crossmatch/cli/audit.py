"""crossmatch audit."""

import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.exports import Tables
from crossmatch.cli.options import Detail, Json
from crossmatch.console import Terminal, emit, say
from crossmatch.errors import ExitCode, InputError
from crossmatch.report.terminal.answers import Rest, show_screen
from crossmatch.report.terminal.audit import audit_table
from crossmatch.report.text import printable

if TYPE_CHECKING:
    from crossmatch.evaluation.audit import AuditReport, SetPair

_FORMS = "a .jsonl, .json, .csv, .parquet, .txt (also .gz, .zst) or suite .yaml file, or a hub data set; repeat."


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
    detail: Detail = False,
    tables: Tables = None,
    as_json: Json = False,
) -> None:
    """Look for held-out items in the train sets, and for each train set in those before it."""
    from crossmatch.checkpoint import split_pairs
    from crossmatch.evaluation.audit import Criteria, Work, audit, open_corpus
    from crossmatch.evaluation.audit.report import audit_facts, check_output
    from crossmatch.export.wanted import export, wanted_exports
    from crossmatch.result_kinds import AUDIT

    if fail_above is not None and not 0 <= fail_above <= 1:
        raise InputError(f"--fail-above {fail_above}: give a share from 0 to 1")
    if fail_above is not None and not held_out:
        raise InputError("--fail-above judges held-out sets; add --held-out NAME=FILE")
    check_output(output)
    exports = wanted_exports(tables, None, None)
    sources = split_pairs(train, "--train"), split_pairs(held_out, "--held-out")
    corpora = [{name: open_corpus(file) for name, file in files.items()} for files in sources]
    work = Work(processes=processes)
    report = audit(corpora[0], corpora[1], criteria=Criteria(share=ngram_share), work=work, progress=Terminal())
    facts = audit_facts(report, sources, corpora, fail_above)
    failed = facts["gate"]["failed"] if facts["gate"] else []
    for note in report.notes:
        say(f"note: {note}")
    if output is not None:
        AUDIT.replace(output, facts)
    if as_json:
        emit(AUDIT, facts)
        if output is not None:
            say(f"written: {output}")
    else:
        if detail:
            show(report)
            print()
        places = {"json": str(output)} if output is not None else {}
        show_screen(facts["answers"], partial(audit_table, facts), Rest(places, detail=not detail))
    export(facts, exports, Terminal())
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


def _show_pair(pair: "SetPair") -> None:
    """What was found, with an example each, then what was looked for and not found, with the number judged."""
    share = f"{pair.found:,} of {pair.documents:,} documents ({pair.found / pair.documents:.2%})"
    print(f"\n{pair.against} in {pair.train}: {share}")
    hits = [o for o in pair.overlaps if o.found or o.any_hit]
    if hits:
        print(f"  {'level':10} {'scope':8} {'found':>11} {'of judged':>11} {'share':>7} {'any n-gram':>11}")
    for o in hits:
        any_hit = "" if o.any_hit is None else f"{o.any_hit:,}"
        print(f"  {o.level:10} {o.scope:8} {o.found:11,} {o.n:11,} {o.found / o.n:7.1%} {any_hit:>11}".rstrip())
        for example in o.examples[:1]:
            value = "" if example.value is None else f"{example.value:.2f}: "
            line = printable(f"    {value}{example.id} in {example.train_id}")
            print(line if len(line) < 80 else f"{line[:78]}…")
    clean = ", ".join(f"{o.level} {o.scope} {o.n:,}" for o in pair.overlaps if o.n and o not in hits)
    short = ", ".join(f"{o.level} {o.scope} {o.too_short:,}" for o in pair.overlaps if o.too_short)
    for label, text in (("none found", clean), ("too short", short)):
        if text:
            print(textwrap.fill(f"  {label}: {text}", 79, subsequent_indent="    "))
    if pair.cut:
        print(f"  near: {pair.cut:,} texts of {pair.train} had more candidates than were compared")
