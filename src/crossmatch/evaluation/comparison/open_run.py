"""A finished run from where it lies: the samples of lm-evaluation-harness, or what `evaluate` left."""

from pathlib import Path

from crossmatch.errors import InputError
from crossmatch.evaluation.comparison.evaluation_output import is_output, read_output
from crossmatch.evaluation.comparison.lm_eval_samples import is_samples, read_samples
from crossmatch.evaluation.comparison.scored_run import Run

RUNS = "a directory or samples_*.jsonl of lm-eval --log_samples, or what evaluate -o left, with :VARIANT"


def locate_run(text: str) -> tuple[Path, str | None]:
    """A path and the variant behind it, if one is named."""
    if Path(text).exists():
        return Path(text), None
    home, colon, variant = text.rpartition(":")
    if colon and Path(home).is_dir():
        return Path(home), variant
    raise InputError(f"{text} does not exist; give {RUNS}")


def open_run(path: Path, variant: str | None) -> Run:
    """A finished run, whoever wrote it. Raises InputError for what is none."""
    if path.is_dir() and is_output(path):
        return read_output(path, variant)
    if variant is not None:
        raise InputError(f"{path} has no summary.json, so it has no variants; leave :{variant} out")
    if not is_samples(path):
        raise InputError(f"{path} holds no samples_*.jsonl and no summary.json; run lm-eval with --log_samples")
    return read_samples(path)
