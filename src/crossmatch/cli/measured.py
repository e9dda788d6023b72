"""Answers of all variants that evaluate is asked for, here and on a server, and their summary."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.cli.comparing import read_checkpoints
from crossmatch.cli.console import Terminal, say
from crossmatch.cli.measuring import Measuring
from crossmatch.cli.serving import Serving, ask_served
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.evaluation import Suite
    from crossmatch.evaluation.conditions import Plan
    from crossmatch.evaluation.run import Records


@dataclass(frozen=True)
class Asked:
    """Suites, under what they are asked, and the ids of their clean items where an audit found others too."""

    suites: "list[Suite]"
    plan: "Plan"
    clean: dict[str, set[str]]


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
    from crossmatch.evaluation.run import SERVED, evaluate
    from crossmatch.evaluation.samples import side_by_side
    from crossmatch.evaluation.summary import summarise
    from crossmatch.evaluation.trained import trained_with
    from crossmatch.evaluation.variants import APART

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
        records, further["server"] = ask_served(base, serving, suites, plan, output)
    if wanted:
        further["on_its_base"] = _on_its_base(base, wanted)
        records |= evaluate(base, wanted.adapters, here, suites, output, plan=plan, progress=Terminal())
        further["trained_with"] = trained_with(base, wanted.adapters, plan.conditions)
    summary = summarise(records, variants, suites, str(plan.kl_to), conditions=plan.conditions, clean=asked.clean)
    beside = [variant for variant in variants if variant.kind not in APART]
    found = {
        "summary": {**summary, **further},
        "samples": side_by_side(records, beside, suites, conditions=plan.conditions),
    }
    for name, value in found.items():
        replace_json(output / f"{name}.json", value)
    return {"name": output.resolve().name, **found}


def _on_its_base(base: "Checkpoint", wanted: Measuring) -> dict[str, bool | None]:
    """Whether a stored vector was made on these weights (None: it does not say); says where it was not."""
    made_on = {name: vector.made_on(base.digest) for name, vector in wanted.adapters.items()}
    for name in (name for name, own in made_on.items() if own is False):
        say(f"note: {name} was made on other weights than {base.path} has")
    return made_on
