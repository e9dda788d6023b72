"""Traditional, simplified and variant forms of a Han character as one."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

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
