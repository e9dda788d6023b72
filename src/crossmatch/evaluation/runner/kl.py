"""How far a variant's next-token distributions are from those of another, on a suite's prompts and reference answers.

Direction: KL(variant || other) = sum_v p_variant(v) ln(p_variant(v) / p_other(v)), in nats, over the whole vocabulary.

The other's distributions are not kept, but the last hidden states from which they follow, with its output embedding:
on 16 answers of 30 tokens 1 MB instead of 94 MB for a vocabulary of 49,152, and exact. They are made once a run, when
the other is asked itself or, after an interruption, anew.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from crossmatch.evaluation.inference.hidden_states import head_of, head_parameters, last_states, logits_of
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.runner.model_slot import Held
from crossmatch.evaluation.variants.variants import Variant

Head = tuple[Tensor, ...]
Done = Callable[[int, "dict[str, Divergence | None]"], None]


@dataclass(frozen=True)
class Answered:
    """One item: its key, its rendered prompt and its reference answer as it goes on from there."""

    key: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Divergence:
    """KL(variant || other) of one item in nats: at the answer's first token; summed along the reference answer, whose
    tokens are given one after the other (`tokens` of them, the first included)."""

    first: float
    nats: float
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def kl_divergence(mine: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(mine) || softmax(other)) in nats of logits (n, vocabulary) each, (n,) in float64.

    KL = sum_v p_v d_v - ln Z_mine + ln Z_other with d = mine - other; exponentials in float32, sums in float64: to
    about 1e-7 nats.
    """
    mine, other = mine.float(), other.float()
    top, bottom = mine.amax(-1, keepdim=True), other.amax(-1, keepdim=True)
    weights = (mine - top).exp_()
    total = weights.sum(-1, dtype=torch.float64)
    rest = (other - bottom).exp_().sum(-1, dtype=torch.float64)
    difference = (mine - other).mul_(weights).sum(-1, dtype=torch.float64) / total
    norms = (top - bottom)[:, 0].double() + total.log() - rest.log()
    # Never below zero but for rounding.
    return (difference - norms).clamp_min(0.0)


class Divergences:
    """KL of the variants to others, by role: `reference`, `base`. Items are known by a group (a suite under a
    template) and their key in it."""

    def __init__(self, held: Held, others: Mapping[str, Variant]) -> None:
        self.held, self.others = held, others
        self._states: dict[tuple[str, str], dict[str, Tensor]] = {}
        self._heads: dict[str, tuple[str, Head]] = {}

    def prepare(self, variant: Variant, group: str, items: Sequence[Answered]) -> dict[str, Variant]:
        """Have the states of all that a variant is compared with, by role: of itself it is not."""
        roles = {role: other for role, other in self.others.items() if other.name != variant.name}
        for other in roles.values():
            known = self._states.setdefault((other.name, group), {})
            missing = [item for item in items if item.key not in known]
            if missing:
                self._run(other, group, missing, lambda _, __: None)
        return roles

    def ask(self, variant: Variant, group: str, items: Sequence[Answered], done: Done) -> None:
        """Call `done(i, {role: Divergence})` for every item; a role that is the variant itself is left out, and None
        where the two have no logits that can be compared."""
        roles = self.prepare(variant, group, items)
        engine = self.held.become(variant)
        own = _head(engine)
        compared = {role: self._comparable(other, own) for role, other in roles.items()}

        def found(index: int, states: Tensor) -> None:
            values: dict[str, Divergence | None] = {}
            for role, other in roles.items():
                theirs = self._states[other.name, group].get(items[index].key)
                head = compared[role]
                values[role] = None
                if theirs is not None and head is not None:
                    values[role] = _along(engine, states, theirs, head)
            done(index, values)

        self._run(variant, group, items, found)

    def _run(
        self, variant: Variant, group: str, items: Sequence[Answered], found: Callable[[int, Tensor], None]
    ) -> None:
        """States of a variant at all places where it predicts a token of an answer; kept of what others are compared
        with."""
        engine = self.held.become(variant)
        kept = None
        if any(other.name == variant.name for other in self.others.values()):
            kept = self._states.setdefault((variant.name, group), {})
            # A copy: the parameter itself is what the next variant changes.
            if variant.name not in self._heads:
                self._heads[variant.name] = _copied(_head(engine), self._heads.values())
        rows, wanted = [], []
        for item in items:
            before, after = engine.token_ids(item.prompt, item.answer)
            rows.append([*before, *after[:-1]])
            wanted.append(len(after))
        for index, states in last_states(engine.model, engine.ways, rows, wanted, engine.memory):
            if kept is not None:
                kept[items[index].key] = states.cpu()
            found(index, states)

    def _comparable(self, other: Variant, own: tuple[str, Head]) -> Head | None:
        """The output embedding with which the other's states become logits, if both are of one shape."""
        kind, head = self._heads.get(other.name, ("", ()))
        alike = kind == own[0] and [t.shape for t in head] == [t.shape for t in own[1]]
        return head if alike else None


@dataclass(frozen=True)
class Comparison:
    """One variant on one group of items, to be compared."""

    divergences: Divergences
    variant: Variant
    group: str

    def prepare(self, items: Sequence[Answered]) -> None:
        """What it is compared with is asked first, while the model for that is in memory."""
        self.divergences.prepare(self.variant, self.group, items)

    def ask(self, items: Sequence[Answered], done: Done) -> None:
        """See `Divergences.ask`."""
        self.divergences.ask(self.variant, self.group, items, done)


def _head(engine: Engine) -> tuple[str, Head]:
    """Kind of the model and of its states, and the parameters that lead from these to logits."""
    stem, kind = engine.ways.stem, engine.model.config.model_type
    parameters = tuple(parameter.data for parameter in head_parameters(engine.model, stem))
    return f"{kind} {'logits' if stem.module is None else 'states'}", parameters


def _copied(own: tuple[str, Head], known: Iterable[tuple[str, Head]]) -> tuple[str, Head]:
    """A copy in main memory, shared by those that have the same."""
    head = tuple(tensor.cpu() for tensor in own[1])
    for kind, other in known:
        if kind == own[0] and len(other) == len(head) and all(map(torch.equal, other, head)):
            return kind, other
    return own[0], tuple(tensor.clone() for tensor in head)


def _along(engine: Engine, states: Tensor, theirs: Tensor, head: Head) -> Divergence:
    """states, theirs: (tokens, hidden) of one item."""
    model, stem, found = engine.model, engine.ways.stem, []
    step = max(1, engine.memory.positions(model) // 2)
    for mine, other in zip(states.split(step), theirs.split(step), strict=True):
        own = logits_of(model, stem, mine)
        with head_of(model, stem, head):
            found.append(kl_divergence(own, logits_of(model, stem, other.to(mine.device))))
    values = torch.cat(found)
    return Divergence(float(values[0]), float(values.sum()), len(values))
