"""The parts of `crossmatch analyse` that run texts through the models, and what a terminal shows of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal, plain

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
    questions and openings."""

    texts: str | None
    questions: str | None
    openings: str | None
    positions: int
    nulls: int
    items: int

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

    base, progress, scope = opened.base, Terminal(), Scope(positions=asked.positions, nulls=asked.nulls)
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


def show_texts(facts: Mapping[str, Any]) -> None:
    """Representations by layer, then the modules that a log-odds comes from."""
    for name, found in facts.get("representations", {}).items():
        for line in _layers(name, found):
            print(plain(line))
    for name, metrics in facts.get("attribution", {}).items():
        for found in metrics.values():
            for line in _modules(name, found):
                print(plain(line))


def _layers(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{name}: {found['positions']} tokens of {found['texts']} texts, less first ones and massive dimensions"
    heads = ("CKA", "SVCCA", "cos2", "rotated", "shift", "eff.rank", "random")
    yield f"{'':16}" + "".join(f"{head:>9}" for head in heads)
    for row in found["layers"]:
        if row["part"] != "residual":
            continue
        view = row["without"]
        turn = view["subspaces"][-1]
        rotated, random = _mean(turn["rotated"]), _mean([one["effective_rank"] for one in view["random"]])
        cells = [view[key]["value"] for key in ("cka", "svcca")] + [turn["cosine2"]["value"], rotated]
        cells += [view["size"]["value"], view["effective_rank"]["value"], random]
        yield f"{'layer ' + str(row['layer']):16}" + "".join(f"{_number(cell):>9}" for cell in cells)


def _modules(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{name}: log-odds, {found['metric']}: {found['items']} items"
    change, share = found["change"], found["completeness"]
    said = "complete" if found["complete"] else "NOT COMPLETE"
    yield f"change {_number(change['value'])} +- {_number(change['stderr'])}, attributed {_number(share)} of it: {said}"
    yield f"{'':44}{'attributed':>11}{'taken out':>11}{'+-':>9}"
    for row in found["removed"]["modules"]:
        label = row["name"].removesuffix(".weight")[-43:]
        measured = row["removed"]
        cells = [row["integrated"]["value"], measured["value"], measured["stderr"]]
        yield f"{label:44}" + "".join(f"{_number(cell):>{w}}" for cell, w in zip(cells, (11, 11, 9), strict=True))
    top, ranks = len(found["removed"]["modules"]), found["removed"]["spearman"]["integrated"]["top"]["value"]
    yield f"confirmed: {found['removed']['confirmed']} of {top}; rank correlation {_number(ranks)}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
