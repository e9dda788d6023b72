"""What `evaluate` measures: adapters with or without weights, their strengths, their nulls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.options import pair_up, split_pairs
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.adapter import Recorded
    from crossmatch.evaluation import Suite, Variant
    from crossmatch.rules import Weight

Strengths = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=A:B:STEP", help="Measure it at these strengths, as in v=-0.5:1.5:0.25; repeat."),
]
Nulls = Annotated[
    int,
    typer.Option(
        min=0,
        max=16,
        help="Random stand-ins by so many seeds: for a merge's partners of the reference; with --strengths, deltas of "
        "equal norm, and the layers' in another order, whose removal is compared with the adapter's.",
    ),
]


@dataclass(frozen=True)
class Measuring:
    """Adapters by name, the merge (None without weights), the reference (an adapter, or another variant), strengths by
    adapter, and seeds of nulls."""

    adapters: "dict[str, Recorded]"
    merge: "dict[str, Weight] | None"
    reference: str
    strengths: dict[str, tuple[float, ...]]
    nulls: int

    def variants(self) -> "list[Variant]":
        """All that is measured, written checkpoints aside."""
        from crossmatch.evaluation.strengths import all_variants

        merges = [self.merge] if self.merge else []
        against = self.reference if self.reference in self.adapters else None
        return all_variants(self.adapters, merges, against, strengths=self.strengths, nulls=self.nulls)


def check_options(suites: "Sequence[Suite]", served: tuple[str | None, str | None], weights: bool) -> None:
    """Raise InputError for options that contradict each other; weights: whether some are for weights that lie here."""
    if len({s.settings.name for s in suites}) < len(suites):
        raise InputError("two suites have the same name; their answers would overwrite each other")
    server, model = served
    if (server is None) != (model is None):
        raise InputError("--server and --model belong together: where it runs, and what it is called there")
    if server is not None and weights:
        raise InputError("a server has its own weights; leave out -a, -w and what goes with them, or --server")


def read_measuring(
    adapter: Sequence[str] | None,
    weight: Sequence[str] | None,
    reference: str | None,
    strengths: Sequence[str] | None,
    nulls: int,
    checkpoints: bool = False,
) -> Measuring:
    """Adapters, weights and strengths as given. An adapter needs a weight or strengths; with checkpoints beside the
    base there may be none.

    Raises InputError for strengths of no adapter, or that are no numbers, and for nulls of nothing.
    """
    from crossmatch.evaluation.strengths import parse_strengths

    wanted = {name: parse_strengths(text) for name, text in split_pairs(strengths, "--strengths").items()}
    paths, weighted = split_pairs(adapter, "-a"), split_pairs(weight, "-w")
    unknown = next((name for name in wanted if name not in paths), None)
    if unknown is not None:
        raise InputError(f"--strengths {unknown}: no such adapter; add -a {unknown}=PATH")
    alone = [name for name in wanted if name not in weighted]
    ones = [*(weight or ()), *(f"{name}=1" for name in alone)]
    parts = pair_up(adapter, ones) if adapter or ones or not checkpoints else {}
    merge = {name: value for name, (_, value) in parts.items() if name not in alone}
    against = reference or next(reversed(parts), "base")
    if nulls and not wanted and not any(name != against for name in merge):
        raise InputError(f"--nulls {nulls}: {against} has no partner to stand in for; add -a and -w, or --strengths")
    adapters = {name: found for name, (found, _) in parts.items()}
    return Measuring(adapters, merge or None, against, wanted, nulls)
