"""The parts of an analysis that run texts through the models: what is asked, what is read, what is found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossmatch.analysis.analyse import Opened
from crossmatch.checkpoint import Checkpoint
from crossmatch.errors import InputError
from crossmatch.results.analysis import AnalysisJson
from crossmatch.runtime import SILENT, Progress

# They load the model libraries, which an analysis of weights does without.
if TYPE_CHECKING:
    from crossmatch.data.log_odds_items import Contrasts
    from crossmatch.data.passages import Passage


@dataclass(frozen=True)
class TextRequest:
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

    asked: TextRequest
    passages: "Sequence[Passage] | None"
    ks: Sequence[int]
    contrasts: "Mapping[str, Contrasts]"


def read_material(opened: Opened, asked: TextRequest, progress: Progress = SILENT) -> Material:
    """Everything that is to be run, as tokens, so that what cannot be read is said before anything is computed."""
    if not asked.anything:
        return Material(asked, None, (), {})
    from crossmatch.analysis.representations.compare import Scope
    from crossmatch.data.model_inputs import read_choices, read_openings, read_passages

    base, contrasts = opened.base, {}
    ks = asked.ks(_width(base)) if asked.texts else ()
    passages = read_passages(base, asked.texts, Scope().length, progress) if asked.texts else None
    if asked.questions:
        contrasts["questions"] = read_choices(base, asked.questions, asked.items)
    if asked.openings:
        contrasts["openings"] = read_openings(base, asked.openings, asked.items, progress)
    return Material(asked, passages, ks, contrasts)


def _width(base: Checkpoint) -> int:
    """Dimensions of the residual stream."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base.path).get_text_config().hidden_size


def run_texts(opened: Opened, material: Material, facts: AnalysisJson, progress: Progress) -> None:
    """Add to the result: representations and attribution, by vector, and the claims of the first."""
    asked = material.asked
    if not asked.anything:
        return
    from crossmatch.analysis.attribution.integrated_gradients import attribute
    from crossmatch.analysis.representations.compare import Scope, compare
    from crossmatch.analysis.representations.subspace_claim import claim_rows

    base = opened.base
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
