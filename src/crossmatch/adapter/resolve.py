"""The name that a tensor of the model has in a checkpoint's file."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from crossmatch.checkpoint import Checkpoint, Naming, namings

# Where no class of transformers tells: prefixes that loaders add or drop, and parts that were renamed.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^transformer\.", ""),
    (r"^model\.", ""),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.language_model\.", "model."),
    (r"^model\.", "model.language_model."),
    (r"^model\.", "language_model.model."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.model\.", "model."),
    (r"^model\.(visual|vision_tower|multi_modal_projector)\.", r"\1."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^lm_head\.", "embed_out."),
    (r"\.mlp\.", ".block_sparse_moe."),
    (r"^", "transformer."),
    (r"^", "model."),
)
# The halves of a fused pair of expert matrices and the third one, as files name them that keep experts apart.
_EXPERTS = {"gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")), "down_proj": (("down_proj",), ("w2",))}


class Names:
    """The names of a base's tensors, as one class of transformers reads them (none: a model that is not its own)."""

    def __init__(self, base: Checkpoint, naming: Naming | None = None) -> None:
        self.base, self.naming = base, naming

    @cached_property
    def _keys(self) -> dict[str, str]:
        """The base's tensors by what their names mean to the class; asked for only where names differ."""
        return self.naming.keys(self.base.tensors) if self.naming else {}

    def find(self, name: str) -> str | None:
        """The base's name of a tensor of the model; it may also be called as older versions called it."""
        if name in self.base.tensors:
            return name
        if self.naming:
            found = self._keys.get(self.naming.bare(name)) or self._keys.get(self.naming.key(name))
            if found is not None:
                return found
        renamed = (re.sub(old, new, name, count=1) for old, new in _RENAMES)
        return next((candidate for candidate in renamed if candidate in self.base.tensors), None)

    def knows(self, name: str) -> bool:
        """Whether the class itself, without a guess, has a tensor of that name in the base."""
        return self.naming is not None and (self.naming.bare(name) in self._keys or self.naming.key(name) in self._keys)

    def built(self, name: str) -> bool:
        """Whether the model has a tensor of the base's: its class may pass over it, or have no such part."""
        return self.naming is None or not (self.naming.ignores(name) or self.naming.full(name) is None)

    def of_model(self, module: str) -> Iterator[str]:
        """What the model calls a module of the file, if its class is known."""
        whole = self.naming.full(f"{module}.weight") if self.naming else None
        if whole is not None:
            yield whole.removesuffix(".weight")

    def experts(self, parameter: str) -> Iterator[tuple[str, ...]]:
        """What files call the matrices of single experts of which the model makes one parameter, in its order."""
        yield from _EXPERTS.get(parameter, ())
        yield from (leaves for name, leaves in (self.naming.experts if self.naming else ()) if name == parameter)


def names_for(wanted: Iterable[str], base: Checkpoint) -> Names:
    """The names of a base by the class that knows most of those wanted: an adapter may have been trained on another
    class than the one that the base names, as on the text model of a larger one."""
    readings = [Names(base, naming) for naming in namings(base.config)] or [Names(base)]
    strange = [name for name in wanted if name not in base.tensors]
    # max takes the first of the best ones.
    return max(readings, key=lambda reading: sum(map(reading.knows, strange))) if strange else readings[0]
