"""crossmatch evaluate."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.comparing import Checkpoints, Kl, Memory, read_checkpoints
from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.figures import print_summary
from crossmatch.cli.interfering import Interference, interfere, print_interference, wanted_pair
from crossmatch.cli.measuring import Measuring, Nulls, Strengths, check_options, read_measuring
from crossmatch.cli.options import Adapters, Json, Weights
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.evaluation import Suite
    from crossmatch.evaluation.conditions import Condition, Plan


def evaluate_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    suite: Annotated[list[str], typer.Option(help="A suite's YAML file, or recipe:NAME; repeat.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for the answers and the summary.")],
    adapter: Adapters = None,
    weight: Weights = None,
    reference: Annotated[str | None, typer.Option(help="Adapter to compare with; default: the last.")] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="own, think, nothink, chatml, chatml-empty, strict, or a Jinja file; repeat."),
    ] = None,
    decoding: Annotated[
        list[str] | None, typer.Option(help="greedy, or as in T0.6p0.8 (five seeds; x10: ten); repeat.")
    ] = None,
    strengths: Strengths = None,
    nulls: Nulls = 0,
    checkpoint: Checkpoints = None,
    kl: Kl = 16,
    interference: Interference = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time at most.")] = 64,
    memory: Memory = None,
    server: Annotated[str | None, typer.Option(help="Ask a server instead: URL of its completions API.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's name on that server.")] = None,
    as_json: Json = False,
) -> None:
    """Measure base, each adapter alone, their merge and its scale-matched control on the same prompts.

    With --strengths also base + g v, and with --nulls whether v is critical: whether removing it costs more than
    removing its nulls.

    With --server the model that runs there is measured alone; BASE gives the tokenizer and its chat template. A key, if
    it wants one, is taken from CROSSMATCH_API_KEY.
    """
    from crossmatch.checkpoint import Checkpoint, replace_json
    from crossmatch.evaluation import load_suite
    from crossmatch.evaluation.conditions import Plan, conditions_of
    from crossmatch.evaluation.memory import parse_memory
    from crossmatch.process import keep_heap

    keep_heap()
    conditions = conditions_of(template or (), decoding or ())
    suites = [load_suite(file) for file in suite]
    check_options(suites, (server, model), bool(adapter or strengths or nulls or checkpoint or interference))
    whole, interfering = Checkpoint(base), None
    if server is not None:
        summary = _served(whole, server, str(model), suites, conditions, output)
    else:
        wanted = read_measuring(adapter, weight, reference, strengths, nulls, bool(checkpoint))
        plan = Plan(conditions, None, batch_size, kl, wanted.reference, parse_memory(memory))
        pair = wanted_pair(wanted, suites, interference)
        summary = _here(whole, wanted, checkpoint, suites, plan, output)
        interfering = interfere(whole, wanted, pair, interference, output) if pair else None
    replace_json(output / "summary.json", summary)
    if as_json:
        emit({**summary, "interference": interfering} if interfering else summary)
    else:
        print_summary(summary)
        if interfering:
            print_interference(interfering)
    say(f"answers and summary: {output}")


def _here(
    base: "Checkpoint",
    wanted: Measuring,
    checkpoints: list[str] | None,
    suites: "list[Suite]",
    plan: "Plan",
    output: Path,
) -> dict[str, Any]:
    from crossmatch.evaluation.run import evaluate
    from crossmatch.evaluation.summary import summarise
    from crossmatch.evaluation.trained import trained_with

    adapters, variants = wanted.adapters, wanted.variants()
    variants += read_checkpoints(base, checkpoints, variants)
    if wanted.reference not in {variant.name for variant in variants}:
        raise InputError(f"--reference {wanted.reference}: give one of {', '.join(v.name for v in variants)}")
    records = evaluate(base, adapters, variants, suites, output, plan=plan, progress=Terminal())
    summary = summarise(records, variants, suites, wanted.reference, conditions=plan.conditions)
    return {**summary, "trained_with": trained_with(base, adapters, plan.conditions)}


def _served(
    base: "Checkpoint", url: str, name: str, suites: "list[Suite]", conditions: "tuple[Condition, ...]", output: Path
) -> dict[str, Any]:
    from crossmatch.chat import open_tokenizer
    from crossmatch.checkpoint import value_digest
    from crossmatch.evaluation.run import Elsewhere, evaluate_served
    from crossmatch.evaluation.served import ServedModel
    from crossmatch.evaluation.summary import summarise

    served = ServedModel(url, name, key=os.environ.get("CROSSMATCH_API_KEY"))
    found = served.identify()
    if found.verdict == "other":
        raise InputError(found.line)
    say(found.line)
    elsewhere = Elsewhere(served, open_tokenizer(base.path), value_digest([url, name, base.digest]))
    records = evaluate_served(elsewhere, suites, output, conditions=conditions, progress=Terminal())
    for line in served.notes:
        say(f"note: {line}")
    return {**summarise(records, [elsewhere.variant], suites, "served", conditions=conditions), "server": [url, name]}
