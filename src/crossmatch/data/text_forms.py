"""Forms in which readers see one text: variants of a Han character, and characters that are not seen."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

# Soft hyphens, joiners, marks of direction, variation selectors: not seen, and in the middle of words.
NO_WIDTH = re.compile("[\u00ad\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]+")
_VARIANTS = Path(__file__).with_name("han_variants.txt")
_FIRST_HAN = "\u3400"


@lru_cache(maxsize=1)
def han_forms() -> Mapping[int, int]:
    """Code point of a variant -> that of the form which stands for it (character by character: 后 and 後 are one)."""
    lines = _VARIANTS.read_text(encoding="utf-8").splitlines()
    groups = [variants for line in lines if not line.startswith("#") for variants in line.split()]
    return {ord(variant): ord(variants[0]) for variants in groups for variant in variants[1:]}


def one_form(text: str) -> str:
    """A text with every Han character in one form; places stay."""
    return text if not text or max(text) < _FIRST_HAN else text.translate(han_forms())
