"""How many elements of two checkpoints differ, and where."""

from dataclasses import dataclass

from crossmatch.results.vectors import UnequalJson
from crossmatch.runtime import SILENT, Progress, in_order, single_threads
from crossmatch.vectors.checkpoint_pair import Pair, Site, unequal_bits


@dataclass(frozen=True)
class Unequal:
    """Elements compared, and those of them that differ, by tensor where there are any; beyond: rows that only one of
    the two has."""

    elements: int
    tensors: dict[str, int]
    beyond: int = 0

    @property
    def differ(self) -> int:
        """Elements that differ in all."""
        return sum(self.tensors.values())

    def to_dict(self) -> UnequalJson:
        """As plain JSON."""
        return {"elements": self.elements, "differ": self.differ, "beyond": self.beyond, "tensors": self.tensors}


def count_unequal(pair: Pair, progress: Progress = SILENT) -> Unequal:
    """Count the elements of which the second checkpoint's is not, bit for bit, the first one's in its dtype."""
    tensors: dict[str, int] = {}
    total = sum(site.elements for site in pair.sites)
    with single_threads(), progress.task("compare", total) as task:
        for site in pair.sites:
            for count, elements in in_order(lambda at, site=site: _block(pair, site, at), pair.blocks(site)):
                if count:
                    tensors[site.name] = tensors.get(site.name, 0) + count
                task.advance(elements, site.name)
    return Unequal(total, tensors, sum(site.added * site.columns for site in pair.sites))


def _block(pair: Pair, site: Site, at: tuple[int, int]) -> tuple[int, int]:
    ours, theirs = pair.rows(site, *at)
    return unequal_bits(ours.to(theirs.dtype), theirs), theirs.numel()
