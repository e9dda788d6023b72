"""One stage on TRL's SFTTrainer: built from settings, watched, saved, resumed."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Json
from peft import LoraConfig
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from crossmatch.causal import open_model
from crossmatch.data.chat_templates import apply_template, template_kwargs
from crossmatch.data.training_sets import Dialogue
from crossmatch.errors import DataError
from crossmatch.runtime import Task
from crossmatch.training.settings import Stage, TrainSettings
from crossmatch.training.targets import lora_targets

COMPLETE = "complete"


def load_base(base: Path, dtype: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """Model and tokenizer of a base, the model in `dtype`."""
    model = open_model(base, getattr(torch, dtype))
    config = model.config.get_text_config(decoder=True)
    # TRL's load-balancing loss asks for experts by this name alone (1.16: Granite, Phi and Llama 4 have another).
    if not hasattr(config, "num_experts") and hasattr(config, "num_local_experts"):
        config.num_experts = config.num_local_experts
    return model, AutoTokenizer.from_pretrained(base)


class Watch(TrainerCallback):
    """Shows every step, keeps the loss curve, marks checkpoints that were written to the end."""

    def __init__(self, task: Task, work: Path, before_seconds: float) -> None:
        self.task, self.work, self.started = task, work, time.monotonic() - before_seconds
        self.loss = ""

    @property
    def seconds(self) -> float:
        """Time spent, earlier runs of the same stage included."""
        return time.monotonic() - self.started

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Note the loss."""
        if logs and "loss" in logs:
            self.loss = f"loss {float(logs['loss']):.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance by one step."""
        self.task.advance(1, self.loss)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint: a killed run leaves the last one half-written, and that must not be resumed."""
        mark = self.work / f"checkpoint-{state.global_step}" / COMPLETE
        mark.write_text(f"{self.seconds:.3f}\n")


def last_complete(work: Path) -> Path | None:
    """The newest checkpoint that was written to the end, or None."""
    found = [p.parent for p in work.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda p: int(p.name.split("-")[1]), default=None)


def build_trainer(
    base: Path,
    stage: Stage,
    data: Sequence[str] | Sequence[Dialogue],
    settings: TrainSettings,
    work: Path,
    say: Callable[[str], None] = lambda _: None,
) -> SFTTrainer:
    """The trainer of a stage: PT packs documents, SFT masks everything but the response. say: takes notes."""
    model, tokenizer = load_base(base, settings.dtype)
    model.config.use_cache = False
    if stage == "sft":
        apply_template(tokenizer, settings.template)
        extra = template_kwargs(settings.thinking)
        rows = [_prompt_completion(d, extra) for d in data if isinstance(d, Dialogue)]
        check_lengths(tokenizer, rows, settings.max_length)
    else:
        rows = [{"text": text} for text in data]
    targets, note = lora_targets(model, settings.targets)
    if note:
        say(f"note: {note}")
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model=model,
        args=_arguments(stage, settings, work),
        train_dataset=_dataset(rows),
        processing_class=tokenizer,
        peft_config=lora,
    )
    # It prints every log line on stdout, which belongs to results.
    trainer.remove_callback(PrinterCallback)
    return trainer


def check_lengths(tokenizer: Any, rows: Sequence[dict[str, Any]], max_length: int) -> None:
    """Raise DataError if a dialogue is longer than `max_length` tokens with its template.

    The trainer would cut its response, or drop it, without a word.
    """
    lengths = []
    for row in rows:
        kwargs = row.get("chat_template_kwargs", {})
        text = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], tokenize=False, **kwargs)
        lengths.append(len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    long = [(number, length) for number, length in enumerate(lengths, 1) if length > max_length]
    if long:
        number, length = long[0]
        more = f", and {len(long) - 1} more are too long" if len(long) > 1 else ""
        raise DataError(
            f"example {number} has {length} tokens with its template, max_length is {max_length}{more}; "
            f"raise max_length to {max(lengths)}, or shorten or leave them out"
        )


def planned_steps(trainer: SFTTrainer, settings: TrainSettings) -> int:
    """Optimiser steps that a whole run takes."""
    if settings.max_steps is not None:
        return settings.max_steps
    rows = len(trainer.train_dataset)  # pyright: ignore[reportArgumentType]
    batches = math.ceil(rows / settings.batch_size)
    return max(1, math.ceil(math.ceil(batches / settings.accumulation) * settings.epochs))


def _prompt_completion(dialogue: Dialogue, template: dict[str, Any]) -> dict[str, Any]:
    messages = dialogue.messages()
    row: dict[str, Any] = {"prompt": messages[:-1], "completion": messages[-1:]}
    if dialogue.tools:
        row["tools"] = [dict(tool) for tool in dialogue.tools]
    return row | ({"chat_template_kwargs": template} if template else {})


def _dataset(rows: Sequence[dict[str, Any]]) -> Dataset:
    """Rows as they are: Arrow would give every message and tool call all fields that any other has, as nulls."""
    columns = sorted({name for row in rows for name in row})
    messages = (message for row in rows for message in (*row.get("prompt", ()), *row.get("completion", ())))
    if "tools" not in columns and all(set(message) == {"role", "content"} for message in messages):
        return Dataset.from_list(list(rows))
    filled = [{name: row.get(name) for name in columns} for row in rows]
    return Dataset.from_list(filled, features=Features({name: Json() for name in columns}))


def _arguments(stage: Stage, settings: TrainSettings, work: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_share,
        max_length=settings.max_length,
        packing=stage == "pt",
        # Documents run on into one another in blocks of max_length; no token is padding, none is cut off.
        packing_strategy="wrapped",
        completion_only_loss=stage == "sft",
        gradient_checkpointing=settings.checkpoint_activations,
        bf16=settings.dtype == "bfloat16",
        # On CPU bfloat16 is refused unless the CPU is asked for by name.
        use_cpu=not torch.cuda.is_available(),
        fp16=False,
        seed=settings.seed,
        data_seed=settings.seed,
        save_steps=settings.save_every_steps,
        save_total_limit=2,
        logging_steps=1,
        disable_tqdm=True,
        report_to=list(settings.report_to) or "none",
        dataloader_pin_memory=False,
        # Kept in the trainer's state, so that a resumed run counts on.
        include_num_input_tokens_seen="non_padding",
    )
