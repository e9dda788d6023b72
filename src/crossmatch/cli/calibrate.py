"""crossmatch calibrate."""

from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.options import Adapters, AllowPartial, Json
from crossmatch.console import Terminal, emit, say


def calibrate_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    data: Annotated[list[str], typer.Option(metavar="[NAME=]FILE", help="Data for all adapters, or each; repeat.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    adapter: Adapters = None,
    positions: Annotated[str, typer.Option(help="Tokens to sample from: all, prompt-end or response.")] = "all",
    max_positions: Annotated[int, typer.Option(min=1, help="Tokens sampled for each adapter, at most.")] = 256,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of a sequence, at most; texts are split.")] = 2048,
    gradients: Annotated[bool, typer.Option("--gradients", help="Also the loss's gradients at the outputs.")] = False,
    template: Annotated[str | None, typer.Option(help="A Jinja chat template for dialogues, or own:NAME.")] = None,
    thinking: Annotated[bool | None, typer.Option(help="The template's enable_thinking switch.")] = None,
    turn_end: Annotated[str, typer.Option(help="What ends a response: as the setting of training.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 0,
    partial: AllowPartial = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output of this command.")] = False,
    as_json: Json = False,
) -> None:
    """Record what the modules that each adapter changes take in, on base + adapter; without any, the base's modules."""
    from crossmatch.checkpoint import split_pairs
    from crossmatch.evaluation.inference.module_inputs import Calibration
    from crossmatch.result_kinds import CALIBRATION
    from crossmatch.runtime import keep_heap
    from crossmatch.study.calibrate import CalibrationJob, calibrate, files_of

    keep_heap()
    asked = Calibration(positions, max_positions, max_length, gradients, template, thinking, seed, turn_end)
    adapters = split_pairs(adapter, "-a")
    job = CalibrationJob(base, adapters, files_of(data, list(adapters)), output, partial, overwrite)
    facts = calibrate(job, asked, Terminal())
    if as_json:
        emit(CALIBRATION, {"output": str(output), **facts})
    else:
        for one in facts["sets"]:
            print(f"{one['adapter'] or 'base'}: {one['modules']} modules at {one['rows']} of {one['of']} positions")
    say(f"written: {output}")
