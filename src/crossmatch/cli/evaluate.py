"""crossmatch evaluate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.options import Adapters, Json, Weights, pair_up
from crossmatch.errors import InputError


def evaluate_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    suite: Annotated[list[str], typer.Option(help="A suite's YAML file; repeat.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for the answers and the summary.")],
    adapter: Adapters = None,
    weight: Weights = None,
    reference: Annotated[str | None, typer.Option(help="Adapter to compare with; default: the last.")] = None,
    template: Annotated[str | None, typer.Option(help="A Jinja chat template for all suites.")] = None,
    thinking: Annotated[bool | None, typer.Option(help="The template's enable_thinking switch.")] = None,
    temperature: Annotated[float, typer.Option(help="0: greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus, where sampled.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed, where sampled.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time.")] = 32,
    as_json: Json = False,
) -> None:
    """Measure base, each adapter alone, their merge and its scale-matched control on the same prompts."""
    from crossmatch.checkpoint import Checkpoint, replace_json
    from crossmatch.evaluation import load_suite, standard_variants
    from crossmatch.evaluation.engine import Decoding
    from crossmatch.evaluation.run import Conditions, evaluate
    from crossmatch.evaluation.summary import summarise
    from crossmatch.process import keep_heap

    keep_heap()
    parts = pair_up(adapter, weight)
    adapters = {name: a for name, (a, _) in parts.items()}
    against = reference or list(adapters)[-1]
    variants = standard_variants(adapters, [{name: w for name, (_, w) in parts.items()}], against)
    suites = [load_suite(file) for file in suite]
    if len({s.settings.name for s in suites}) < len(suites):
        raise InputError("two suites have the same name; their answers would overwrite each other")
    conditions = Conditions(template, thinking, Decoding(temperature, top_p, seed), batch_size)
    records = evaluate(Checkpoint(base), adapters, variants, suites, output, conditions=conditions, progress=Terminal())
    summary = summarise(records, variants, suites, against)
    replace_json(output / "summary.json", summary)
    if as_json:
        emit(summary)
    else:
        print_summary(summary)
    say(f"answers and summary: {output}")


def print_summary(summary: dict[str, Any]) -> None:
    """One table a suite: value, interval, paired difference against the reference."""
    for name, suite in summary["suites"].items():
        print(f"\n{name}, n = {suite['n']}, differences against {summary['reference']}")
        for metric, row in suite["metrics"].items():
            print(f"  {metric}")
            for variant, e in row.items():
                d = e["difference"]
                tail = f" {d['value']:+7.3g} ({d['low']:+.3g} to {d['high']:+.3g}) p={d['p']:.2g}" if d else ""
                bounds = f"({e['low']:.3g} to {e['high']:.3g})" if e["low"] is not None else "(no interval)"
                print(f"    {variant:13} {e['value']:7.3g} {bounds:18}{tail}".rstrip())
