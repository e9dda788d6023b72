"""Options of evaluate about what else is compared: written checkpoints, and how far next tokens are from others'."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import say
from crossmatch.cli.options import split_pairs

if TYPE_CHECKING:
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.evaluation import Variant

Checkpoints = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", metavar="NAME=PATH", help="A written checkpoint to ask the same prompts; repeat."),
]
Kl = Annotated[
    int,
    typer.Option(min=0, max=1024, help="Items of each generation suite for KL to the reference and to the base."),
]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory for batches, as in 4GB; default: a quarter of what is free.")
]


def read_checkpoints(
    base: "Checkpoint", pairs: Sequence[str] | None, taken: "Sequence[Variant]" = ()
) -> "list[Variant]":
    """Variants of --checkpoint NAME=PATH texts; what a reader must know of them is said. Raises InputError."""
    from crossmatch.evaluation.written import checkpoint_variants

    found = checkpoint_variants(base, split_pairs(pairs, "--checkpoint"), taken)
    for variant in found:
        if variant.note:
            say(f"note: checkpoint {variant.name}: {variant.note}")
    return found
