"""The one model in memory: the base, whose weights become those of a variant, or a written checkpoint."""

from collections.abc import Callable, Mapping

import torch

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.evaluation.conditions import Plan
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.runtime import SILENT


class Held:
    """Variants by turns, in one model's memory. A checkpoint of its own takes the place of the base, and gives it back
    when the base is wanted again. say: where a note goes on a model that takes a slower path (`Ways.note`)."""

    def __init__(
        self, base: Checkpoint, adapters: Mapping[str, Recorded], plan: Plan, say: Callable[[str], None] = SILENT.say
    ) -> None:
        self.base, self.adapters, self.plan, self.say = base, adapters, plan, say
        self.variant: Variant | None = None
        self._engine: Engine | None = None
        self._said: set[str] = set()

    def become(self, variant: Variant) -> Engine:
        """A model with the weights of this variant. Raises AdapterError if the base cannot take them in place."""
        if self._engine is not None and self.variant is variant:
            return self._engine
        self.variant = None
        if variant.checkpoint is not None:
            # Its weights are as they were written: no other storage dtype is put between.
            engine = self._load(variant.checkpoint, None)
        else:
            dtype = getattr(torch, self.plan.dtype) if self.plan.dtype else None
            engine = self._load(self.base, dtype)
            engine.become(variant.parts(self.adapters), variant.recipe)
        self.variant = variant
        return engine

    def _load(self, checkpoint: Checkpoint, dtype: torch.dtype | None) -> Engine:
        if self._engine is None or self._engine.base is not checkpoint:
            # The old one first: there is memory for one.
            self._engine = None
            # A written checkpoint reads the base's tokens, whatever lies beside it.
            text = open_tokenizer(self.base.path) if checkpoint is not self.base else None
            self._engine = Engine(checkpoint, dtype, self.plan.batch_size, self.plan.memory, text)
            note = self._engine.ways.note(str(checkpoint.config.get("model_type")))
            if note is not None and note not in self._said:
                self._said.add(note)
                self.say(f"note: {note}")
        return self._engine
