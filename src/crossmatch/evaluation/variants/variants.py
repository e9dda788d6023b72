"""What is compared: base, each adapter alone, every merge, and the controls without which a merge proves nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint, side_digest, value_digest
from crossmatch.delta import TuningVector
from crossmatch.errors import RuleError
from crossmatch.evaluation.variants.random_controls import VERSION as NULLS_VERSION
from crossmatch.evaluation.variants.random_controls import Null
from crossmatch.results.summary import VariantKind
from crossmatch.rules import Recipe, Weight, Weights, weight_json

# Kinds that answer a question of their own: families of their own when differences are adjusted.
APART = ("strength", "removal")
# Of 255 bytes that a file system takes for a name; the rest is for what is added to it while it is written.
_LONGEST = 160
LINEAR = Recipe()


@dataclass(frozen=True)
class Variant:
    """A model to evaluate: base + sum of weights[name] * adapter + sum of the nulls at their weights.

    kind: base, adapter, merge, control, null (a merge whose partners are random), strength (an adapter at another
    weight), removal (an adapter less a null of it), or checkpoint; checkpoint: a written one, which is what it is
    without base and weights; note: what a reader must know of it; recipe: by which rule the deltas are combined.
    """

    name: str
    kind: VariantKind
    weights: Mapping[str, Weight]
    nulls: tuple[Null, ...] = ()
    checkpoint: Checkpoint | None = None
    note: str = ""
    recipe: Recipe = LINEAR

    def parts(self, adapters: Mapping[str, Recorded]) -> dict[str, tuple[TuningVector, Weight]]:
        """What is added to the base: adapters and nulls, with their weights. Raises RuleError for what has no null."""
        found: dict[str, tuple[TuningVector, Weight]] = {n: (adapters[n], weight) for n, weight in self.weights.items()}
        for null in self.nulls:
            found[f"{null.kind} {null.seed} of {null.adapter}"] = null.vector(adapters[null.adapter]), null.weight
        return found

    def digest(self, base: Checkpoint, adapters: Mapping[str, Recorded]) -> str:
        """Digest of what produces the answers: of the base's digest and the adapters' with their weights."""
        if self.checkpoint is not None:
            return value_digest({"checkpoint": self.checkpoint.digest, "text": side_digest(self.checkpoint.path)})
        used = {name: weight_json(weight) for name, weight in self.weights.items() if weight != 0}
        parts = sorted(((adapters[name].digest, weight) for name, weight in used.items()), key=str)
        nulls = [{**null.to_dict(), "adapter": adapters[null.adapter].digest} for null in self.nulls]
        random = {"nulls": [NULLS_VERSION, *nulls]} if nulls else {}
        rule = {} if self.recipe == LINEAR else {"rule": self.recipe.to_dict()}
        return value_digest({"base": base.digest, "deltas": parts, **random, **rule})


SERVED = Variant("served", "served", {})


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
            others = tuple(
                Null(name, "spectrum", seed, weight)
                for name, weight in weights.items()
                if name != reference and weight != 0.0
            )
            if others:
                own = {name: weight for name, weight in weights.items() if name == reference}
                variants.append(Variant(f"null{seed}-{merge_name(weights)}", "null", own, others))
    return distinct(variants)


def distinct(variants: Sequence[Variant]) -> list[Variant]:
    """Every variant once, the first of those that are one model. Raises RuleError for two different ones of a name."""
    named: dict[str, Variant] = {}
    for variant in variants:
        known = named.setdefault(variant.name, variant)
        if (known.weights, known.nulls, known.recipe) != (variant.weights, variant.nulls, variant.recipe):
            raise RuleError(f"two variants would both be called {variant.name!r}; give that adapter another name")
    return list(named.values())


def control_of(merge: Variant, variants: Sequence[Variant], reference: str) -> Variant | None:
    """A merge's scale-matched control: the reference adapter alone at the weight that it has in the merge.

    None for what is no merge, for a merge without the reference, and where the control is not among the variants.
    """
    weight = merge.weights.get(reference, 0.0)
    if merge.kind != "merge" or weight == 0.0:
        return None
    alone = {reference: weight}
    return next((v for v in variants if not v.nulls and v.checkpoint is None and v.weights == alone), None)


def nulls_of(merge: Variant, variants: Sequence[Variant]) -> list[Variant]:
    """A merge's random nulls: variants of the same weights whose partners of the reference are random deltas."""
    if merge.kind != "merge":
        return []
    weights = {name: weight for name, weight in merge.weights.items() if weight != 0.0}
    return [v for v in variants if v.kind == "null" and _stood_for(v) == weights]


def _stood_for(null: Variant) -> dict[str, Weight]:
    own = {name: weight for name, weight in null.weights.items() if weight != 0.0}
    return own | {part.adapter: part.weight for part in null.nulls}
