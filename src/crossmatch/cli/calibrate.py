"""crossmatch calibrate."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.options import Adapters, Json, split_pairs
from crossmatch.errors import DataError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from crossmatch.checkpoint import Checkpoint
    from crossmatch.data.passages import Passage
    from crossmatch.delta import TuningVector
    from crossmatch.evaluation.inference.module_inputs import Calibration


def calibrate_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    data: Annotated[list[str], typer.Option(metavar="[NAME=]FILE", help="Data for all adapters, or each; repeat.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    adapter: Adapters = None,
    positions: Annotated[str, typer.Option(help="Tokens to sample from: all, prompt-end or response.")] = "all",
    max_positions: Annotated[int, typer.Option(min=1, help="Tokens sampled for each adapter, at most.")] = 256,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of a sequence, at most; texts are split.")] = 2048,
    gradients: Annotated[bool, typer.Option("--gradients", help="Also the loss's gradients at the outputs.")] = False,
    template: Annotated[str | None, typer.Option(help="A Jinja chat template for dialogues.")] = None,
    thinking: Annotated[bool | None, typer.Option(help="The template's enable_thinking switch.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output of this command.")] = False,
    as_json: Json = False,
) -> None:
    """Record what the modules that each adapter changes take in, on base + adapter; without any, the base's modules."""
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import (
        Checkpoint,
        check_apart,
        file_digest,
        side_digest,
    )
    from crossmatch.evaluation.inference.module_inputs import Calibration, check_file, save
    from crossmatch.merging import plan_merge
    from crossmatch.runtime import keep_heap

    keep_heap()
    asked = Calibration(positions, max_positions, max_length, gradients, template, thinking, seed)
    checkpoint = Checkpoint(base)
    adapters = {name: open_vector(path) for name, path in split_pairs(adapter, "-a").items()}
    fitted = plan_merge(checkpoint, {name: (one, 1.0) for name, one in adapters.items()}).fit.vectors
    files = _files(data, list(adapters))
    check_apart(output, [checkpoint.path, *(one.path for one in adapters.values()), *map(Path, files.values())])
    check_file(output, overwrite)
    tensors, sets = _record(checkpoint, fitted, files, asked)
    facts = {"schema_version": 1, "base": checkpoint.digest, "text": side_digest(checkpoint.path), **asdict(asked)}
    facts |= {"template": file_digest(Path(template)) if template else None}
    facts |= {"adapters": {name: one.digest for name, one in adapters.items()}, "sets": sets}
    save(output, tensors, facts)
    if as_json:
        emit({"output": str(output), **facts})
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


def _record(
    base: "Checkpoint", vectors: Mapping[str, "TuningVector"], files: Mapping[str, str], asked: "Calibration"
) -> tuple[dict[str, "Tensor"], list[dict[str, Any]]]:
    """Tensors by key, and the facts of each set. All data is read and judged before the model is loaded."""
    from crossmatch.checkpoint import layer_of
    from crossmatch.evaluation.inference.local_model import Engine
    from crossmatch.evaluation.inference.module_inputs import linear_modules, record, sample

    data = {file: _read(base.path, file, asked) for file in dict.fromkeys(files.values())}
    progress, tensors, sets = Terminal(), {}, []
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
        counts = {"rows": sum(map(len, chosen)), "of": sum(len(p.positions(asked.positions)) for p in passages)}
        sets.append({"adapter": name or None, "data": digest, "modules": len(modules), **counts})
    return tensors, sets


def _read(base: Path, file: str, asked: "Calibration") -> tuple[list["Passage"], str]:
    """The sequences of a data file, and its digest. Raises DataError with the file and the example."""
    from transformers import AutoConfig

    from crossmatch.data.chat_templates import apply_template, open_tokenizer
    from crossmatch.data.passages import read_dialogue, read_text
    from crossmatch.data.training_sets import Dialogue, examples_digest, load_examples

    examples, passages = load_examples(file), []
    tokenizer = open_tokenizer(base)
    if any(isinstance(example, Dialogue) for example in examples):
        apply_template(tokenizer, asked.template)
    context = getattr(AutoConfig.from_pretrained(base).get_text_config(), "max_position_embeddings", None)
    limit = min(asked.max_length, context or asked.max_length)
    for number, example in enumerate(examples, 1):
        try:
            if isinstance(example, Dialogue):
                passages.append(read_dialogue(tokenizer, example.messages(), asked.thinking, limit))
            else:
                passages += read_text(tokenizer, example.text, limit)
            passages[-1].positions(asked.positions)
        except DataError as error:
            raise DataError(f"{file}, example {number}: {error}") from error
    return passages, examples_digest(examples)
