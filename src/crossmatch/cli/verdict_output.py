"""How a command gives a verdict: on the terminal, as JSON, and as files for the machines that judge a change."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.console import emit
from crossmatch.errors import ExitCode, OutputError
from crossmatch.report.text import columns, paragraph, plain
from crossmatch.report.verdict_text import finding_lines, hiding_lines, reliable, rounding_line

if TYPE_CHECKING:
    from crossmatch.results.verdict import GroupWeightJson
    from crossmatch.verification import Verdict

# Columns of a line, and modules that are listed.
_WIDTH, _MODULES = 79, 20
EXIT = dict.fromkeys(("verified", "identified"), ExitCode.OK)
EXIT |= {"failed": ExitCode.FAILED, "inconclusive": ExitCode.INCONCLUSIVE}
Sarif = Annotated[Path | None, typer.Option("--sarif", metavar="FILE", help="Also write the verdict as SARIF 2.1.0.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write the verdict as JUnit XML.")]
Summary = Annotated[
    Path | None,
    typer.Option("--summary", metavar="FILE", help="Append the verdict in Markdown, as for $GITHUB_STEP_SUMMARY."),
]
Annotate = Annotated[bool, typer.Option("--annotate", help="Also print GitHub annotations; --json: on stderr.")]


@dataclass(frozen=True)
class Shown:
    """In which forms a verdict is wanted."""

    as_json: bool = False
    detail: bool = False
    sarif: Path | None = None
    junit: Path | None = None
    annotate: bool = False
    attest: Path | None = None
    bom: Path | None = None
    summary: Path | None = None


def check_files(shown: Shown) -> None:
    """Raise OutputError for a file that cannot be written: before the work, not after it. An earlier answer is removed:
    if there is none this time, nobody may take that one for it."""
    from crossmatch.checkpoint import disk_error

    files = [file for file in (shown.sarif, shown.junit, shown.attest, shown.bom) if file is not None]
    if len({file.resolve() for file in files}) < len(files):
        raise OutputError(f"{files[0]} is given twice; --sarif, --junit, --attest and --bom need a file each")
    for file in files:
        if file.exists() and not file.is_file():
            raise OutputError(f"{file} is no regular file; give the name of a file to write")
        try:
            with tempfile.TemporaryFile(dir=file.parent):
                pass
        except OSError as error:
            raise disk_error(error, file) from error
    for file in files:
        file.unlink(missing_ok=True)


def conclude(merged: str, verdict: "Verdict", shown: Shown, files: Mapping[str, str]) -> None:
    """Give the verdict in every wanted form; files: tensor -> its file, as far as known."""
    from crossmatch.report.ci import annotations, junit, sarif

    facts = verdict.to_dict(detail=shown.detail)
    if shown.as_json:
        from importlib.metadata import version

        from crossmatch.result_kinds import VERDICT

        emit(VERDICT, {**facts, "checkpoint": merged, "tool": {"name": "crossmatch", "version": version("crossmatch")}})
    else:
        show(merged, verdict, detail=shown.detail)
    if shown.annotate:
        for line in annotations(facts, merged):
            print(line, file=sys.stderr if shown.as_json else sys.stdout)
    if shown.summary is not None:
        from crossmatch.export.job_summary import job_summary

        # A job's other steps write into it, too.
        with shown.summary.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(job_summary(facts, merged))
    if shown.sarif is not None:
        log = sarif(facts, merged, files)
        replace_text(shown.sarif, json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if shown.junit is not None:
        replace_text(shown.junit, junit(facts, merged))


def replace_text(file: Path, text: str) -> None:
    """Write beside `file` and rename: a reader sees the old file or the whole new one."""
    from crossmatch.checkpoint import disk_error

    temporary = file.with_name(f".{file.name}.crossmatch-partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, file) from error


def show(merged: str, verdict: "Verdict", *, detail: bool = False) -> None:
    """The verdict for people: one line, the weights, then only what is wrong and what to do about it; with `detail`
    modules that do not agree, too."""
    head = f"{verdict.verdict.upper()}  {plain(merged)}"
    print(
        head
        if columns(head) <= _WIDTH
        else f"{verdict.verdict.upper()}\n{paragraph(plain(merged), 2, part_paths=True)}"
    )
    for line in _facts(verdict):
        _print_under(line)
    for finding in (f.to_dict() for f in verdict.findings):
        _print_block(f"{finding['fault']}: {finding['consequence']}.")
        for line in finding_lines(finding)[1:]:
            _print_under(line)
    for text in verdict.evidence.get("not_checked", ()):
        _print_block(f"not checked: {plain(text)}.")
    for note in verdict.notes:
        _print_block(f"note {note}: {plain(verdict.explained(note))}.")
    if detail:
        _print_modules(verdict)


def _print_modules(verdict: "Verdict") -> None:
    """A line for each module that does not agree, at most 20."""
    apart = [module for module in verdict.details if module["state"] != "agree"]
    if not apart:
        _print_block("modules: all agree." if verdict.details else "modules: none was judged.")
        return
    _print_block(f"modules that do not agree, {len(apart)} of {len(verdict.details)}:")
    for module in apart[:_MODULES]:
        weights = ", ".join(_held(name, w, verdict.thresholds) for name, w in module["weights"].items())
        _print_under(f"{plain(module['name'])}: {module['state']}" + (f", holds {weights}" if weights else ""))
    if len(apart) > _MODULES:
        _print_under(f"and {len(apart) - _MODULES} more; --json --detail gives all")


def _held(name: str, weight: "GroupWeightJson", thresholds: Mapping[str, float]) -> str:
    """An adapter's weight in one module: 0 where it is within its error of that."""
    value = weight["recovered"]
    near = abs(value) <= thresholds.get("sigmas", 0.0) * weight["stderr"]
    return f"{plain(name)} {0.0 if near else value:.4g}"


def _facts(verdict: "Verdict") -> Iterator[str]:
    """What stands below the verdict: weights, counts, rounding, what could hide."""
    from crossmatch.verification.faults import BESIDE_WEIGHTS

    believed = reliable(verdict.faults, verdict.modules)
    for name, w in verdict.weights.items():
        found = "not identifiable" if w.recovered is None else f"{w.recovered:.5f} ± {w.stderr:.1g}"
        if w.recovered is not None and not believed:
            found = f"{w.recovered:.2g}"
        claimed = "" if w.claimed is None else f"claimed {w.claimed:<8g} "
        yield f"{plain(name):12} {claimed}recovered {found}"
    if not believed and any(w.recovered is not None for w in verdict.weights.values()):
        yield "the recovered weights are not reliable beside what is unexplained"
    for known in verdict.evidence.get("sums", ()):
        terms = " + ".join(plain(name) if c == 1 else f"{c:.3g} {plain(name)}" for name, c in known["terms"].items())
        yield f"{terms} = {known['recovered']:.5f} ± {known['stderr']:.1g}"
    if verdict.evidence.get("absent"):
        yield f"not in the file: {', '.join(map(plain, verdict.evidence['absent']))}"
    modules, tensors, rounding = verdict.modules, verdict.tensors, verdict.rounding
    if modules["adapted"]:
        same = f"{tensors['untouched_identical']} of {tensors['total'] - modules['adapted']}"
        agree = f"{modules['agree']} of {modules['adapted']}"
        yield f"{agree} adapted modules agree; {same} other tensors are the base's"
        if verdict.faults and BESIDE_WEIGHTS.issuperset(verdict.faults) and modules["agree"] == modules["adapted"]:
            what = "explained" if all(w.claimed is None for w in verdict.weights.values()) else "what is claimed"
            yield f"the weights are {what}; what is wrong lies in files beside them"
    if rounding.get("violations") is not None:
        yield f"rounding: {rounding_line(rounding)}"
    if verdict.verified:
        yield from hiding_lines({"evidence": verdict.evidence, "rounding": rounding})
    if verdict.evidence.get("sampled"):
        scope = verdict.evidence["sampled"]
        missed = ", ".join(f"{where} {chance:.2g}" for where, chance in scope["missed"].items())
        looked = f"{scope['rows']} of {scope['of']} rows of {plain(scope['tensor'])}"
        yield f"looked at {looked}, the tensor seen least; the chance to miss a fault there, in: {missed}"


def _print_under(line: str) -> None:
    """A line below a heading, wrapped where it is long; a short one keeps its columns."""
    head, *rest = paragraph(line, 4, part_paths=True).splitlines()
    print("\n".join([f"  {head.strip()}", *rest]) if columns(line) + 2 > _WIDTH else f"  {line}")


def _print_block(line: str) -> None:
    """A heading after an empty line."""
    head, *rest = paragraph(line, 2, part_paths=True).splitlines()
    print("\n".join(["", head.strip(), *rest]))
