"""crossmatch evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.comparing import Checkpoints, Kl, Memory, read_checkpoints
from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.figures import print_summary
from crossmatch.cli.measuring import Measuring, Nulls, Strengths, read_measuring
from crossmatch.cli.options import Adapters, Json, Weights
from crossmatch.cli.serving import Model, SameAs, Server, Serving, ask_served, exit_unjudged, read_serving
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.evaluation import Suite
    from crossmatch.evaluation.conditions import Plan
    from crossmatch.evaluation.run import Records


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
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time at most.")] = 256,
    memory: Memory = None,
    server: Server = None,
    model: Model = None,
    same_as: SameAs = None,
    as_json: Json = False,
) -> None:
    """Measure base, each adapter alone, their merge and its scale-matched control on the same prompts.

    With --strengths also base + g v, and with --nulls whether v is critical: whether removing it costs more than
    removing its nulls.

    With --server the model that runs there is one more variant, `served`; without -a, --checkpoint and --reference base
    it is measured alone. BASE gives the tokenizer and its chat template. A key is taken from CROSSMATCH_API_KEY.
    """
    from crossmatch.checkpoint import Checkpoint, replace_json
    from crossmatch.evaluation import load_suite
    from crossmatch.evaluation.conditions import Plan, conditions_of
    from crossmatch.evaluation.memory import parse_memory
    from crossmatch.process import keep_heap

    keep_heap()
    conditions = conditions_of(template or (), decoding or ())
    suites = [load_suite(file) for file in suite]
    if len({s.settings.name for s in suites}) < len(suites):
        raise InputError("two suites have the same name; their answers would overwrite each other")
    serving = read_serving(server, model, same_as)
    wanted = None
    if serving is None or reference == "base" or any((adapter, weight, strengths, nulls, checkpoint)):
        wanted = read_measuring(adapter, weight, reference, strengths, nulls, bool(checkpoint or serving))
    against = wanted.reference if wanted else reference or "served"
    plan = Plan(conditions, None, batch_size, kl, against, parse_memory(memory))
    summary = _measured(Checkpoint(base), (wanted, serving), checkpoint, suites, plan, output)
    replace_json(output / "summary.json", summary)
    if as_json:
        emit(summary)
    else:
        print_summary(summary)
    say(f"answers and summary: {output}")
    exit_unjudged(summary)


def _measured(
    base: "Checkpoint",
    asked: tuple[Measuring | None, Serving | None],
    checkpoints: list[str] | None,
    suites: "list[Suite]",
    plan: "Plan",
    output: Path,
) -> dict[str, Any]:
    """What is asked of models here, and of the one on a server, which is asked first: no model is loaded till then."""
    from crossmatch.evaluation.run import SERVED, evaluate
    from crossmatch.evaluation.summary import summarise
    from crossmatch.evaluation.trained import trained_with

    wanted, serving = asked
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
        records |= evaluate(base, wanted.adapters, here, suites, output, plan=plan, progress=Terminal())
        further["trained_with"] = trained_with(base, wanted.adapters, plan.conditions)
    return {**summarise(records, variants, suites, str(plan.kl_to), conditions=plan.conditions), **further}
