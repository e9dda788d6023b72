"""The parts of `crossmatch analyse` that run texts through the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal

if TYPE_CHECKING:
    from crossmatch.analysis import Opened
    from crossmatch.analysis.activations import Passage
    from crossmatch.analysis.contrasts import Contrasts


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


@dataclass(frozen=True)
class Asked:
    """texts, questions, openings: files, or None; positions: tokens to compare; nulls: random vectors; items: of
    questions and openings; k: as it was given, of which the numbers are sizes of principal subspaces."""

    texts: str | None
    questions: str | None
    openings: str | None
    positions: int
    nulls: int
    items: int
    k: Sequence[str] = ()

    @property
    def ks(self) -> tuple[int, ...]:
        """Sizes of principal subspaces."""
        return tuple(sorted({int(k) for k in self.k if k.isdigit()})) or (16, 64)

    @property
    def anything(self) -> bool:
        """Whether any model is to be run."""
        return any((self.texts, self.questions, self.openings))


@dataclass(frozen=True)
class Material:
    """What was asked for, read: passages to compare at, and contrasts by metric."""

    asked: Asked
    passages: "Sequence[Passage] | None"
    contrasts: "Mapping[str, Contrasts]"


def read_material(opened: "Opened", asked: Asked) -> Material:
    """Everything that is to be run, as tokens, so that what cannot be read is said before anything is computed."""
    if not asked.anything:
        return Material(asked, None, {})
    from crossmatch.analysis.representations import Scope
    from crossmatch.study.material import read_choices, read_openings, read_passages

    base, contrasts = opened.base, {}
    passages = read_passages(base, asked.texts, Scope().length) if asked.texts else None
    if asked.questions:
        contrasts["questions"] = read_choices(base, asked.questions, asked.items)
    if asked.openings:
        contrasts["openings"] = read_openings(base, asked.openings, asked.items)
    return Material(asked, passages, contrasts)


def run_texts(opened: "Opened", material: Material, facts: dict[str, Any]) -> None:
    """Add to the result: representations and attribution, by vector, and the claims of the first."""
    asked = material.asked
    if not asked.anything:
        return
    from crossmatch.analysis.attribution import attribute
    from crossmatch.analysis.representations import Scope, compare
    from crossmatch.analysis.small import claim_rows

    base, progress, scope = opened.base, Terminal(), Scope(positions=asked.positions, ks=asked.ks, nulls=asked.nulls)
    facts |= {"representations": {}, "attribution": {}}
    for name, vector in opened.vectors.items():
        if material.passages is not None:
            found = facts["representations"][name] = compare(base, vector, material.passages, scope, progress=progress)
            facts["claims"] += claim_rows(name, found["claim"], max(scope.ks))
        if material.contrasts:
            facts["attribution"][name] = {
                metric: attribute(base, vector, contrasts, progress=progress)
                for metric, contrasts in material.contrasts.items()
            }
