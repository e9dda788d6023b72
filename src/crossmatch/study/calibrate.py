"""A calibration file for the rules that need one: what the modules that adapters change take in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import open_vector
from crossmatch.checkpoint import Checkpoint, check_apart, file_digest, side_digest, split_pairs
from crossmatch.errors import InputError
from crossmatch.evaluation.inference.calibrate import record_sets
from crossmatch.evaluation.inference.module_inputs import Calibration, check_file, save
from crossmatch.merging import plan_merge
from crossmatch.results.training import RecordedJson
from crossmatch.runtime import Progress


@dataclass(frozen=True)
class CalibrationJob:
    """Whose modules are recorded, on which data (by adapter, or by "" for the base), and into which file."""

    base: str | Path
    adapters: Mapping[str, str | Path]
    files: Mapping[str, str]
    output: Path
    partial: bool
    overwrite: bool


def calibrate(job: CalibrationJob, asked: Calibration, progress: Progress) -> RecordedJson:
    """Write the file; what it says of itself. Raises what is said of bad inputs before anything is computed."""
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
