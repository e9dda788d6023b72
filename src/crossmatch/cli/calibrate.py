"""crossmatch calibrate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.options import Adapters, AllowPartial, Json, split_pairs
from crossmatch.errors import InputError
from crossmatch.runtime import Progress

if TYPE_CHECKING:
    from crossmatch.evaluation.inference.module_inputs import Calibration
    from crossmatch.results.training import RecordedJson


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
    from crossmatch.evaluation.inference.module_inputs import Calibration
    from crossmatch.result_kinds import CALIBRATION
    from crossmatch.runtime import keep_heap

    keep_heap()
    asked = Calibration(positions, max_positions, max_length, gradients, template, thinking, seed, turn_end)
    adapters = split_pairs(adapter, "-a")
    job = Job(base, adapters, files_of(data, list(adapters)), output, partial, overwrite)
    facts = record(job, asked, Terminal())
    if as_json:
        emit(CALIBRATION, {"output": str(output), **facts})
    else:
        for one in facts["sets"]:
            print(f"{one['adapter'] or 'base'}: {one['modules']} modules at {one['rows']} of {one['of']} positions")
    say(f"written: {output}")


@dataclass(frozen=True)
class Job:
    """Whose modules are recorded, on which data (by adapter, or by "" for the base), and into which file."""

    base: str | Path
    adapters: Mapping[str, str | Path]
    files: Mapping[str, str]
    output: Path
    partial: bool
    overwrite: bool


def record(job: Job, asked: "Calibration", progress: Progress) -> "RecordedJson":
    """Write the file; what it says of itself. Raises what is said of bad inputs before anything is computed."""
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint, check_apart, file_digest, side_digest
    from crossmatch.evaluation.inference.calibrate import record_sets
    from crossmatch.evaluation.inference.module_inputs import check_file, save
    from crossmatch.merging import plan_merge

    checkpoint = Checkpoint(job.base)
    adapters = {name: open_vector(path) for name, path in job.adapters.items()}
    parts = {name: (one, 1.0) for name, one in adapters.items()}
    fitted = plan_merge(checkpoint, parts, allow_partial=job.partial).fit.vectors
    inputs = [checkpoint.path, *(one.path for one in adapters.values()), *map(Path, job.files.values())]
    check_apart(job.output, inputs)
    check_file(job.output, job.overwrite)
    tensors, sets = record_sets(checkpoint, fitted, job.files, asked, progress)
    template = asked.template
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
    save(job.output, tensors, facts)
    return facts


def files_of(data: Sequence[str], names: Sequence[str]) -> dict[str, str]:
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
