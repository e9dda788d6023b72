"""The parts of `crossmatch analyse` that run texts through the models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import Terminal
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.analysis import Opened
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.data.log_odds_items import Contrasts
    from crossmatch.data.passages import Passage
    from crossmatch.results.analysis import AnalysisJson


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

    def ks(self, width: int) -> tuple[int, ...]:
        """Sizes of principal subspaces in a residual stream of a width: those that were given, else 16 and 64 as far as
        they fit. Raises InputError for one that was given and does not."""
        given = sorted({int(k) for k in self.k if k.isdigit()})
        if given and given[-1] >= width:
            raise InputError(
                f"--k {given[-1]}: the model's activations have {width} dimensions, of which --texts compares fewer; "
                "give a smaller number"
            )
        # Massive dimensions are left out as well: half of all are there in any case.
        return tuple(given) or tuple(sorted({min(k, max(1, width // 2)) for k in (16, 64)}))

    @property
    def anything(self) -> bool:
        """Whether any model is to be run."""
        return any((self.texts, self.questions, self.openings))


@dataclass(frozen=True)
class Material:
    """What was asked for, read: passages to compare at, sizes of principal subspaces, and contrasts by metric."""

    asked: Asked
    passages: "Sequence[Passage] | None"
    ks: Sequence[int]
    contrasts: "Mapping[str, Contrasts]"


def read_material(opened: "Opened", asked: Asked) -> Material:
    """Everything that is to be run, as tokens, so that what cannot be read is said before anything is computed."""
    if not asked.anything:
        return Material(asked, None, (), {})
    from crossmatch.analysis.representations.compare import Scope
    from crossmatch.data.model_inputs import read_choices, read_openings, read_passages

    base, contrasts = opened.base, {}
    ks = asked.ks(_width(base)) if asked.texts else ()
    passages = read_passages(base, asked.texts, Scope().length) if asked.texts else None
    if asked.questions:
        contrasts["questions"] = read_choices(base, asked.questions, asked.items)
    if asked.openings:
        contrasts["openings"] = read_openings(base, asked.openings, asked.items)
    return Material(asked, passages, ks, contrasts)


def _width(base: "Checkpoint") -> int:
    """Dimensions of the residual stream."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base.path).get_text_config().hidden_size


def run_texts(opened: "Opened", material: Material, facts: "AnalysisJson") -> None:
    """Add to the result: representations and attribution, by vector, and the claims of the first."""
    asked = material.asked
    if not asked.anything:
        return
    from crossmatch.analysis.attribution.integrated_gradients import attribute
    from crossmatch.analysis.representations.compare import Scope, compare
    from crossmatch.analysis.representations.subspace_claim import claim_rows

    base, progress = opened.base, Terminal()
    facts["representations"], facts["attribution"] = {}, {}
    for name, vector in opened.vectors.items():
        if material.passages is not None:
            scope = Scope(positions=asked.positions, ks=tuple(material.ks), nulls=asked.nulls)
            found = facts["representations"][name] = compare(base, vector, material.passages, scope, progress=progress)
            facts["claims"] += claim_rows(name, found["claim"], max(scope.ks))
        if material.contrasts:
            facts["attribution"][name] = {
                metric: attribute(base, vector, contrasts, progress=progress)
                for metric, contrasts in material.contrasts.items()
            }
