"""Options of evaluate: what is measured, what is compared beside it, and a model on a server."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal, say
from crossmatch.cli.options import pair_up, split_pairs
from crossmatch.errors import ExitCode, InputError
from crossmatch.report.text import printable

if TYPE_CHECKING:
    from crossmatch.adapter import Recorded
    from crossmatch.analysis.interference.suite_pair import SuitePair
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.data.suites import Suite
    from crossmatch.evaluation.runner.served_runner import Serving
    from crossmatch.evaluation.variants.variants import Variant
    from crossmatch.results.interference import InterferenceJson
    from crossmatch.rules import Weight

Strengths = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=A:B:STEP", help="Measure it at these strengths, as in v=-0.5:1.5:0.25; repeat."),
]
Nulls = Annotated[
    int,
    typer.Option(
        min=0,
        max=16,
        help="Random stand-ins by so many seeds: for a merge's partners of the reference; with --strengths, deltas of "
        "equal norm, and the layers' in another order, whose removal is compared with the adapter's.",
    ),
]

Clean = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What audit -o wrote: figures of the items that it found clean are added."),
]


@dataclass(frozen=True)
class Measuring:
    """Adapters by name, the merge (None without weights), the reference (an adapter, or another variant), strengths by
    adapter, and seeds of nulls."""

    adapters: "dict[str, Recorded]"
    merge: "dict[str, Weight] | None"
    reference: str
    strengths: dict[str, tuple[float, ...]]
    nulls: int

    def variants(self) -> "list[Variant]":
        """All that is measured, written checkpoints aside."""
        from crossmatch.evaluation.variants.strengths import all_variants

        merges = [self.merge] if self.merge else []
        against = self.reference if self.reference in self.adapters else None
        return all_variants(self.adapters, merges, against, strengths=self.strengths, nulls=self.nulls)


def read_measuring(
    adapter: Sequence[str] | None,
    weight: Sequence[str] | None,
    reference: str | None,
    strengths: Sequence[str] | None,
    nulls: int,
    checkpoints: bool = False,
) -> Measuring:
    """Adapters, weights and strengths as given. An adapter needs a weight or strengths; with checkpoints beside the
    base there may be none.

    Raises InputError for strengths of no adapter, or that are no numbers, and for nulls of nothing.
    """
    from crossmatch.evaluation.variants.strengths import parse_strengths

    wanted = {name: parse_strengths(text) for name, text in split_pairs(strengths, "--strengths").items()}
    paths, weighted = split_pairs(adapter, "-a"), split_pairs(weight, "-w")
    unknown = next((name for name in wanted if name not in paths), None)
    if unknown is not None:
        raise InputError(f"--strengths {unknown}: no such adapter; add -a {unknown}=PATH")
    alone = [name for name in wanted if name not in weighted]
    ones = [*(weight or ()), *(f"{name}=1" for name in alone)]
    parts = pair_up(adapter, ones) if adapter or ones or not checkpoints else {}
    merge = {name: value for name, (_, value) in parts.items() if name not in alone}
    against = reference or next(reversed(parts), "base")
    if nulls and not wanted and not any(name != against for name in merge):
        raise InputError(f"--nulls {nulls}: {against} has no partner to stand in for; add -a and -w, or --strengths")
    adapters = {name: found for name, (found, _) in parts.items()}
    return Measuring(adapters, merge or None, against, wanted, nulls)


def clean_parts(file: Path | None, suites: "list[Suite]") -> dict[str, set[str]]:
    """Suite -> ids of the items that an audit found clean, where it found others too; says how many there are."""
    from crossmatch.evaluation.comparison.clean_items import read_clean, touched

    found = read_clean(file, suites) if file is not None else {}
    for suite in suites:
        ids, name, n = found.get(suite.settings.name), suite.settings.name, len(suite.items)
        if file is not None:
            say(f"{name}: " + (f"{len(ids)} of {n} items are clean" if ids is not None else "not audited"))
    return touched(found, suites)


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
    from crossmatch.evaluation.variants.checkpoints import checkpoint_variants

    found = checkpoint_variants(base, split_pairs(pairs, "--checkpoint"), taken)
    for variant in found:
        if variant.note:
            say(f"note: checkpoint {variant.name}: {variant.note}")
    return found


Interference = Annotated[
    int,
    typer.Option(
        min=0,
        max=1024,
        metavar="N",
        help="Predict and measure what the merge's other adapter does to the reference's task, on N items (2 or more) "
        "of the first generation suite.",
    ),
]
FILE = "interference.json"


def wanted_pair(wanted: "Measuring", suites: "Sequence[Suite]", items: int) -> "SuitePair | None":
    """Whose interference is measured, and on which suite; None if it is not asked for. Raises InputError."""
    from crossmatch.adapter import Adapter
    from crossmatch.analysis.interference.suite_pair import find_pair

    if not items:
        return None
    if items < 2:
        raise InputError("--interference 1: give 2 items at least; one item has no standard error")
    found = find_pair(wanted.merge or {}, wanted.reference, suites)
    if isinstance(found, str):
        raise InputError(f"--interference: {found}")
    stored = next((name for name in found.names if not isinstance(wanted.adapters[name], Adapter)), None)
    if stored is not None:
        raise InputError(f"--interference: {stored} is a stored vector; it takes adapters")
    return found


def interfere(
    base: "Checkpoint", wanted: "Measuring", pair: "SuitePair", items: int, output: Path
) -> "InterferenceJson":
    """Measure it, and leave it in `output`."""
    from crossmatch.adapter import Adapter
    from crossmatch.analysis.interference.suite_pair import measure_pair
    from crossmatch.result_kinds import INTERFERENCE

    adapters = {n: a for n in pair.names if isinstance(a := wanted.adapters[n], Adapter)}
    weights = {name: (wanted.merge or {})[name] for name in pair.names}
    facts = measure_pair(base, adapters, weights, pair.suite, items, progress=Terminal())
    INTERFERENCE.replace(output / FILE, facts)
    return facts


Server = Annotated[str | None, typer.Option(help="Ask a server's model: URL of its completions API.")]
Model = Annotated[str | None, typer.Option(help="The model's name on that server.")]
SameAs = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Checkpoint that the server is said to run: their answers are compared first."),
]


def read_serving(server: str | None, model: str | None, same_as: str | None) -> "Serving | None":
    """The three options as one. Raises InputError for half of them."""
    from crossmatch.evaluation.runner.served_runner import Serving

    if same_as is not None and server is None:
        raise InputError("--same-as says what a server runs; add --server and --model")
    if server is None and model is None:
        return None
    if server is None or model is None:
        raise InputError("--server and --model belong together: where it runs, and what it is called there")
    return Serving(server, model, same_as)


def exit_unjudged(summary: Mapping[str, Any]) -> None:
    """Say of which suites no item was answered by all, and end as inconclusive if there is one."""
    found = False
    for condition, facts in summary["conditions"].items():
        for name, suite in facts["suites"].items():
            if suite["asked"] and not suite["n"]:
                variant, fault = next(iter(suite["incomplete"].items()))
                line = f"{variant}: {fault['failed']} of {suite['asked']} failed; {fault['reason']}"
                line = f"suite {name} under {condition} could not be judged: no item was answered by all ({line})"
                print(f"error: {printable(line)}", file=sys.stderr)
                found = True
    if found:
        raise typer.Exit(ExitCode.INCONCLUSIVE)
