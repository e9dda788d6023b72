"""The parts of `crossmatch analyse` that run texts through the models."""

from typing import Annotated

import typer

Texts = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Compare representations on these: training data, a suite, or lines (.txt)."),
]
Positions = Annotated[int, typer.Option(min=2, help="Tokens of --texts to compare at.")]
Nulls = Annotated[int, typer.Option(min=0, help="Random vectors of the same spectrum beside each vector.")]
Questions = Annotated[
    str | None,
    typer.Option(metavar="SUITE", help="Attribute the log-odds of a choice suite's right answers to modules."),
]
Openings = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The same for <think> over the answer's first token: dialogues, or a suite."),
]
Items = Annotated[int, typer.Option(min=2, help="Items of --questions and --openings at most.")]
