"""Make and explain: train, run a study, say what fine-tuning changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.runtime import SILENT, Progress

if TYPE_CHECKING:
    from crossmatch.export.results import AnalysisResult
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
    from crossmatch.cli.options import one_of, train_settings
    from crossmatch.training import train_stage

    one_of("stage", stage, ("pt", "sft"))
    pairs = [f"{k}={','.join(v) if isinstance(v, list | tuple) else v}" for k, v in (setting or {}).items()]
    named = dict(column or {})
    settings = train_settings(pairs)
    checkpoint = Checkpoint(base)
    kind: Any = stage
    return train_stage(checkpoint, kind, data, output, settings=settings, columns=named, progress=progress)


def run(
    study: str | Path, runs: str | Path = "runs", *, executor: str = "local", progress: Progress = SILENT
) -> "StudyResult":
    """Run or resume a whole study: train, merge, prove, measure, explain, in `<runs>/<name>`.

    study: a recipe, a YAML file; executor: where the questions of its evaluation are asked. The result has the verdicts
    by merge, the summary of the evaluation, and the page.
    Raises RecipeError for what the recipe does not say rightly, and what the stages raise.

        >>> import crossmatch
        >>> result = crossmatch.run("study.yaml")
        >>> result.verified
        True
    """
    from crossmatch.executors import parse_executor
    from crossmatch.study import load_recipe, run_study

    return run_study(load_recipe(study), runs, executor=parse_executor(executor), progress=progress)


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
    progress: Progress = SILENT,
) -> "AnalysisResult":
    """Say what fine-tuning changed: size, place on the base's singular directions, overlap of two vectors.

    base: a directory or hub id; vectors: name -> adapter, stored vector, or checkpoint tuned from the base; alignment:
    False (`--no-alignment`) leaves the base's weights unread; texts, questions, openings: files on which the models are
    run as well, in float32; the other names are the command's options. The fields are those of `crossmatch analyse
    --json`. Raises InputError for what does not fit together, EqualError for a checkpoint that is the base itself.

        >>> import crossmatch
        >>> found = crossmatch.analyse("models/base", {"pt": "runs/pt", "sft": "runs/sft"})
        >>> sorted(found["vectors"])
        ['pt', 'sft']
    """
    from crossmatch.analysis import DEFAULT_KS, Wanted, assemble, open_vectors
    from crossmatch.cli.analyse.options import Asked, read_material, run_texts
    from crossmatch.export.results import AnalysisResult

    place = Path(cache) if cache is not None else None
    wanted = Wanted(tuple(dict.fromkeys(k or DEFAULT_KS)), alignment, place, sign_conflict)
    opened = open_vectors(base, vectors)
    asked = Asked(texts, questions, openings, positions, nulls, items, tuple(k))
    material = read_material(opened, asked)
    facts = assemble(opened, wanted, progress=progress)
    run_texts(opened, material, facts)
    return AnalysisResult(facts)
