"""crossmatch doctor."""

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.options import Adapters, Json
from crossmatch.console import Terminal, emit
from crossmatch.errors import ExitCode
from crossmatch.report.text import printable

if TYPE_CHECKING:
    from crossmatch.study.doctor import Checkup


def doctor_command(
    base: Annotated[str | None, typer.Argument(help="Base checkpoint: a directory or a hub id.")] = None,
    adapter: Adapters = None,
    as_json: Json = False,
) -> None:
    """Check this machine, a base and adapters against each other, before hours are spent.

    Looked at are versions, memory, disk and GPU; the base's weights, tokenizer, chat template and turn end; whether
    each adapter is whole, fits, and was made for this base; and what shows only when all are merged.

    Exit code 0: no fault (warnings may be there); 1: a fault was found.
    """
    from crossmatch.checkpoint import split_pairs
    from crossmatch.result_kinds import DOCTOR
    from crossmatch.study.doctor import doctor

    found = doctor(base, split_pairs(adapter, "-a"), progress=Terminal())
    if as_json:
        emit(DOCTOR, found.to_dict())
    else:
        show(found)
    if found.worst == "fault":
        raise typer.Exit(ExitCode.FAILED)


def show(found: "Checkup") -> None:
    """A line for each thing, and below it what to do; the last line counts."""
    width = max(len(line.topic) for line in found.lines)
    for line in found.lines:
        head = f"{line.state:8} {printable(line.topic):{width}}  "
        for text, first in ((line.seen, head), (line.remedy and f"-> {line.remedy}", " " * len(head))):
            if text:
                print(textwrap.fill(printable(text), 79, initial_indent=first, subsequent_indent=" " * len(head)))
    faults, warnings = found.count("fault"), found.count("warning")
    ending = "fix the faults before you start" if faults else "nothing stands in the way"
    counts = ", ".join(
        f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((faults, "fault"), (warnings, "warning")) if n
    )
    print(f"\n{counts or 'all is well'}: {ending}" if counts else f"\nall is well: {ending}")
