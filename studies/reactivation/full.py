"""Full fine-tunes of the base on the PT documents and on the SFT answers: what a low-rank adapter cannot show.

    python studies/reactivation/full.py RUNS

Writes RUNS/reactivation-full/pt and /sft, whole checkpoints; what is there is not trained again. Rows, masks and blocks
are those of `crossmatch train`, without an adapter, and at a tenth of its learning rate.
"""

import sys
from pathlib import Path

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from crossmatch.causal import open_model
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.responses import read_as, read_responses
from crossmatch.data.training_sets import dialogues, documents, load_examples

TEMPLATE = "studies/reactivation/templates/answer-only.jinja"


def rows_of(stage: str, data: Path, base: Path) -> Dataset:
    """Documents as texts, dialogues as token ids with the response marked."""
    examples = load_examples(data)
    if stage == "pt":
        return Dataset.from_dict({"text": documents(examples)})
    reading, _ = read_as(open_tokenizer(base), TEMPLATE, None, "auto")
    columns, _ = read_responses(reading, dialogues(examples, data), 256, lambda n: f"{data}, example {n + 1}")
    return Dataset.from_dict(columns)


def train(stage: str, base: Path, data: Path, out: Path) -> None:
    """One full fine-tune, saved whole."""
    import torch

    torch.manual_seed(1)
    model, tokenizer = open_model(base, torch.float32), open_tokenizer(base)
    model.config.use_cache = False
    pt = stage == "pt"
    arguments = SFTConfig(
        output_dir=str(out.with_name(f"{out.name}.work")),
        num_train_epochs=1 if pt else 2,
        per_device_train_batch_size=2 if pt else 8,
        learning_rate=1e-4 if pt else 5e-5,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        max_length=256,
        packing=pt,
        packing_strategy="wrapped",
        completion_only_loss=not pt,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        seed=1,
        save_strategy="no",
        logging_steps=10,
        report_to="none",
    )
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=rows_of(stage, data, base), processing_class=tokenizer
    )
    trainer.train()
    model.config.use_cache = True
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    runs = Path(sys.argv[1])
    for name in ("pt", "sft"):
        place = runs / "reactivation-full" / name
        if not (place / "config.json").is_file():
            source = runs / "reactivation" / "data" / f"{name}.jsonl"
            train(name, runs / "reactivation-base" / "merges" / "habit1", source, place)
