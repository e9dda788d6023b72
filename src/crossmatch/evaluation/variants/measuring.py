"""What an evaluation measures, from adapters, weights and strengths as they are given."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossmatch.adapter import Recorded, open_vector
from crossmatch.checkpoint import split_pairs
from crossmatch.errors import InputError
from crossmatch.evaluation.variants.strengths import all_variants, parse_strengths
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.rules.weights import Weight, read_pairs


@dataclass(frozen=True)
class Measuring:
    """Adapters by name, the merge (None without weights), the reference (an adapter, or another variant), strengths by
    adapter, and seeds of nulls."""

    adapters: dict[str, Recorded]
    merge: dict[str, Weight] | None
    reference: str
    strengths: dict[str, tuple[float, ...]]
    nulls: int

    def variants(self) -> list[Variant]:
        """All that is measured, written checkpoints aside."""
        merges = [self.merge] if self.merge else []
        against = self.reference if self.reference in self.adapters else None
        return all_variants(self.adapters, merges, against, strengths=self.strengths, nulls=self.nulls)


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
    wanted = {name: parse_strengths(text) for name, text in split_pairs(strengths, "--strengths").items()}
    paths, weighted = split_pairs(adapter, "-a"), split_pairs(weight, "-w")
    unknown = next((name for name in wanted if name not in paths), None)
    if unknown is not None:
        raise InputError(f"--strengths {unknown}: no such adapter; add -a {unknown}=PATH")
    alone = [name for name in wanted if name not in weighted]
    ones = [*(weight or ()), *(f"{name}=1" for name in alone)]
    parts = read_pairs(adapter, ones) if adapter or ones or not checkpoints else {}
    adapters: dict[str, Recorded] = {name: open_vector(path) for name, (path, _) in parts.items()}
    merge = {name: value for name, (_, value) in parts.items() if name not in alone}
    against = reference or next(reversed(parts), "base")
    if nulls and not wanted and not any(name != against for name in merge):
        raise InputError(f"--nulls {nulls}: {against} has no partner to stand in for; add -a and -w, or --strengths")
    return Measuring(adapters, merge or None, against, wanted, nulls)
