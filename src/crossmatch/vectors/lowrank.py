"""A fine-tune as a PEFT adapter: the best factors of each matrix's change, the rest exactly, the error measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from crossmatch.adapter import CONFIG_FILE, WEIGHTS_FILE
from crossmatch.adapter.peft_format import PREFIX, module_targets, plain_config
from crossmatch.adapter.tensor_names import CONV1D
from crossmatch.checkpoint import (
    MANIFEST,
    Checkpoint,
    Unchanged,
    atomic_directory,
    check_apart,
    expert_of,
    input_embedding,
    is_output,
    module_type_of,
    write_json,
)
from crossmatch.delta import top_singular
from crossmatch.errors import CheckpointError, RuleError
from crossmatch.result_kinds import VECTOR_MANIFEST
from crossmatch.results.vectors import LowRankFormJson, MatrixFormJson, VectorFactsJson, VectorManifestJson
from crossmatch.runtime import SILENT, Progress, in_order, single_threads
from crossmatch.vectors.checkpoint_pair import Pair, Site, pair_checkpoints
from crossmatch.vectors.extract import Changes, find_changes, pair_facts
from crossmatch.vectors.vector_file import Entry, copy_text_files, statement, write_entries

PREDICATE = "urn:crossmatch:extracted-adapter:1"
# Modules whose weight is a matrix and that are no linear layers.
_TABLES = ("emb", "wte", "wpe")
_GATES = ("gate", "router")


@dataclass(frozen=True)
class LowRankForm:
    """What is kept of each matrix: the best `rank` triples; or as few as hold the share `energy` of its squared norm
    (at most `rank`, if both are given). seed: of the random sketches."""

    rank: int | None = None
    energy: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank is None and self.energy is None:
            raise RuleError("give a rank, or a share of energy")
        if self.rank is not None and self.rank < 1:
            raise RuleError(f"--rank {self.rank}: a rank is at least 1")
        if self.energy is not None and not 0 < self.energy < 1:
            raise RuleError(f"--energy {self.energy}: give a share between 0 and 1, as in 0.99")


@dataclass(frozen=True)
class _Matrix:
    """Factors of one change: b: (rows, r), a: (r, columns), float32; norm of the change; error: norm of what the stored
    factors leave, measured; bound: on its largest singular value."""

    b: Tensor
    a: Tensor
    norm: float
    error: float
    bound: float

    def to_dict(self) -> MatrixFormJson:
        """Rank and errors, as plain JSON."""
        relative = self.error / self.norm if self.norm > 0 else None
        return {
            "rank": self.a.shape[0],
            "norm": self.norm,
            "error": self.error,
            "relative_error": relative,
            "spectral_bound": self.bound,
        }


@dataclass
class _Sorted:
    """Changed tensors by what an adapter does with them; saved: modules that are stored whole."""

    matrices: list[Site] = field(default_factory=list)
    biases: list[Site] = field(default_factory=list)
    saved: dict[str, list[Site]] = field(default_factory=dict)
    left: list[Site] = field(default_factory=list)


def extract_adapter(
    base: Checkpoint,
    tuned: Checkpoint,
    out: str | Path,
    *,
    form: LowRankForm,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> VectorManifestJson:
    """Write tau = tuned - base as a PEFT adapter of scaling 1, and return its manifest: the reverse of a merge.

    Matrices of linear layers become factors: sqrt(S) on each side of the leading singular triples (Eckart & Young,
    1936), found by a randomised sketch (`crossmatch.delta.top_singular`). The error of each is measured: ||tau - B A||
    with the factors as stored, streamed in float64. Embeddings, norms and gates are saved whole (modules_to_save),
    biases too (bias: all): exact. What no adapter can hold (fused or separate experts, convolutions, bare parameters)
    is left out, named with its share of ||tau||^2, and counted in the error of all. Raises as `extract` does, and
    CheckpointError if no matrix of a linear layer changed.
    """
    out = Path(out)
    check_apart(out, [base.path, tuned.path])
    watched = Unchanged([*base.layout.files, *tuned.layout.files])
    pair = pair_checkpoints(base, tuned)
    with atomic_directory(out, overwrite=overwrite) as partial:
        changes = find_changes(pair, progress)
        sites = _sort(changes)
        found: dict[str, _Matrix] = {}
        with progress.task("decompose", sum(site.elements for site in sites.matrices)) as task:
            for site in sites.matrices:
                found[site.name] = _decompose(pair, site, form)
                task.advance(site.elements, site.name)
        turned = base.config.get("model_type") in CONV1D
        entries, config = _peft(pair, sites, found, turned=turned)
        digest = write_entries(partial / WEIGHTS_FILE, entries)
        write_json(partial / CONFIG_FILE, config)
        with progress.task("digest", None):
            facts = pair_facts(changes, partial)
        watched.check()
        predicate: VectorFactsJson = {
            "made_by": "extract",
            **facts,
            "form": _costs(pair, sites, found, form),
            "text_files": copy_text_files(tuned.path, partial),
        }
        manifest = statement(PREDICATE, {WEIGHTS_FILE: digest}, predicate)
        VECTOR_MANIFEST.write(partial / MANIFEST, manifest)
    return manifest


def _sort(changes: Changes) -> _Sorted:
    found = _Sorted()
    entrance = input_embedding(changes.pair.base.tensors)
    for site in changes.sites:
        module, _, leaf = site.name.rpartition(".")
        kind = module_type_of(site.name)
        table = site.name == entrance or is_output(site.name) or any(word in kind for word in _TABLES)
        whole = table or kind in _GATES or (leaf == "weight" and len(site.shape) == 1)
        if leaf not in ("weight", "bias") or not module or expert_of(site.name) is not None:
            found.left.append(site)
        elif leaf == "bias" and _is_linear(changes.pair, module):
            found.biases.append(site)
        elif whole or leaf == "bias":
            found.saved.setdefault(module, []).append(site)
        elif len(site.shape) == 2:
            found.matrices.append(site)
        else:
            found.left.append(site)
    return found


def _is_linear(pair: Pair, module: str) -> bool:
    weight = pair.base.tensors.get(f"{module}.weight")
    return weight is not None and len(weight.shape) == 2


def _decompose(pair: Pair, site: Site, form: LowRankForm) -> _Matrix:
    """The factors of one matrix's change. In memory: the change in float32, and the sketch."""
    tau = torch.empty(site.rows, site.columns)
    for at in pair.blocks(site):
        tau[slice(*at)] = _tau(pair, site, at, torch.float32)
    generator = torch.Generator().manual_seed(crc32(f"{form.seed}:{site.name}".encode()))
    found = top_singular(tau, form.rank, energy=form.energy, generator=generator)
    root = found.s.sqrt()
    b = (found.u.double() * root).float().contiguous()
    a = (root[:, None] * found.vh.double()).float().contiguous()
    error = squares = 0.0
    with single_threads():
        for left, whole in in_order(lambda at: _residual(tau, b, a, at), pair.blocks(site)):
            error, squares = error + left, squares + whole
    return _Matrix(b, a, math.sqrt(squares), math.sqrt(error), float(found.spectral or 0.0))


def _tau(pair: Pair, site: Site, at: tuple[int, int], dtype: torch.dtype) -> Tensor:
    ours, theirs = pair.rows(site, *at)
    return theirs.to(dtype) - ours.to(dtype)


def _residual(tau: Tensor, b: Tensor, a: Tensor, at: tuple[int, int]) -> tuple[float, float]:
    rows = tau[slice(*at)].double()
    left = torch.addmm(rows, b[slice(*at)].double(), a.double(), alpha=-1.0)
    return float(left.square().sum()), float(rows.square().sum())


def _peft(
    pair: Pair, sites: _Sorted, found: Mapping[str, _Matrix], *, turned: bool
) -> tuple[list[Entry], dict[str, Any]]:
    """The tensors of adapter_model.safetensors, and adapter_config.json."""
    tuned, entries = pair.tuned, []
    for name, matrix in found.items():
        b, a = (matrix.a.T.contiguous(), matrix.b.T.contiguous()) if turned else (matrix.b, matrix.a)
        module = PREFIX + name.removesuffix(".weight")
        entries += [Entry.of(f"{module}.lora_A.weight", a), Entry.of(f"{module}.lora_B.weight", b)]
    modules = {name.removesuffix(".weight") for name in found}
    saved = {name: name for module in sites.saved for name in tuned.tensors if name.rpartition(".")[0] == module}
    entrance = input_embedding(pair.base.tensors)
    shared = any(site.shared for group in sites.saved.values() for site in group)
    if shared:
        # Both of the tied ones: an adapter on one alone would pull them apart.
        saved["lm_head.weight"] = str(entrance)
    if sites.biases:
        for name in tuned.tensors:
            module, _, leaf = name.rpartition(".")
            if leaf == "bias" and name not in saved:
                saved[f"{module}.base_layer.bias" if module in modules else name] = name
    entries += [Entry.stored(f"{PREFIX}{key}", tuned, name) for key, name in saved.items()]
    ranks = {name.removesuffix(".weight"): matrix.a.shape[0] for name, matrix in found.items()}
    widest = max(ranks.values(), default=1)
    pattern = {module: rank for module, rank in ranks.items() if rank != widest}
    named = {name.rpartition(".")[0] for name in saved if ".base_layer." not in name}
    architectures = pair.base.config.get("architectures") or [""]
    config = plain_config(pair.base, widest) | {
        "alpha_pattern": pattern,
        "rank_pattern": pattern,
        "bias": "all" if sites.biases else "none",
        "ensure_weight_tying": shared,
        "fan_in_fan_out": turned,
        "modules_to_save": sorted(named & set(sites.saved) | ({"lm_head"} & named)) or None,
        "target_modules": list(module_targets(modules, pair.base.tensors)) or _nothing(pair),
        "task_type": "CAUSAL_LM" if str(architectures[0]).endswith(("ForCausalLM", "LMHeadModel")) else None,
    }
    return sorted(entries, key=lambda entry: entry.key), config


def _nothing(pair: Pair) -> list[str]:
    raise CheckpointError(
        f"{pair.tuned.path}: no matrix of a linear layer changed, and an adapter needs one; extract it dense"
    )


def _costs(pair: Pair, sites: _Sorted, found: Mapping[str, _Matrix], form: LowRankForm) -> LowRankFormJson:
    """What the form costs: relative Frobenius error of each matrix and in all; shares of ||tau||^2 that are carried
    exactly and left out."""
    exact = [*sites.biases, *(site for group in sites.saved.values() for site in group)]
    kept = {site.name: _energy(pair, site) for site in exact}
    left = {site.name: _energy(pair, site) for site in sites.left}
    total = sum(m.norm**2 for m in found.values()) + sum(kept.values()) + sum(left.values())
    lost = sum(m.error**2 for m in found.values()) + sum(left.values())
    tensors = {name: matrix.to_dict() for name, matrix in found.items()}
    worst = max(found, key=lambda name: found[name].error / found[name].norm, default=None)
    ranks = sorted(matrix.a.shape[0] for matrix in found.values())
    return {
        "matrices": len(found),
        "rank": max(ranks, default=None),
        "ranks": [min(ranks, default=None), max(ranks, default=None)],
        "wanted": {"rank": form.rank, "energy": form.energy, "seed": form.seed},
        "relative_error": math.sqrt(lost / total),
        "worst": {"tensor": worst, "relative_error": tensors[worst]["relative_error"]} if worst else None,
        "exact": sorted(kept),
        "exact_energy": sum(kept.values()) / total,
        "left_out": {name: energy / total for name, energy in left.items()},
        "tensors": tensors,
    }


def _energy(pair: Pair, site: Site) -> float:
    blocks = in_order(lambda at: float(_tau(pair, site, at, torch.float64).square().sum()), pair.blocks(site))
    return sum(blocks)
