"""crossmatch train."""

from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.options import Json
from crossmatch.cli.plan_output import DryRun, show_plan
from crossmatch.console import Terminal, emit, say
from crossmatch.errors import InputError


def train_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    stage: Annotated[str, typer.Option(help="pt: packed documents, every token; sft: chat template, responses only.")],
    data: Annotated[
        list[str],
        typer.Option(help="A file (docs/study.md), or a hub data set org/name@config:split; repeat to train jointly."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory of the adapter.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, as in learning_rate=2e-4 (docs/study.md); repeat."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=NAME", help="A data field under another name; repeat."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train one stage to an adapter. Killed at any point, the same command goes on from the last checkpoint."""
    from crossmatch.checkpoint import Checkpoint, split_pairs
    from crossmatch.runtime import keep_heap
    from crossmatch.training import read_settings, train_stage
    from crossmatch.training.processes import this_run

    if stage not in ("pt", "sft"):
        raise InputError(f"--stage {stage}: give pt or sft")
    settings, columns = read_settings(setting), split_pairs(column, "--column")
    if dry_run:
        from crossmatch.study import AdapterRecipe, plan_training

        adapter = AdapterRecipe(stage=stage, data=tuple(data), columns=columns, train=settings)
        show_plan(plan_training(Checkpoint(base).path, output.name, adapter), as_json, "train")
        return
    keep_heap()
    record = train_stage(Checkpoint(base), stage, data, output, settings=settings, columns=columns, progress=Terminal())
    if not this_run().first:
        return
    if as_json:
        from crossmatch.result_kinds import TRAINING

        emit(TRAINING, {"output": str(output), **record})
    else:
        last = record["loss"][-1][1] if record["loss"] else float("nan")
        print(f"{output}: {record['steps']} steps, {record['tokens_seen']} tokens, loss {last:.3f}")
    say(f"next: crossmatch inspect {output}")
