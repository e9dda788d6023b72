"""One pass through a model of any architecture, and which ways through it are right."""

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

# What a pass leaves behind for the next one, by the name that a model has for it.
_CACHES = ("past_key_values", "cache_params", "state")


@dataclass(frozen=True)
class Stem:
    """The part of a model below its output embedding. module: what gives the last hidden states; None: logits do not
    follow from such states, and are kept themselves in their place."""

    module: nn.Module | None = None


@dataclass(frozen=True)
class Ways:
    """Ways through a model that were seen to give what one text at a time gives, without padding.

    masks: any mask, with positions of their own (trees of options, shared prefixes, pools); right: rows filled up on
    the right; left: rows filled up on the left, with a cache; cached: rows of one length, with a cache; stem: where
    last hidden states come from.
    """

    masks: bool = False
    right: bool = False
    left: bool = False
    cached: bool = False
    stem: Stem = Stem()

    def note(self, kind: str) -> str | None:
        """What is slower with such a model, in one line; None if nothing is."""
        slower = []
        if not self.masks and not self.right:
            slower.append("options and texts are scored one at a time")
        if not self.left and not self.masks:
            what = "are generated in groups of equal length" if self.cached else "are generated without a cache"
            slower.append(f"answers {what}")
        if self.stem.module is None:
            slower.append("KL keeps whole distributions")
        return (
            f"{kind} takes a slower path, as the faster one gives other figures: {'; '.join(slower)}"
            if slower
            else None
        )


def forward(module: Any, ids: Tensor, options: dict[str, Any]) -> Any:
    """module(input_ids=ids, **options) with those of the options that its forward takes; ids: (rows, length).

    A cache is given as `past_key_values` under whatever name the module has for it.
    """
    names = _accepted(type(module))
    options = dict(options)
    cache = options.pop("past_key_values", None)
    if cache is not None:
        options[next((name for name in _CACHES if name in names), _CACHES[0])] = cache
    given = {name: value for name, value in options.items() if value is not None and (not names or name in names)}
    return module(input_ids=ids.to(module.device), **given)


def cache_of(output: Any) -> Any:
    """What an output leaves for the next pass; None if nothing."""
    return next((found for name in _CACHES if (found := getattr(output, name, None)) is not None), None)


@lru_cache
def _accepted(kind: type) -> frozenset[str]:
    """Names of what a module's forward takes; empty: whatever it is given."""
    names = frozenset(inspect.signature(kind.forward).parameters)  # type: ignore[attr-defined]
    return names if "input_ids" in names else frozenset()


def failed_for_memory(error: Exception) -> bool:
    """Whether a pass failed because the device is full, which says nothing of the model."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError)
