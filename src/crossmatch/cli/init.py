"""crossmatch init."""

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.options import Json
from crossmatch.console import Terminal, emit, say
from crossmatch.report.text import printable


def init_command(
    directory: Annotated[Path, typer.Argument(help="Where models, adapters, data and suites are.")] = Path(),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The recipe; default: DIRECTORY/study.yaml.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a commented recipe for `crossmatch run` from what is in a directory.

    Looked for are checkpoints, PEFT adapters, training data of any known format, suites, and files of questions, which
    get a suite. What was found, guessed and left out is printed; nothing is overwritten.
    """
    from crossmatch.study.init import init

    proposal = init(directory, output, progress=Terminal())
    if as_json:
        from crossmatch.result_kinds import INIT

        emit(INIT, proposal.to_dict())
    else:
        parts = {"found": proposal.found, "guessed": proposal.guessed, "left out": proposal.left}
        for title, lines in parts.items():
            for number, line in enumerate(lines):
                head = f"{title if not number else '':10}"
                print(textwrap.fill(printable(line), 79, initial_indent=head, subsequent_indent=" " * 12))
        print(f"written   {printable(str(proposal.output))}")
    say(f"next: crossmatch run {proposal.output} --dry-run")
