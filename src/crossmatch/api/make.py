"""Make and explain: train, run a study, say what fine-tuning changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.runtime import SILENT, Progress

if TYPE_CHECKING:
    from crossmatch.export.results import AnalysisResult
    from crossmatch.results.training import RecordedJson
    from crossmatch.study import StudyResult


def train(
    base: str | Path,
    stage: str,
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    setting: Mapping[str, Any] | None = None,
    column: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> Mapping[str, Any]:
    """Train one stage to a LoRA adapter on the frozen base; return the record that is written beside it.

    base: a directory or hub id; stage: `pt` (documents, every token) or `sft` (dialogues, responses alone); data: files
    or hub data sets; output: the adapter's directory; setting: as `--set` takes them (rank, learning_rate, ...);
    column: known field -> its name in the data. Killed at any point, the same call goes on from the last checkpoint.
    Raises DataError for a bad row before anything is loaded, InputError for an unknown stage or setting.

        >>> import crossmatch
        >>> record = crossmatch.train("models/base", "sft", "sft.jsonl", "runs/mine", setting={"max_steps": 2})
        >>> record["steps"]
        2
    """
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.errors import one_of
    from crossmatch.training import read_settings, train_stage

    one_of("stage", stage, ("pt", "sft"))
    pairs = [f"{k}={','.join(v) if isinstance(v, list | tuple) else v}" for k, v in (setting or {}).items()]
    named = dict(column or {})
    settings = read_settings(pairs)
    checkpoint = Checkpoint(base)
    kind: Any = stage
    return train_stage(checkpoint, kind, data, output, settings=settings, columns=named, progress=progress)


def run(
    study: str | Path,
    runs: str | Path = "runs",
    *,
    executor: str = "local",
    margin: float | None = None,
    progress: Progress = SILENT,
) -> "StudyResult":
    """Run or resume a whole study: train, merge, prove, measure, explain, in `<runs>/<name>`.

    study: a recipe, a YAML file; executor: where the questions of its evaluation are asked; margin: the loss within
    which a variant is as good, in place of the recipe's. The result has the verdicts by merge, the summary of the
    evaluation, and the page.
    Raises RecipeError for what the recipe does not say rightly, and what the stages raise.

        >>> import crossmatch
        >>> result = crossmatch.run("study.yaml")
        >>> result.verified
        True
    """
    from crossmatch.answers import check_margin
    from crossmatch.executors import parse_executor
    from crossmatch.study import load_recipe, run_study, with_margin

    check_margin(margin)
    recipe, where = load_recipe(study), parse_executor(executor)
    recipe = recipe if margin is None else with_margin(recipe, margin)
    return run_study(recipe, runs, executor=where, progress=progress)


def calibrate(
    base: str | Path,
    data: str | Mapping[str, str],
    output: str | Path,
    *,
    adapter: Mapping[str, str | Path] | None = None,
    positions: str = "all",
    max_positions: int = 256,
    max_length: int = 2048,
    gradients: bool = False,
    template: str | None = None,
    thinking: bool | None = None,
    turn_end: str = "auto",
    seed: int = 0,
    allow_partial_adapter: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> "RecordedJson":
    """Record what the modules that each adapter changes take in, on base + adapter; without any, the base's modules.

    base: a directory or hub id; data: one file for all, or adapter -> file; output: the .safetensors file, which rules
    of `merge` take as their calibration; positions: `all`, `prompt-end` or `response`; the other names are the
    command's options. What the file says of itself is returned. Raises InputError for data of no adapter, DataError for
    a bad row.

        >>> import crossmatch
        >>> found = crossmatch.calibrate("models/base", "sft.jsonl", "in.safetensors", adapter={"sft": "runs/sft"})
        >>> [one["adapter"] for one in found["sets"]]
        ['sft']
    """
    from crossmatch.evaluation.inference.module_inputs import Calibration
    from crossmatch.study.calibrate import CalibrationJob, files_of
    from crossmatch.study.calibrate import calibrate as record

    asked = Calibration(positions, max_positions, max_length, gradients, template, thinking, seed, turn_end)
    adapters = dict(adapter or {})
    given = [data] if isinstance(data, str) else [f"{name}={file}" for name, file in data.items()]
    job = CalibrationJob(
        base, adapters, files_of(given, list(adapters)), Path(output), allow_partial_adapter, overwrite
    )
    return record(job, asked, progress)


def analyse(
    base: str | Path,
    vectors: Mapping[str, str | Path],
    *,
    k: Sequence[str] = (),
    alignment: bool = True,
    cache: str | Path | None = None,
    sign_conflict: bool = False,
    texts: str | None = None,
    questions: str | None = None,
    openings: str | None = None,
    positions: int = 4096,
    nulls: int = 4,
    items: int = 32,
    output: str | Path | None = None,
    progress: Progress = SILENT,
) -> "AnalysisResult":
    """Say what fine-tuning changed: size, place on the base's singular directions, overlap of two vectors.

    base: a directory or hub id; vectors: name -> adapter, stored vector, or checkpoint tuned from the base; alignment:
    False (`--no-alignment`) leaves the base's weights unread; texts, questions, openings: files on which the models are
    run as well, in float32; output: a directory for analysis.json and its page; the other names are the command's
    options. The fields are those of `crossmatch analyse --json`. Raises InputError for what does not fit together,
    EqualError for a checkpoint that is the base itself.

        >>> import crossmatch
        >>> found = crossmatch.analyse("models/base", {"pt": "runs/pt", "sft": "runs/sft"})
        >>> sorted(found["vectors"])
        ['pt', 'sft']
    """
    from crossmatch.analysis import DEFAULT_KS, Wanted
    from crossmatch.analysis.run_analysis import AnalysisRequest, run_analysis
    from crossmatch.analysis.texts import TextRequest
    from crossmatch.export.results import AnalysisResult

    place, home = (Path(one) if one is not None else None for one in (cache, output))
    wanted = Wanted(tuple(dict.fromkeys(k or DEFAULT_KS)), alignment, place, sign_conflict)
    asked = TextRequest(texts, questions, openings, positions, nulls, items, tuple(k))
    return AnalysisResult(run_analysis(AnalysisRequest(base, vectors, wanted, asked, home), progress))
