"""Train one stage to an adapter directory, with everything that a later check needs recorded beside it."""

import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from crossmatch.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, examine
from crossmatch.checkpoint import (
    MANIFEST,
    Checkpoint,
    atomic_directory,
    check_output,
    file_digest,
    read_json,
    side_digest,
    value_digest,
    write_json,
)
from crossmatch.data.chat_templates import OWN
from crossmatch.data.training_sets import Dialogue, Example, dialogues, documents, examples_digest, load_sets, notes
from crossmatch.errors import AdapterError, DataError, InputError, OutputError
from crossmatch.result_kinds import TRAINING, TRAINING_WORK
from crossmatch.results.summary import TokenJson
from crossmatch.results.training import TrainedTemplateJson, TrainingJson
from crossmatch.runtime import SILENT, Progress
from crossmatch.training.processes import Processes, this_run
from crossmatch.training.settings import Stage, TrainSettings

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer

MIN_FREE_BYTES = 64_000_000
_LIBRARIES = ("crossmatch", "torch", "transformers", "peft", "trl")


class StaleWorkError(InputError):
    """Checkpoints of a run with other inputs lie where this one would put its own."""


def train_stage(
    base: Checkpoint,
    stage: Stage,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    settings: TrainSettings | None = None,
    columns: dict[str, str] | None = None,
    progress: Progress = SILENT,
) -> TrainingJson:
    """Train a LoRA adapter on the frozen base and publish it at `out`; return the record written as crossmatch.json.

    PT: next-token loss on every token of documents, end-of-sequence after each, packed, no chat template. SFT: chat
    template, loss on the response alone. Several sets of data are trained on jointly, shuffled by the settings' seed.
    Killed at any point, the same call goes on from the last checkpoint in
    `<out>.work` and, on one machine, ends with the same bytes. Several processes (`accelerate launch`, `torchrun`) take
    a share of each batch, and the first of them writes. Raises DataError for a bad line before anything is loaded,
    OutputError if `out` is not empty, StaleWorkError for checkpoints of a run with other inputs, AdapterError if what
    was saved is not whole, or holds NaN: then nothing is published, and the checkpoints stay.
    """
    settings, out, ranks = settings or TrainSettings.model_validate({}), Path(out), this_run()
    ranks.share(settings.batch_size)
    progress = progress if ranks.first else SILENT
    sources = [data] if isinstance(data, str | Path) else list(data)
    examples = load_sets(sources, columns, settings.seed)
    if stage == "sft":
        from crossmatch.data.chat_templates import check_training

        check_training(base.path, settings.template, settings.thinking)
    spoken = dialogues(examples, ", ".join(map(str, sources))) if stage == "sft" else []
    rows: Sequence[str] | Sequence[Dialogue] = documents(examples) if stage == "pt" else spoken
    facts = _facts(base, stage, examples, settings)
    if (finished := _finished(out, facts)) is not None:
        progress.say(f"{out}: trained from the same data and settings already, unchanged")
        return finished
    for note in notes(examples):
        progress.say(note)
    if stage == "pt" and (turns := sum(isinstance(e, Dialogue) for e in examples)):
        progress.say(f"note: {turns} dialogues are learnt as plain text, every token, without a template")
    if stage == "sft":
        rows = spoken = list(_rendered_rows(base, spoken, settings, progress))
    template = _template(base, settings) if stage == "sft" else None
    work = out.with_name(out.name + ".work")
    if ranks.first:
        _claim_work(work, facts)
    with progress.task(f"load {stage} trainer") as loading:
        from crossmatch.data.chat_templates import restore_template
        from crossmatch.training.trainer import Voice, build_trainer, last_complete

        voice = Voice(progress.say, lambda number: spoken[number].place or f"example {number + 1}")
        try:
            trainer = build_trainer(base.path, stage, rows, settings, work, voice)
        except InputError:
            # Nothing was begun: what is left here would stand in the way once the data are mended.
            if ranks.first and last_complete(work) is None:
                shutil.rmtree(work)
            raise
        loading.advance()
    seconds = _run(trainer, stage, settings, work, progress)
    tokenizer: Any = trainer.processing_class
    record: TrainingJson = {
        "schema_version": 1,
        "kind": "adapter",
        "facts": value_digest(facts),
        "stage": stage,
        "base": {"name": str(base.source.hub_id or base.path.name), "digest": base.digest, "files": base.file_digests},
        "data": {"digest": facts["data"], "examples": len(examples)},
        "settings": facts["settings"],
        "text": facts["text"],
        "versions": facts["versions"],
        "template": template,
        "steps": trainer.state.global_step,
        "tokens_seen": int(trainer.state.num_input_tokens_seen),
        "loss": [[e["step"], e["loss"]] for e in trainer.state.log_history if "loss" in e],
        "seconds": round(seconds, 1),
        "files": {},
    }
    if ranks.count > 1:
        record["processes"] = ranks.count
    restore_template(tokenizer)
    if not ranks.first:
        # Sharded parts are gathered from all; what they make is written by the first.
        trainer.save_model(str(work))
        ranks.wait()
        return record
    with atomic_directory(out) as partial:
        trainer.save_model(str(partial))
        _normalise(partial, base)
        for note in _whole(partial, base, ranks, work):
            progress.say(note)
        record["files"] = {name: file_digest(partial / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}
        TRAINING.write(partial / MANIFEST, record)
    shutil.rmtree(work)
    ranks.wait()
    return record


def _whole(saved: Path, base: Checkpoint, ranks: Processes, work: Path) -> list[str]:
    """Notes on what a saved adapter lacks and may lack. Raises AdapterError for what no single process leaves out, and
    for what cannot be merged: sharded training is known to save one machine's part without a word."""
    unpublished = "the trained adapter is not whole, and is not published: {}; checkpoints are kept in {}"
    try:
        adapter = Adapter(saved)
    except AdapterError as error:
        raise AdapterError(unpublished.format(error, work), fault=error.fault) from error
    try:
        lacks = examine(adapter, base).lacks
    except AdapterError as error:
        if ranks.count > 1:
            raise
        return [f"note: the adapter could not be checked to be whole: {error}"]
    wrong = next((lack for lack in lacks if ranks.count > 1 or not lack.usable), None)
    if wrong is not None:
        raise AdapterError(unpublished.format(wrong.evidence, work), fault=wrong.fault)
    return [f"note: {lack.evidence}; merge takes it only with --allow-partial-adapter" for lack in lacks]


def _rendered_rows(
    base: Checkpoint, rows: Sequence[Dialogue], settings: TrainSettings, progress: Progress
) -> Sequence[Dialogue]:
    """The dialogues as the template takes them, each checked. Raises DataError."""
    from crossmatch.data.chat_templates import apply_template, differing_files, open_tokenizer, switch_of
    from crossmatch.data.row_checks import check_dialogues

    tokenizer = open_tokenizer(base.path)
    if settings.template is None and (note := differing_files(base.path, tokenizer)):
        progress.say(note)
    apply_template(tokenizer, settings.template)
    variables = switch_of(tokenizer, settings.thinking).variables
    checked = check_dialogues(tokenizer, rows, variables)
    for note in checked.notes:
        progress.say(note)
    return checked.dialogues


def _template(base: Checkpoint, settings: TrainSettings) -> TrainedTemplateJson:
    """How the probe question reaches the model in training, what an evaluation with the same template asks, and where
    an answer ends.

    text, token_ids: all that stands before the response; asked: the prompt; turn_end: what the template puts after an
    answer, and the tokens that training put there.
    """
    from crossmatch.data.chat_templates import open_tokenizer, probe
    from crossmatch.data.responses import before_response, read_as
    from crossmatch.data.turn_ends import turn_end

    tokenizer = open_tokenizer(base.path)
    reading, _ = read_as(tokenizer, settings.template, settings.thinking, settings.turn_end)
    asked, seen = probe(tokenizer, settings.thinking), before_response(reading)
    ids = list(seen.ids[: seen.first])
    added: list[TokenJson] = [{"id": number, "text": tokenizer.decode([number])} for number in reading.ending]
    return {
        "digest": asked["digest"],
        "thinking": asked["thinking"],
        "day": asked["day"],
        "probe": asked["probe"],
        "text": asked["text"] if seen.as_asked else tokenizer.decode(ids),
        "token_ids": ids,
        "asked": {"text": asked["text"], "token_ids": list(seen.asked)},
        "turn_end": {"closing": turn_end(tokenizer, switches=reading.switch().variables).closing, "added": added},
    }


def _run(trainer: "SFTTrainer", stage: Stage, settings: TrainSettings, work: Path, progress: Progress) -> float:
    """Train from the last whole checkpoint to the end; seconds spent, earlier runs included."""
    from crossmatch.training.trainer import COMPLETE, Watch, last_complete, planned_steps

    resumed = last_complete(work)
    before = float((resumed / COMPLETE).read_text()) if resumed else 0.0
    with progress.task(f"train {stage}", planned_steps(trainer, settings)) as task:
        if resumed:
            task.advance(int(resumed.name.split("-")[1]), "resumed")
        watch = Watch(task, work, before)
        trainer.add_callback(watch)
        try:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        except (OSError, RuntimeError, SafetensorError) as error:
            # Each library reports a full disk in its own words; the disk itself is the one to ask.
            if shutil.disk_usage(work).free > MIN_FREE_BYTES:
                raise
            raise OutputError(f"{work}: the disk is full; free some space, then the same command goes on") from error
    return watch.seconds


def _facts(base: Checkpoint, stage: Stage, examples: Sequence[Example], settings: TrainSettings) -> dict[str, Any]:
    """All that decides what the adapter will be."""
    return {
        "stage": stage,
        "base": base.digest,
        "data": examples_digest(examples),
        "settings": settings.model_dump(),
        "text": [side_digest(base.path), _file_digest(settings.template)],
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def _file_digest(template: str | None) -> str | None:
    """Of a template that is a file's; what a tokenizer holds is in the digest of its files."""
    return None if template is None or template.startswith(OWN) else file_digest(Path(template))


def _finished(out: Path, facts: dict[str, Any]) -> TrainingJson | None:
    """The record of an adapter that lies at `out` and was trained from the same inputs; None if nothing is there.

    Raises OutputError for anything else.
    """
    record = read_json(out / MANIFEST) if (out / MANIFEST).is_file() else {}
    if record.get("kind") != "adapter":
        check_output(out, overwrite=False)
        return None
    if record.get("facts") != value_digest(facts):
        raise OutputError(f"{out} holds an adapter of other data or settings; choose another output, or remove it")
    return TRAINING.known(record, str(out / MANIFEST))


def _claim_work(work: Path, facts: dict[str, Any]) -> None:
    """Make the work directory this run's own; one left by a run of other inputs, or by somebody else, is refused."""
    file, mine = work / "facts.json", value_digest(facts)
    if file.exists():
        try:
            theirs = TRAINING_WORK.read(file)["digest"]
        except DataError as error:
            raise StaleWorkError(f"{work} cannot be gone on with: {error}") from error
        if theirs != mine:
            raise StaleWorkError(f"{work} belongs to a run with other data or settings; remove it to begin again")
        return
    if work.exists() and any(work.iterdir()):
        raise OutputError(f"{work} is needed for checkpoints and holds something else; choose another output")
    work.mkdir(parents=True, exist_ok=True)
    begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    TRAINING_WORK.replace(file, {"schema_version": 1, "digest": mine, "facts": facts, "begun": begun})


def _normalise(adapter: Path, base: Checkpoint) -> None:
    """Give the saved files bytes that depend on the training alone: PEFT writes sets in hash order, and our paths."""
    file = adapter / CONFIG_FILE
    config = {
        key: sorted(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
        for key, value in sorted(read_json(file).items())
    }
    config["base_model_name_or_path"] = base.source.hub_id or base.path.name
    write_json(file, config)
    for name in ("README.md", "training_args.bin"):
        (adapter / name).unlink(missing_ok=True)
