"""What is compared: base, each adapter alone, every merge, and the controls without which a merge proves nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint, value_digest
from crossmatch.delta import TuningVector, same_spectrum
from crossmatch.errors import RuleError
from crossmatch.rules import Weight, Weights, weight_json

# Of 255 bytes that a file system takes for a name; the rest is for what is added to it while it is written.
_LONGEST = 160


@dataclass(frozen=True)
class Variant:
    """A model to evaluate: base + sum of weights[name] * adapter.

    kind: base, adapter, merge, control or null; random: adapters instead of which a random delta of the same singular
    values is taken, with the seed.
    """

    name: str
    kind: str
    weights: Mapping[str, Weight]
    random: Mapping[str, int] = field(default_factory=dict)

    def parts(self, adapters: Mapping[str, Recorded]) -> dict[str, tuple[TuningVector, Weight]]:
        """What is added to the base: adapters with their weights."""
        return {name: (self._delta(name, adapters[name]), weight) for name, weight in self.weights.items()}

    def _delta(self, name: str, adapter: Recorded) -> TuningVector:
        return same_spectrum(adapter, self.random[name]) if name in self.random else adapter

    def digest(self, base: Checkpoint, adapters: Mapping[str, Recorded]) -> str:
        """Digest of what produces the answers: of the base's digest and the adapters' with their weights."""
        used = {name: weight_json(weight) for name, weight in self.weights.items() if weight != 0}
        parts = sorted(((adapters[name].digest, weight) for name, weight in used.items()), key=str)
        random = {"random": dict(self.random)} if self.random else {}
        return value_digest({"base": base.digest, "deltas": parts, **random})


def merge_name(weights: Mapping[str, Weight]) -> str:
    """Name of a merge by its weights, fit for a path, as in `pt0.3+sft0.7`; different weights give different names.

    A long name ends with a digest instead of the rest.
    """
    return _short("+".join(f"{name}{_exact(weight)}" for name, weight in weights.items()))


def _exact(weight: Weight) -> str:
    text = str(weight) if isinstance(weight, Weights) else repr(float(weight)).removesuffix(".0")
    # Of two layers joined by a colon the colon matters: layers[1:] is not layers[1].
    text = re.sub(r"\[(\d*):(\d*)\]", r"[\1-\2]", text)
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 17]}-{value_digest(name)[:16]}"


def standard_variants(
    adapters: Mapping[str, object],
    merges: Sequence[Mapping[str, Weight]],
    reference: str | None,
    *,
    nulls: int = 0,
) -> list[Variant]:
    """Base, each adapter alone, each merge, and for each merge the reference adapter alone at its merge weight.

    The last is the scale-matched control: without it, SFT applied weakly looks like PT interfering with SFT. nulls: so
    many variants of each merge in which the reference's partners are random deltas of the same spectrum: what any delta
    of that size would do. Raises
    RuleError if the reference, or an adapter named in a merge, is not there.
    """
    if reference is not None and reference not in adapters:
        raise RuleError(f"the reference {reference!r} is none of the adapters {', '.join(adapters)}")
    variants = [Variant("base", "base", {})]
    variants += [Variant(name, "adapter", {name: 1.0}) for name in adapters]
    for weights in merges:
        unknown = set(weights) - set(adapters)
        if unknown:
            raise RuleError(f"a merge names {min(unknown)!r}, which is none of the adapters {', '.join(adapters)}")
        variants.append(Variant(merge_name(weights), "merge", dict(weights)))
    for weights in merges:
        alone = weights.get(reference, 0.0) if reference else 0.0
        if reference and alone not in (0.0, 1.0):
            variants.append(Variant(merge_name({reference: alone}), "control", {reference: alone}))
        for seed in range(nulls):
            others = {name: seed for name, weight in weights.items() if name != reference and weight != 0.0}
            if others:
                name = merge_name(weights)
                variants.append(Variant(f"null{seed}-{name}", "null", dict(weights), others))
    named: dict[str, Variant] = {}
    for variant in variants:
        known = named.setdefault(variant.name, variant)
        if known.weights != variant.weights:
            raise RuleError(f"two variants would both be called {variant.name!r}; give that adapter another name")
    return list(named.values())
