"""Run suites on variants; every answer goes to a JSONL file with the digests of what produced it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from crossmatch.adapter import Adapter
from crossmatch.chat import apply_template, render
from crossmatch.checkpoint import Checkpoint, bytes_digest, file_digest, side_digest, value_digest
from crossmatch.evaluation.engine import Decoding, Engine
from crossmatch.evaluation.suites import Item, Suite
from crossmatch.evaluation.traces import OPENERS, parse_trace
from crossmatch.evaluation.variants import Variant
from crossmatch.progress import QUIET, SILENT, Progress, Task

Record = dict[str, Any]


@dataclass(frozen=True)
class Conditions:
    """Under what all suites are run.

    template: a file (None: the tokenizer's own); thinking: its switch; dtype: as which the variants' weights are stored
    before they are computed with (None: the base's own).
    """

    template: str | None = None
    thinking: bool | None = None
    decoding: Decoding = field(default_factory=Decoding)
    batch_size: int = 32
    dtype: str | None = None

    def digest(self) -> str:
        """Digest of what can change an answer; the batch size can only where tokens are drawn."""
        text = Path(self.template).read_text(encoding="utf-8") if self.template else None
        drawn = self.batch_size if self.decoding.temperature > 0 else None
        return value_digest([text, self.thinking, asdict(self.decoding), drawn, self.dtype])


def evaluate(
    base: Checkpoint,
    adapters: Mapping[str, Adapter],
    variants: Sequence[Variant],
    suites: Sequence[Suite],
    out: Path,
    *,
    conditions: Conditions | None = None,
    progress: Progress = SILENT,
) -> dict[tuple[str, str], list[Record]]:
    """Answer every suite with every variant; return the records by (variant, suite) name.

    Records lie in `out/<variant>/<suite>.jsonl`. A file that was made from the same digests is kept, so that the same
    call after an interruption goes on.
    """
    conditions = conditions or Conditions()
    shared = [conditions.digest(), side_digest(base.path)]
    records: dict[tuple[str, str], list[Record]] = {}
    pending: list[tuple[Variant, Suite, str]] = []
    for variant in variants:
        model = variant.digest(base, adapters)
        for suite in suites:
            known = _known(_file(out, variant, suite), value_digest([model, suite.digest, *shared]))
            if known is None:
                pending.append((variant, suite, model))
            else:
                records[variant.name, suite.settings.name] = known
    if not pending:
        return records
    with progress.task("load model") as loading:
        engine = Engine(base, getattr(torch, conditions.dtype) if conditions.dtype else None)
        apply_template(engine.tokenizer, conditions.template)
        loading.advance()
    current = None
    with progress.task("evaluate", sum(len(s.items) for _, s, _ in pending)) as task:
        for variant, suite, model in pending:
            task.advance(0, f"{variant.name}, {suite.settings.name}")
            if variant is not current:
                engine.become(variant.parts(adapters))
                current = variant
            answers = (_generate if suite.settings.kind == "generation" else _choose)(engine, suite, conditions, task)
            stamp = {"variant": variant.name, "suite": suite.settings.name, "suite_version": suite.settings.version}
            rows = [{**stamp, "model_digest": model, **answer} for answer in answers]
            _save(_file(out, variant, suite), value_digest([model, suite.digest, *shared]), rows)
            records[variant.name, suite.settings.name] = rows
    return records


def _generate(engine: Engine, suite: Suite, conditions: Conditions, task: Task) -> list[Record]:
    prompts = [render(engine.tokenizer, suite.messages(item), conditions.thinking) for item in suite.items]
    openers = OPENERS[suite.settings.language]
    size = conditions.batch_size
    outputs = engine.generate(prompts, suite.settings.max_new_tokens, conditions.decoding, size, task)
    likelihoods = engine.loglikelihoods(prompts, [openers] * len(prompts), size, QUIET)
    rows = []
    for item, prompt, output, values in zip(suite.items, prompts, outputs, likelihoods, strict=True):
        trace = parse_trace(output)
        rows.append(
            {
                **_asked(item, prompt),
                "reference": item.reference,
                "output": output,
                "answer": trace.answer,
                "trace": {"state": trace.state, "lexical": trace.lexical, "share": trace.share},
                "opener_loglikelihoods": dict(zip(openers, values, strict=True)),
            }
        )
    return rows


def _choose(engine: Engine, suite: Suite, conditions: Conditions, task: Task) -> list[Record]:
    prompts = [render(engine.tokenizer, suite.messages(item), conditions.thinking) for item in suite.items]
    values = engine.loglikelihoods(prompts, [item.options for item in suite.items], conditions.batch_size, task)
    rows = []
    for item, prompt, scores in zip(suite.items, prompts, values, strict=True):
        by_length = [score / len(option) for score, option in zip(scores, item.options, strict=True)]
        rows.append(
            {
                **_asked(item, prompt),
                "options": list(item.options),
                "right": item.answer,
                "loglikelihoods": scores,
                "chosen": scores.index(max(scores)),
                "chosen_norm": by_length.index(max(by_length)),
            }
        )
    return rows


def _asked(item: Item, prompt: str) -> Record:
    return {"id": item.id, "question": item.question, "prompt_digest": bytes_digest(prompt.encode())}


def _file(out: Path, variant: Variant, suite: Suite) -> Path:
    return out / variant.name / f"{suite.settings.name}.jsonl"


def _known(file: Path, digest: str) -> list[Record] | None:
    """Records of a finished file that was made from the same inputs, else None."""
    stamp = file.with_suffix(".digest")
    if not (file.exists() and stamp.exists()) or stamp.read_text().split() != [digest, file_digest(file)]:
        return None
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def _save(file: Path, digest: str, rows: Sequence[Record]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    stamp = file.with_suffix(".digest")
    stamp.unlink(missing_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    temporary.replace(file)
    stamp.write_text(f"{digest}\n{file_digest(file)}\n")
