"""A merge that stays an adapter: the weighted sum as factors that PEFT loads and servers apply unmerged."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossmatch.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, Fitted, StoredVector
from crossmatch.adapter.parts import Part
from crossmatch.adapter.peft_format import PREFIX, module_targets, plain_config
from crossmatch.checkpoint import (
    MANIFEST,
    Checkpoint,
    Unchanged,
    atomic_directory,
    check_apart,
    input_embedding,
    is_output,
    write_json,
    write_tensors,
)
from crossmatch.delta import Delta, Dense, LowRank, Stack, cat, norm, truncated
from crossmatch.errors import RuleError
from crossmatch.merging.execute import Output
from crossmatch.merging.manifest import made_of, statement
from crossmatch.merging.model_card import write_card
from crossmatch.merging.plan import MergePlan, check_bases
from crossmatch.merging.side_files import of_tokenizer, side_files
from crossmatch.result_kinds import MERGE_MANIFEST
from crossmatch.results.merging import AdapterFormJson, DigestsJson, MergeManifestJson, MergePredicateJson
from crossmatch.rules import Combined
from crossmatch.runtime import SILENT, Progress


@dataclass(frozen=True)
class _Factors:
    """One tensor's factors, b: (..., d_out, r), a: (..., r, d_in) for a stack of experts, scale 1; error: Frobenius
    norm of what is not in them; size: norm of the delta."""

    parts: tuple[LowRank, ...]
    error: float
    size: float


def merge_factors(
    plan: MergePlan,
    out: str | Path,
    *,
    rank: int | None = None,
    output: Output | None = None,
    progress: Progress = SILENT,
) -> MergeManifestJson:
    """Write the combined delta as a PEFT adapter of scaling 1, and return its manifest.

    Without `rank` the sum is exact: B = [w_1 s_1 B_1 | w_2 s_2 B_2 | ...], A = [A_1; A_2; ...], of rank sum_i r_i, in
    float32 (the only rounding is that of w s B). With `rank`, the best approximation of that rank; the error that it
    costs is in the manifest, for every tensor and in all. Every module has the same rank, filled up with zeros, so that
    servers without rank patterns can load it. Raises RuleError for what an adapter cannot hold: a full-rank result,
    DoRA, an added vocabulary, and saved modules or tokens that are weighted or more than one adapter's.
    """
    out, output = Path(out), output or Output()
    base, adapters = plan.fit.base.original, _of_factors(plan)
    _check(plan, rank)
    check_apart(out, [base.path, *(a.path for a in adapters.values())])
    if not output.any_base:
        check_bases(base, adapters)
    inputs = Unchanged([*base.layout.files, *(file for a in adapters.values() for file in a.paths)])
    sides = side_files(plan, output.tokenizer)
    # Under the names of the model, which PEFT uses, not those of the base's file.
    fitted = {name: plan.fit.vectors[name].by_source(adapter) for name, adapter in adapters.items()}
    vector = Combined(fitted, plan.vector.weights, plan.vector.recipe)
    tensors: dict[str, Tensor] = {}
    errors: dict[str, dict[str, float]] = {}
    writer = _Writer(adapters, fitted, vector)
    with progress.task("combine", len(vector)) as task:
        found = {}
        for name in vector:
            if writer.holds_factors(name):
                found[name] = _factors(name, vector[name], rank)
                errors[name] = {"error": found[name].error, "norm": found[name].size}
            else:
                tensors |= writer.plain(name)
            task.advance(1, name)
    width = max((p.rank for f in found.values() for p in f.parts), default=1)
    for name, factors in found.items():
        tensors |= writer.keys(name, factors, width)
    with atomic_directory(out, overwrite=output.overwrite) as partial:
        digest = write_tensors(partial / WEIGHTS_FILE, dict(sorted(tensors.items())))
        write_json(partial / CONFIG_FILE, writer.config(base, width, away=output.away))
        for name, source in sides.files.items():
            if of_tokenizer(name):
                (partial / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source, partial / name)
        inputs.check()
        subjects: dict[str, DigestsJson] = {WEIGHTS_FILE: {"blake3": digest}}
        predicate: MergePredicateJson = {
            **made_of(plan, None if output.away else partial),
            "form": _costs(errors, rank, width),
            "dtypes": ["float32"],
            "verdict": None,
        }
        manifest = statement("urn:crossmatch:merged-adapter:1", subjects, predicate)
        write_card(partial, manifest, "An adapter merged")
        MERGE_MANIFEST.write(partial / MANIFEST, manifest)
    return manifest


def _of_factors(plan: MergePlan) -> dict[str, Adapter | StoredVector]:
    """The parts, if all of them can be in an adapter: adapters, and stored vectors of factors."""
    found: dict[str, Adapter | StoredVector] = {}
    for label, (vector, _) in plan.parts.items():
        if not isinstance(vector, Adapter | StoredVector):
            raise RuleError("only adapters can be merged into an adapter; write a checkpoint (--to checkpoint)")
        if isinstance(vector, StoredVector):
            name = next((name for name, (part,) in vector.parts.items() if part.kind != "low-rank"), None)
            if name is not None:
                raise RuleError(
                    f"vector {label} is no product of factors on {name}, and an adapter holds nothing else; "
                    "write a checkpoint (--to checkpoint)"
                )
        found[label] = vector
    return found


def _check(plan: MergePlan, rank: int | None) -> None:
    if rank is not None and rank < 1:
        raise RuleError(f"--rank {rank}: a rank is at least 1")
    if plan.fit.grown_by is not None:
        raise RuleError(
            f"adapter {plan.fit.grown_by} adds tokens to the vocabulary, and an adapter without a model of that size "
            "would lose them; write a checkpoint (--to checkpoint)"
        )
    tied = plan.fit.base.original.tied
    if plan.fit.base.tied != tied or (tied and _on_embeddings(plan)):
        raise RuleError("the base ties its embeddings, and PEFT would not: write a checkpoint (--to checkpoint)")


def _on_embeddings(plan: MergePlan) -> bool:
    """Whether factors or saved layers lie on an embedding; trainable tokens PEFT ties by itself."""
    names = {input_embedding(plan.fit.base.tensors), *filter(is_output, plan.vector)}
    return any(name in v and v.kinds(name) != ("tokens",) for name in names if name for v in plan.fit.vectors.values())


def _factors(name: str, delta: Delta, rank: int | None) -> _Factors:
    parts = delta.parts if isinstance(delta, Stack) else (delta,)
    done, lost, size = [], 0.0, 0.0
    for part in parts:
        if not isinstance(part, LowRank):
            raise RuleError(f"{name}: the result is not of low rank; write a checkpoint (--to checkpoint)")
        kept = part if rank is None else truncated(part, rank)[0]
        stored = LowRank((kept.b.double() * kept.scale).float(), kept.a.float(), torch.ones_like(kept.scale), kept.dims)
        lost = math.hypot(lost, norm(cat([part, stored.scaled(-1.0)])))
        size = math.hypot(size, norm(part))
        done.append(stored)
    return _Factors(tuple(done), lost, size)


def _costs(errors: Mapping[str, Mapping[str, float]], rank: int | None, width: int) -> AdapterFormJson:
    """What the form costs: relative Frobenius error in all and of the worst tensor (None: nothing is there)."""
    total = math.hypot(*(e["norm"] for e in errors.values()))
    shares = {name: e["error"] / e["norm"] for name, e in errors.items() if e["norm"] > 0}
    worst = max(shares, key=lambda name: shares[name], default=None)
    return {
        "rank": width,
        "exact": rank is None,
        "relative_error": math.hypot(*(e["error"] for e in errors.values())) / total if total else None,
        "worst": {"tensor": worst, "relative_error": shares[worst]} if worst is not None else None,
    }


class _Writer:
    """PEFT's keys and config for a combination of adapters."""

    def __init__(
        self, vectors: Mapping[str, Adapter | StoredVector], fitted: Mapping[str, Fitted], vector: Combined
    ) -> None:
        self.vectors, self.fitted, self.vector = vectors, fitted, vector
        self.adapters = {label: v for label, v in vectors.items() if isinstance(v, Adapter)}
        self.modules: set[str] = set()
        self.biased = any(part.kind == "bias" for v in vectors.values() for ps in v.parts.values() for part in ps)
        self.saved: set[str] = set()
        self.tokens: dict[str, list[int]] = {}
        self.parameters: set[str] = set()

    def _is_turned(self, name: str) -> bool:
        return any(v.turned(name) for v in self.fitted.values() if name in v)

    def _parts(self, name: str) -> list[tuple[str, Part]]:
        used = [label for label, _ in self.vector.parts(name)]
        return [(label, part) for label in used for part in self.vectors[label].parts[name]]

    def holds_factors(self, name: str) -> bool:
        """Whether a tensor's change is written as factors. Raises RuleError for DoRA."""
        kinds = {part.kind for _, part in self._parts(name)}
        if "dora" in kinds:
            raise RuleError(f"{name}: a sum with DoRA is not of low rank; write a checkpoint (--to checkpoint)")
        return bool(kinds & {"low-rank", "experts"})

    def plain(self, name: str) -> dict[str, Tensor]:
        """Tensors that are written as they are: a bias; a saved module or tokens of a single adapter at weight one."""
        parts = self._parts(name)
        if {part.kind for _, part in parts} == {"bias"}:
            delta = self.vector[name]
            dense = delta.rows(0, 1, torch.float64)[0].float() if not isinstance(delta, Dense) else delta.tensor.float()
            value = dense * delta.scale if isinstance(delta, Dense) else dense
            return {f"{PREFIX}{name.removesuffix('.bias')}.lora_B.bias": value}
        if len(self.vector.parts(name)) != 1 or self.vector.parts(name)[0][1] != 1.0:
            raise RuleError(
                f"{name} is a saved module or trained tokens: an adapter holds it from one adapter at weight one "
                "only; write a checkpoint (--to checkpoint)"
            )
        label = parts[0][0]
        adapter = self.adapters[label]
        module = name.rpartition(".")[0]
        for _, part in parts:
            if part.kind == "tokens":
                self.tokens[module] = list(adapter.config.tokens_of(module) or ())
            elif adapter.config.saved:
                self.saved.add(module)
            else:
                raise RuleError(
                    f"{name} was trained whole beside the factors (bias); write a checkpoint (--to checkpoint)"
                )
        return {key: adapter.files[key] for _, part in parts for key in part.keys}

    def keys(self, name: str, factors: _Factors, width: int) -> dict[str, Tensor]:
        """The keys of one tensor's factors, filled up to the common rank."""
        kept = [p for _, p in self._parts(name) if p.kind in ("low-rank", "experts")]
        part = next((p for p in kept if any("lora_embedding" in key for key in p.keys)), kept[0])
        padded = [_padded(p, width) for p in factors.parts]
        if part.kind == "experts":
            return self._experts(name, part, padded)
        module = name.removesuffix(".weight")
        self.modules.add(module)
        (b, a), dims = padded[0], factors.parts[0].dims
        if any("lora_embedding" in key for key in part.keys) or input_embedding([name]) == name:
            if self.biased:
                raise RuleError(f"{name}: PEFT loads no embedding factors beside LoRA biases; write a checkpoint")
            return {f"{PREFIX}{module}.lora_embedding_A": b.T, f"{PREFIX}{module}.lora_embedding_B": a.T}
        if self._is_turned(name):
            b, a = a.T, b.T
        if dims is not None:
            b, a = b.reshape(*b.shape, *(1 for _ in dims[2:])), a.reshape(width, *dims[1:])
        result = {f"{PREFIX}{module}.lora_A.weight": a, f"{PREFIX}{module}.lora_B.weight": b}
        if self.biased and f"{module}.bias" not in self.vector:
            result[f"{PREFIX}{module}.lora_B.bias"] = torch.zeros(b.shape[0])
        return result

    def _experts(self, name: str, part: Part, padded: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        # (experts r, d_in) with an expert's rows together, and (d_out, r, experts): PEFT's two orders.
        a = torch.cat([a for _, a in padded])
        b = torch.stack([b for b, _ in padded], dim=2).flatten(1)
        self.parameters.add(".".join(name.split(".")[-3:]))
        place = part.keys[0].removeprefix(PREFIX).partition(".lora_A")[0]
        return {f"{PREFIX}{place}.lora_A.weight": a, f"{PREFIX}{place}.lora_B.weight": b}

    def _peft(self) -> str | None:
        """The version by which experts are read; it must be one for all."""
        versions = {a.config.peft_version for a in self.adapters.values()}
        if self.parameters and len(versions) > 1:
            raise RuleError("adapters on experts were written by different versions of PEFT; write a checkpoint")
        found = next(iter(versions)) if len(versions) == 1 else None
        return ".".join(map(str, found)) if found else None

    def config(self, base: Checkpoint, width: int, *, away: bool) -> dict[str, Any]:
        """adapter_config.json."""
        tasks = {a.config.task for a in self.adapters.values()}
        tokens: Any = self.tokens or None
        if len(self.tokens) == 1 and next(iter(self.tokens)).endswith("embed_tokens"):
            tokens = next(iter(self.tokens.values()))
        return plain_config(base, width, away=away) | {
            "fan_in_fan_out": any(map(self._is_turned, self.vector)),
            "lora_bias": self.biased,
            "modules_to_save": sorted(self.saved) or None,
            "peft_version": self._peft(),
            "target_modules": list(module_targets(self.modules, base.tensors)),
            "target_parameters": sorted(self.parameters) or None,
            "task_type": tasks.pop() if len(tasks) == 1 else None,
            "trainable_token_indices": tokens,
        }


def _padded(part: LowRank, width: int) -> tuple[Tensor, Tensor]:
    more = width - part.rank
    return torch.nn.functional.pad(part.b, (0, more)), torch.nn.functional.pad(part.a, (0, 0, 0, more))
