"""One stage on TRL's SFTTrainer: built from settings, watched, saved, resumed."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from crossmatch.causal import open_model
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.responses import read_as, read_responses
from crossmatch.data.training_sets import Dialogue
from crossmatch.errors import InputError
from crossmatch.positions import check_blocks, fewest_positions
from crossmatch.runtime import SILENT, Task
from crossmatch.training.processes import this_run
from crossmatch.training.settings import Stage, TrainSettings
from crossmatch.training.targets import lora_targets

COMPLETE = "complete"
# Other names of `final_logit_softcapping`: RecurrentGemma's, xLSTM's.
_CAPS = ("logits_soft_cap", "output_logit_soft_cap")
# Tokens of a row on which losses are compared.
_COMPARED = 64


def load_base(base: Path, dtype: str) -> Any:
    """The model of a base, in `dtype`."""
    model = open_model(base, getattr(torch, dtype))
    config = model.config.get_text_config(decoder=True)
    # TRL's load-balancing loss asks for experts by this name alone (1.16: Granite, Phi and Llama 4 have another).
    if not hasattr(config, "num_experts") and hasattr(config, "num_local_experts"):
        config.num_experts = config.num_local_experts
    # Its loss reads the cap of the logits by the one name that most classes have.
    cap = next((getattr(config, name) for name in _CAPS if getattr(config, name, None)), None)
    if cap is not None and getattr(config, "final_logit_softcapping", None) is None:
        config.final_logit_softcapping = cap
    return model


def refuse_other_loss(trainer: SFTTrainer) -> None:
    """Raise InputError where the trainer's loss is not the model's own.

    TRL takes logits for the output matrix times what the last layer gives, scaled and capped as it knows it; a class
    that does something else with them would be trained to another end. Compared are the log-probabilities of a first
    row.
    """
    rows: Any = trainer.train_dataset
    ids, model = rows[0]["input_ids"][:_COMPARED], cast(Any, trainer.model)
    tokens = torch.tensor([ids], device=model.device)
    training, model = model.training, model.eval()
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
        theirs = model(input_ids=tokens, labels=tokens, use_cache=False, fused_lm_head=True).log_probs[0].float()
    model.train(training)
    own = logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
    # Logits are rounded to the dtype on one way and not on the other.
    room = 1e-3 + 4 * torch.finfo(next(model.parameters()).dtype).eps * float(logits.abs().max())
    if len(ids) > 1 and not bool(((own - theirs).abs() <= room).all()):
        raise InputError(
            f"the loss that TRL computes is not that of a {model.config.model_type} model: on a first row it is "
            f"{-float(theirs.mean()):.3f} for {-float(own.mean()):.3f}; this model cannot be trained here"
        )


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
        if not state.is_world_process_zero:
            return
        mark = self.work / f"checkpoint-{state.global_step}" / COMPLETE
        # Under another name first: a run that is killed between opening and writing would leave an empty mark.
        written = mark.with_suffix(".partial")
        written.write_text(f"{self.seconds:.3f}\n")
        written.replace(mark)


def last_complete(work: Path) -> Path | None:
    """The newest checkpoint that was written to the end, or None."""
    found = [p.parent for p in work.glob(f"checkpoint-*/{COMPLETE}") if p.stat().st_size]
    return max(found, key=lambda p: int(p.name.split("-")[1]), default=None)


@dataclass(frozen=True)
class Voice:
    """How a trainer speaks of data: where a note goes, and what the row of a number, from 0, is called."""

    say: Callable[[str], None] = SILENT.say
    place: Callable[[int], str] = lambda number: f"example {number + 1}"


def build_trainer(
    base: Path,
    stage: Stage,
    data: Sequence[str] | Sequence[Dialogue],
    settings: TrainSettings,
    work: Path,
    voice: Voice = Voice(),
) -> SFTTrainer:
    """The trainer of a stage: PT packs documents, SFT masks everything but the response.

    Rows are read before the model is loaded. Raises DataError, with the row's place, for one that cannot be learnt.
    """
    tokenizer, most = open_tokenizer(base), fewest_positions([base])
    if stage == "sft":
        reading, note = read_as(tokenizer, settings.template, settings.thinking, settings.turn_end)
        columns, differing = read_responses(
            reading, (d for d in data if isinstance(d, Dialogue)), (settings.max_length, most), voice.place
        )
        for line in (note, differing):
            if line is not None:
                voice.say(line)
        rows = Dataset.from_dict(columns)
    else:
        check_blocks(settings.max_length, most)
        rows = Dataset.from_dict({"text": list(data)})
    model = load_base(base, settings.dtype)
    model.config.use_cache = False
    targets, note = lora_targets(model, settings.targets)
    if note:
        voice.say(f"note: {note}")
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
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora,
    )
    # It prints every log line on stdout, which belongs to results.
    trainer.remove_callback(PrinterCallback)
    refuse_other_loss(trainer)
    if planned_steps(trainer, settings) == 1:
        # The first step of a warm-up has rate 0: a run of one step would learn nothing.
        trainer.args.warmup_steps = 0
    return trainer


def planned_steps(trainer: SFTTrainer, settings: TrainSettings) -> int:
    """Optimiser steps that a whole run takes."""
    if settings.max_steps is not None:
        return settings.max_steps
    rows = len(trainer.train_dataset)  # pyright: ignore[reportArgumentType]
    batches = math.ceil(rows / settings.batch_size)
    return max(1, math.ceil(math.ceil(batches / settings.accumulation) * settings.epochs))


def _scheduler(settings: TrainSettings) -> str:
    """The library's `constant` has no warm-up, and takes none."""
    warm = settings.schedule == "constant" and settings.warmup_share > 0
    return "constant_with_warmup" if warm else settings.schedule


def _arguments(stage: Stage, settings: TrainSettings, work: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=this_run().share(settings.batch_size),
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_scheduler(settings),
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
