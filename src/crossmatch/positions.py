"""How many positions a model takes, and what becomes of a prompt that does not fit. Known from its config alone."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossmatch.errors import DataError, InputError

TooLong = Literal["refuse", "cut"]
"""What is done with a prompt that the model's positions do not hold."""

# How configs name the most positions that a model takes.
_LIMITS = ("max_position_embeddings", "max_seq_len")


@dataclass(frozen=True)
class Positions:
    """Room for a prompt. most: positions of the model (None: its config states none); opening: ids that stand before
    every text."""

    most: int | None
    too_long: TooLong = "refuse"
    opening: tuple[int, ...] = ()

    def fits(self, ids: Sequence[int], following: int) -> bool:
        """Whether so many tokens fit behind a prompt; the last of them is not read."""
        return self.most is None or len(ids) + following - 1 <= self.most

    def fitted(self, ids: list[int], following: int, tokenizer: Any) -> list[int]:
        """A prompt that fits with so many tokens behind it. Raises DataError for a longer one, unless it is to be cut:
        then its beginning is left out, behind the beginning of sequence."""
        if self.most is None or self.fits(ids, following):
            return ids
        start = len(self.opening) if tuple(ids[: len(self.opening)]) == self.opening else 0
        over = len(ids) + following - 1 - self.most
        what = f"a prompt has {len(ids)} tokens, with up to {following} to follow; the model has {self.most} positions"
        if over >= len(ids) - start:
            raise DataError(f"{what}, and nothing of the prompt is left before what follows; have less follow it")
        if self.too_long == "refuse":
            raise DataError(
                f"{what} ({tokenizer.decode(ids[-12:])!r} at its end): shorten it, or leave its beginning out with "
                "`too_long: cut` in the suite"
            )
        return [*ids[:start], *ids[start + over :]]


def fewest_positions(directories: Iterable[Path]) -> int | None:
    """What every model of these directories takes; None if no config states a limit, or can be read."""
    from transformers import AutoConfig

    found = []
    for directory in directories:
        # A config that cannot be read is refused where the model is loaded.
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found.append(most_positions(AutoConfig.from_pretrained(directory)))
    return min((most for most in found if most is not None), default=None)


def most_positions(config: Any) -> int | None:
    """The most positions that a model takes, as its config states them; None if it states none."""
    text = config.get_text_config(decoder=True)
    return min((limit for name in _LIMITS if (limit := number_in(text, name))), default=None)


def check_blocks(max_length: int, most: int | None) -> None:
    """Raise InputError where blocks of a training set are longer than what a model takes."""
    if most is not None and max_length > most:
        raise InputError(f"max_length {max_length}: the base has {most} positions; set max_length to {most} at most")


def number_in(config: Any, name: str) -> int:
    """A number of a config, the largest where it differs by layer; 0 if it does not say."""
    try:
        value = getattr(config, name, None)
    except Exception:  # some configs refuse a number that every layer has for itself
        value = [getattr(layer, name, None) for layer in getattr(config, "per_layer_config", ())]
    values = value if isinstance(value, list | tuple) else [value]
    return max((number for number in values if isinstance(number, int)), default=0)
