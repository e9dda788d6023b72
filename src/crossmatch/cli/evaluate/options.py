"""What `evaluate` measures: adapters with or without weights, their strengths, their nulls."""

import os
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
    from crossmatch.analysis.interference.suite_pair import Pair
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.evaluation import Suite, Variant
    from crossmatch.evaluation.conditions import Plan
    from crossmatch.evaluation.inference.served.identity import Local
    from crossmatch.evaluation.record import Records
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


def wanted_pair(wanted: "Measuring", suites: "Sequence[Suite]", items: int) -> "Pair | None":
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


def interfere(base: "Checkpoint", wanted: "Measuring", pair: "Pair", items: int, output: Path) -> dict[str, Any]:
    """Measure it, and leave it in `output`."""
    from crossmatch.adapter import Adapter
    from crossmatch.analysis.interference.suite_pair import measure_pair
    from crossmatch.checkpoint import replace_json

    adapters = {n: a for n in pair.names if isinstance(a := wanted.adapters[n], Adapter)}
    weights = {name: (wanted.merge or {})[name] for name in pair.names}
    facts = measure_pair(base, adapters, weights, pair.suite, items, progress=Terminal())
    replace_json(output / FILE, facts)
    return facts


@dataclass(frozen=True)
class Asked:
    """Suites, under what they are asked, and the ids of their clean items where an audit found others too."""

    suites: "list[Suite]"
    plan: "Plan"
    clean: dict[str, set[str]]


def _on_its_base(base: "Checkpoint", wanted: Measuring) -> dict[str, bool | None]:
    """Whether a stored vector was made on these weights (None: it does not say); says where it was not."""
    made_on = {name: vector.made_on(base.digest) for name, vector in wanted.adapters.items()}
    for name in (name for name, own in made_on.items() if own is False):
        say(f"note: {name} was made on other weights than {base.path} has")
    return made_on


Server = Annotated[str | None, typer.Option(help="Ask a server's model: URL of its completions API.")]
Model = Annotated[str | None, typer.Option(help="The model's name on that server.")]
SameAs = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Checkpoint that the server is said to run: their answers are compared first."),
]


@dataclass(frozen=True)
class Serving:
    """A model on a server: its URL, its name there, and the checkpoint that it is said to be (None: not said)."""

    url: str
    name: str
    same_as: str | None


def measured(
    base: "Checkpoint",
    models: tuple[Measuring | None, Serving | None],
    checkpoints: list[str] | None,
    asked: Asked,
    output: Path,
) -> dict[str, Any]:
    """What is asked of models here, and of the one on a server, which is asked first: no model is loaded till then.

    Leaves summary.json, and samples.json with the answers side by side, in `output`; gives the page's facts.
    """
    from crossmatch.checkpoint import replace_json
    from crossmatch.evaluation.comparison.side_by_side import side_by_side
    from crossmatch.evaluation.comparison.summary import summarise
    from crossmatch.evaluation.runner.runner import evaluate
    from crossmatch.evaluation.runner.template_check import stated_ends, trained_with
    from crossmatch.evaluation.variants.variants import APART, SERVED

    (wanted, serving), plan, suites = models, asked.plan, asked.suites
    variants = [SERVED] if serving else []
    here = wanted.variants() if wanted else []
    taken = {variant.name for variant in variants}
    if any(variant.name in taken for variant in here):
        raise InputError("an adapter may not be called served beside --server; give it another name")
    here += read_checkpoints(base, checkpoints, [*variants, *here])
    variants += here
    if plan.kl_to not in {variant.name for variant in variants}:
        raise InputError(f"--reference {plan.kl_to}: give one of {', '.join(v.name for v in variants)}")
    records: Records = {}
    further: dict[str, Any] = {}
    if serving:
        adapters = wanted.adapters if wanted else {}
        records, further["server"] = ask_served(base, serving, suites, plan, output, adapters)
    if wanted:
        further["on_its_base"] = _on_its_base(base, wanted)
        records |= evaluate(base, wanted.adapters, here, suites, output, plan=plan, progress=Terminal())
        further["trained_with"] = trained_with(base, wanted.adapters, plan.conditions)
    further["turn_ends"] = stated_ends(base, wanted.adapters if wanted else {}, plan.conditions)
    summary = summarise(records, variants, suites, str(plan.kl_to), conditions=plan.conditions, clean=asked.clean)
    beside = [variant for variant in variants if variant.kind not in APART]
    found = {
        "summary": {**summary, **further},
        "samples": side_by_side(records, beside, suites, conditions=plan.conditions),
    }
    for name, value in found.items():
        replace_json(output / f"{name}.json", value)
    return {"name": output.resolve().name, **found}


def read_serving(server: str | None, model: str | None, same_as: str | None) -> Serving | None:
    """The three options as one. Raises InputError for half of them."""
    if same_as is not None and server is None:
        raise InputError("--same-as says what a server runs; add --server and --model")
    if server is None and model is None:
        return None
    if server is None or model is None:
        raise InputError("--server and --model belong together: where it runs, and what it is called there")
    return Serving(server, model, same_as)


def ask_served(
    base: "Checkpoint",
    serving: Serving,
    suites: "list[Suite]",
    plan: "Plan",
    output: Path,
    adapters: "Mapping[str, Recorded]",
) -> "tuple[Records, dict[str, Any]]":
    """Records of the model on a server, and what is known of it.

    Raises InputError, before it is asked any item, if it has other weights than the checkpoint that it is said to be.
    """
    from crossmatch.checkpoint import side_digest
    from crossmatch.data.chat_templates import open_tokenizer
    from crossmatch.data.turn_ends import declared_eos
    from crossmatch.evaluation.inference.served.identity import (
        ask_own,
        check_still,
        identify,
        probes_of,
        settled,
    )
    from crossmatch.evaluation.inference.served.model import ServedModel
    from crossmatch.evaluation.runner.runner import Elsewhere, evaluate_served
    from crossmatch.evaluation.variants.variants import SERVED

    tokenizer = open_tokenizer(base.path)
    served = ServedModel(serving.url, serving.name, key=os.environ.get("CROSSMATCH_API_KEY"))
    probes = probes_of(tokenizer)
    own = ask_own(served, probes, Terminal())
    facts: dict[str, Any] = {"url": serving.url, "model": serving.name, "same_as": serving.same_as}
    facts |= {"software": served.facts.owner or None, "version": served.version}
    local = _local(base, serving.same_as, probes, plan) if serving.same_as is not None else None
    found = identify(served, own, local, probes, Terminal())
    if found.verdict == "other":
        raise InputError(found.line)
    say(found.line if found.verdict == "same" else f"WARNING: {found.line}")
    # The weights here have been compared; what is measured of them is loaded anew.
    del local
    about = [serving.url, serving.name, side_digest(base.path), list(probes)]
    digest = settled(output / SERVED.name / "server.json", about, own)
    elsewhere = Elsewhere(served, tokenizer, digest, eos=declared_eos(base.path, tokenizer), taught=adapters)
    records = evaluate_served(elsewhere, suites, output, conditions=plan.conditions, progress=Terminal())
    unchecked = check_still(served, own, probes)
    for line in [*served.notes, *([unchecked] if unchecked else [])]:
        say(f"note: {line}")
    return records, {**facts, **vars(found), "unchecked": unchecked}


def _local(base: "Checkpoint", path: str, probes: tuple[str, ...], plan: "Plan") -> "Local":
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.data.chat_templates import open_tokenizer
    from crossmatch.evaluation.inference.local_model import Engine
    from crossmatch.evaluation.inference.served.identity import Local
    from crossmatch.evaluation.variants.checkpoints import checkpoint_variants

    if Checkpoint(path).quantisation:
        raise InputError(f"--same-as {path} is quantised; give the checkpoint from which it was made, or leave it out")
    (variant,) = checkpoint_variants(base, {"same-as": path})
    assert variant.checkpoint is not None
    if variant.note:
        say(f"note: --same-as {path}: {variant.note}")
    with Terminal().task("load the checkpoint to compare with"):
        engine = Engine(variant.checkpoint, None, plan.batch_size, plan.memory, open_tokenizer(base.path))
        return Local.of(engine, probes)


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
