"""--dry-run of run, train and evaluate: stages, tokens, time and memory, and what was rendered."""

from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.console import emit
from crossmatch.report.answer_sentences import WIDTH
from crossmatch.report.text import columns, count, duration, padded, plain, shortened, wrapped

if TYPE_CHECKING:
    from crossmatch.results.study import StudyPlanJson

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print stages, tokens, time and memory, render every prompt and row, and stop."),
]


def show_plan(plan: "StudyPlanJson", as_json: bool, what: str = "study") -> None:
    """The plan on stdout, for people within 80 columns. what: is planned, as the first line calls it."""
    if as_json:
        from crossmatch.result_kinds import STUDY_PLAN

        emit(STUDY_PLAN, plan)
        return
    size = f"{count(plan['parameters'])} parameters, {plan['adapted_modules']} linear modules"
    print(f"{what} {plain(plan['study'])}: {size}")
    print(f"{'stage':18} {'tokens':>10} {'time':>8} {'GiB':>5}  what")
    for stage in plan["stages"]:
        tokens = f"{stage['tokens']:,}" if stage["tokens"] is not None else "-"
        seconds = duration(stage["seconds"]) if stage["seconds"] is not None else "-"
        gib = f"{stage['gib']:.1f}" if stage["gib"] is not None else "-"
        head = f"{padded(shortened(plain(stage['name']), 18), 18)} {tokens:>10} {seconds:>8} {gib:>5}  "
        what = _short_paths(plain(stage["what"]), WIDTH - columns(head))
        for number, line in enumerate(wrapped(what, WIDTH - columns(head))):
            print(f"{head if not number else ' ' * columns(head)}{line}")
    for line in plan["rendered"]:
        print("\n".join(wrapped(_short_paths(plain(line), WIDTH), WIDTH, 2)))
    done = list(dict.fromkeys(stage["name"] for stage in plan["stages"] if stage["finished"]))
    if done:
        text = f"finished already, skipped if nothing that they read has changed: {', '.join(done)}"
        print("\n".join(wrapped(plain(text), WIDTH, 2)))
    print(f"about {duration(plan['seconds'])} on this machine, {plan['flops'] / 1e9:,.0f} GFLOP/s measured")
    if plan.get("submission"):
        print(plan["submission"])


def _short_paths(text: str, width: int) -> str:
    """A text in which paths that are wider than the room there is lose their middle."""
    return " ".join(shortened(word, width) if "/" in word else word for word in text.split(" "))
