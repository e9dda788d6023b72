"""Options that several commands share, and their parsing."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.adapter import Recorded
    from crossmatch.rules import Weight
    from crossmatch.training import TrainSettings

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Detail = Annotated[bool, typer.Option("--detail", help="Print every figure, not the answers alone.")]
Margin = Annotated[
    float | None,
    typer.Option(metavar="POINTS", help="Loss within which a variant is as good; points, or percent of a perplexity."),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option("-a", "--adapter", metavar="NAME=PATH", help="Adapter or vector, by name; repeat."),
]
Weights = Annotated[
    list[str] | None,
    typer.Option("-w", "--weight", metavar="NAME=NUMBER", help="Its merge weight; by module: docs/merge.md."),
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial-adapter", help="Take truncated or untrained adapters as they are.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output of ours.")]
Strengths = Annotated[
    list[str] | None,
    typer.Option("-g", "--strength", metavar="NUMBER", help="Default 1; repeat, or a grid as in -0.5:1.5:0.25."),
]

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"} | {n: n for n in ("bfloat16", "float16", "float32")}
Executor = Annotated[
    str | None,
    typer.Option(help="Where questions are asked: local, ray:workers=4,gpus=1 or slurm:partition=P,minutes=60."),
]


def resubmitted(given: Sequence[str]) -> list[str]:
    """The arguments of a dry run as those of the run that it plans."""
    return [argument for argument in given if argument not in ("--dry-run", "--json")]


def check_margin(value: float | None) -> None:
    """Raise InputError for a margin that is no number of points above 0."""
    if value is not None and not 0 < value <= 100:
        raise InputError(f"--margin {value:g}: give points above 0 and up to 100, as in 2")


def split_pairs(pairs: Sequence[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE texts into a mapping, split at the first `=`. Raises InputError for a bad or repeated name."""
    from crossmatch.checkpoint import safe_name

    result: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{option} {pair}: write it as NAME=VALUE")
        if name in result:
            raise InputError(f"{option} {name}: given twice")
        if not safe_name(name):
            raise InputError(
                f"{option} {name}: a name is letters, digits, '_', '.', '-', the first a letter or a digit"
            )
        result[name] = value
    return result


def pair_up(adapters: Sequence[str] | None, weights: Sequence[str] | None) -> dict[str, tuple["Recorded", "Weight"]]:
    """Adapters with their weights. Raises InputError for one without the other, or a weight that is no number."""
    paths, numbers = split_pairs(adapters, "-a"), split_pairs(weights, "-w")
    for name in [*numbers, *paths]:
        if name not in paths:
            close = difflib.get_close_matches(name, paths, n=1)
            hint = f"did you mean {close[0]}?" if close else f"add -a {name}=PATH"
            raise InputError(f"weight {name} has no adapter; {hint}")
        if name not in numbers:
            raise InputError(f"adapter {name} has no weight; add -w {name}=NUMBER")
    if not paths:
        raise InputError("no adapter given; add -a NAME=PATH -w NAME=NUMBER")
    values = {name: weight(text, f"-w {name}") for name, text in numbers.items()}
    from crossmatch.adapter import open_vector

    return {name: (open_vector(path), values[name]) for name, path in paths.items()}


def weight(text: str, option: str) -> "Weight":
    """A merge weight: a number, or one with others by module (0.3,mlp:0.2,layers[20:]:0.1). Raises InputError."""
    from crossmatch.errors import RuleError
    from crossmatch.rules import parse_weight

    try:
        return parse_weight(text)
    except RuleError as error:
        raise InputError(f"{option}={text}: {error}") from None


def one_of(option: str, value: str | None, allowed: Sequence[str | None]) -> None:
    """Raise InputError unless the value is an allowed one."""
    if value not in allowed:
        raise InputError(f"{option} {value}: give one of {', '.join(a for a in allowed if a)}")


def shard_bytes(text: str | None) -> int | None:
    """--shard-size into bytes: 5GB, 500MB, or single (0: one file). Raises InputError."""
    if text is None:
        return None
    if text == "single":
        return 0
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "": 1}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]b)?", text.lower())
    if match is None or not float(match[1]):
        raise InputError(f"--shard-size {text}: write it as 5GB, 500MB, or single")
    return int(float(match[1]) * units[match[2] or ""])


def train_settings(pairs: Sequence[str] | None) -> "TrainSettings":
    """--set KEY=VALUE texts into settings. Raises InputError with the closest known key."""
    from pydantic import ValidationError

    from crossmatch.training import TrainSettings

    values: Mapping[str, str | tuple[str, ...]] = split_pairs(pairs, "--set")
    for key in values:
        if key not in TrainSettings.model_fields:
            close = difflib.get_close_matches(key, TrainSettings.model_fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(TrainSettings.model_fields)}"
            raise InputError(f"--set {key}: unknown setting; {hint}")
    lists = {key: tuple(values[key].split(",")) for key in ("targets", "report_to") if key in values}
    try:
        return TrainSettings.model_validate({**values, **lists})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--set {first['loc'][0]}: {first['msg']}") from None
