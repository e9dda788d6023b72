"""The calibration file: a model run over data, its inputs and gradients at sampled positions."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from crossmatch.checkpoint import Checkpoint, layer_of
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.passages import Passage, read_dialogue, read_text
from crossmatch.data.responses import read_as
from crossmatch.data.row_checks import readable
from crossmatch.data.training_sets import Dialogue, Document, examples_digest, load_examples, notes
from crossmatch.delta import TuningVector
from crossmatch.errors import DataError, InputError
from crossmatch.evaluation.inference.module_inputs import Calibration, linear_modules, record, sample
from crossmatch.positions import fewest_positions
from crossmatch.results.training import CalibrationSetJson
from crossmatch.runtime import Progress


def record_sets(
    base: Checkpoint,
    vectors: Mapping[str, TuningVector],
    files: Mapping[str, str],
    asked: Calibration,
    progress: Progress,
) -> tuple[dict[str, Tensor], list[CalibrationSetJson]]:
    """Tensors by key, and the facts of each set; files: adapter -> data ("" for the base alone). All data is read and
    judged before the model is loaded. Raises DataError with the file and the example."""
    from crossmatch.evaluation.inference.local_model import Engine

    data = {file: _read(base.path, file, asked, progress) for file in dict.fromkeys(files.values())}
    tensors: dict[str, Tensor] = {}
    sets: list[CalibrationSetJson] = []
    with progress.task("load model"):
        engine = Engine(base)
        engine.model.float()
    linear = {f"{module}.weight": module for module in linear_modules(engine.model)}
    for name, file in files.items():
        passages, digest = data[file]
        engine.become({name: (vectors[name], 1.0)} if name else {})
        modules = [m for n, m in linear.items() if (n in vectors[name] if name else layer_of(n) is not None)]
        if not modules:
            raise InputError(f"{name or base.path}: none of its tensors is a linear layer's; nothing can be recorded")
        chosen = sample(passages, asked.positions, asked.max_positions, asked.seed)
        rows = record(engine.model, passages, modules, positions=chosen, gradients=asked.gradients, progress=progress)
        tensors |= {f"{name}/{key}" if name else key: value for key, value in rows.items()}
        sets.append(
            {
                "adapter": name or None,
                "data": digest,
                "modules": len(modules),
                "rows": sum(map(len, chosen)),
                "of": sum(len(p.positions(asked.positions)) for p in passages),
            }
        )
    return tensors, sets


def _read(base: Path, file: str, asked: Calibration, progress: Progress) -> tuple[list[Passage], str]:
    """The sequences of a data file, and its digest; what is not used is said. Raises DataError with the file and the
    example."""
    examples, passages = load_examples(file), []
    for note in notes(examples):
        progress.say(note)
    tokenizer, reading = open_tokenizer(base), None
    if any(isinstance(example, Dialogue) for example in examples):
        reading, _ = read_as(tokenizer, asked.template, asked.thinking, asked.turn_end)
    limit = min(asked.max_length, fewest_positions([base]) or asked.max_length)
    for number, example in enumerate(examples, 1):
        try:
            if isinstance(example, Dialogue) and reading is not None:
                spoken = readable(tokenizer, example, reading.switch().variables).messages()
                passages.append(read_dialogue(tokenizer, spoken, asked.thinking, limit, reading.ending))
            elif isinstance(example, Document):
                passages += read_text(tokenizer, example.text, limit)
            passages[-1].positions(asked.positions)
        except DataError as error:
            raise DataError(f"{file}, example {number}: {error}") from error
    return passages, examples_digest(examples)
