"""crossmatch calibrate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.options import Adapters, AllowPartial, Json, split_pairs
from crossmatch.errors import InputError


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
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint, check_apart, file_digest, side_digest
    from crossmatch.evaluation.inference.calibrate import record_sets
    from crossmatch.evaluation.inference.module_inputs import Calibration, check_file, save
    from crossmatch.merging import plan_merge
    from crossmatch.result_kinds import CALIBRATION
    from crossmatch.results.training import RecordedJson
    from crossmatch.runtime import keep_heap

    keep_heap()
    asked = Calibration(positions, max_positions, max_length, gradients, template, thinking, seed, turn_end)
    checkpoint = Checkpoint(base)
    adapters = {name: open_vector(path) for name, path in split_pairs(adapter, "-a").items()}
    parts = {name: (one, 1.0) for name, one in adapters.items()}
    fitted = plan_merge(checkpoint, parts, allow_partial=partial).fit.vectors
    files = _files(data, list(adapters))
    check_apart(output, [checkpoint.path, *(one.path for one in adapters.values()), *map(Path, files.values())])
    check_file(output, overwrite)
    tensors, sets = record_sets(checkpoint, fitted, files, asked, Terminal())
    facts: RecordedJson = {
        "schema_version": 1,
        "base": checkpoint.digest,
        "text": side_digest(checkpoint.path),
        "positions": asked.positions,
        "max_positions": asked.max_positions,
        "max_length": asked.max_length,
        "gradients": asked.gradients,
        "template": file_digest(Path(template)) if template and Path(template).is_file() else template,
        "thinking": asked.thinking,
        "seed": asked.seed,
        "adapters": {name: one.digest for name, one in adapters.items()},
        "sets": sets,
    }
    save(output, tensors, facts)
    if as_json:
        emit(CALIBRATION, {"output": str(output), **facts})
    else:
        for one in sets:
            print(f"{one['adapter'] or 'base'}: {one['modules']} modules at {one['rows']} of {one['of']} positions")
    say(f"written: {output}")


def _files(data: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Data by adapter, or by "" for the base alone: one file for all, or a file for each."""
    if len(data) == 1 and data[0].partition("=")[0] not in names:
        return dict.fromkeys(names or [""], data[0])
    files = split_pairs(data, "--data")
    for name in [*files, *names]:
        if name not in names:
            raise InputError(f"--data {name} has no adapter; add -a {name}=PATH, or give one file for all")
        if name not in files:
            raise InputError(f"adapter {name} has no data; add --data {name}=FILE, or give one file for all")
    return {name: files[name] for name in names}
