"""Stacks of layers beside the text's: what multimodal models read images and sound with, told by the names of modules.

Layers of all stacks are counted from 0, and heads are of each stack's own number and width; what is said of the text's
layers and heads is not meant of theirs.
"""

import re

_TOWERS = {
    "vision": re.compile(r"vision|visual|image"),
    "audio": re.compile(r"audio|speech"),
    "connector": re.compile(r"projector|connector|resampler|qformer|perceiver"),
}


def tower_of(name: str) -> str | None:
    """`vision`, `audio` or `connector`, for a tensor in a layer of such a stack; None for all else."""
    parts = name.split(".")
    layer = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return next((tower for part in parts[:layer] if (tower := named_tower(part))), None) if layer else None


def named_tower(module: str) -> str | None:
    """The tower that a module's own name speaks of, as in `vision_tower`; None for all else."""
    return next((tower for tower, pattern in _TOWERS.items() if pattern.search(module)), None)


def labelled(name: str, module: str) -> str:
    """The type of a module, with its tower if it is in one, as in `q_proj of vision`."""
    tower = tower_of(name)
    return module if tower is None else f"{module} of {tower}"
