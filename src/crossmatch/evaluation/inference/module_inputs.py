"""What linear modules take in, and the loss's gradients at what they put out, recorded at sampled tokens.

For a module with weight W (d_out, d_in) and N sampled positions: inputs X (N, d_in), and gradients G (N, d_out) of the
loss with respect to the module's outputs. From them

    X^T X                   Gram matrix of the inputs, (d_in, d_in)
    (G * G)^T (X * X)       diagonal of the empirical Fisher information of W, (d_out, d_in)

The second takes positions as independent: it leaves out the products between two positions of one sequence. Both are
sums over the N positions; for sums over all of them multiply by their number over N.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from crossmatch.checkpoint import disk_error
from crossmatch.data.passages import Passage
from crossmatch.errors import DataError, InputError, OutputError
from crossmatch.results.training import RecordedJson
from crossmatch.runtime import SILENT, Progress

POSITIONS = ("all", "prompt-end", "response")
# The one key of the metadata: safetensors writes several in an order of chance.
_FACTS = "crossmatch"


@dataclass(frozen=True)
class Calibration:
    """What is to be recorded: of which positions, at most how many, of sequences at most how long, and rendered how.

    template: a file with a chat template, or `own:NAME` (None: the tokenizer's own); thinking: its switch; turn_end:
    what stands after a response, as in training. Raises InputError for positions of an unknown kind.
    """

    positions: str = "all"
    max_positions: int = 256
    max_length: int = 2048
    gradients: bool = False
    template: str | None = None
    thinking: bool | None = None
    seed: int = 0
    turn_end: str = "auto"

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS:
            raise InputError(f"positions {self.positions!r}: give one of {', '.join(POSITIONS)}")


def sample(passages: Sequence[Passage], which: str, count: int, seed: int) -> list[list[int]]:
    """At most `count` of the passages' positions of a kind, drawn without replacement; ascending, passage by passage.

    The draw depends on the numbers of positions and the seed alone. Raises DataError if there are none.
    """
    wanted = [passage.positions(which) for passage in passages]
    starts = list(accumulate(map(len, wanted), initial=0))
    if not starts[-1]:
        raise DataError(f"the data holds no position of the kind {which!r}")
    drawn = torch.randperm(starts[-1], generator=torch.Generator().manual_seed(seed))[:count].sort().values
    bounds = torch.searchsorted(drawn, torch.tensor(starts)).tolist()
    return [
        [positions[i - start] for i in drawn[bounds[n] : bounds[n + 1]].tolist()]
        for n, (positions, start) in enumerate(zip(wanted, starts[:-1], strict=True))
    ]


def linear_modules(model: nn.Module) -> list[str]:
    """Names of the modules that compute x W^T or, where the weight is stored transposed, x W."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def record(
    model: Any,
    passages: Sequence[Passage],
    modules: Sequence[str],
    *,
    positions: Sequence[Sequence[int]],
    gradients: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Tensor]:
    """`<module>.inputs` (N, d_in) and, if wanted, `<module>.gradients` (N, d_out) of a causal model, float32 on CPU.

    positions: for each passage its sampled positions, ascending, N in all; rows lie in this order. Row n of a module's
    gradients is dL/dy_n: y_n is the module's output at position n, and L the sum of the negative log-likelihoods of
    the tokens that the passage's stage learns, all but the first of a text and the response of a dialogue. L is that of
    the row's own sequence, whole: one y_n acts on all later tokens. At a sequence's last position it is zero.

    One passage goes through the model at a time, so that no padding and no batch size can change a row; passages
    without a sampled position are passed over, and without gradients a passage is read no further than its last one.
    Of what a module sees only the sampled rows are kept. Raises InputError for a module that does not see every token
    exactly once, and for values that are not finite.
    """
    # The output embedding, the largest product of all, is only computed where something depends on it.
    prefix = model.base_model_prefix + "."
    body = model if gradients or not all(name.startswith(prefix) for name in modules) else model.base_model
    chosen = [(passage, list(rows)) for passage, rows in zip(passages, positions, strict=True) if rows]
    with (
        _tapped(model, modules, gradients) as taps,
        torch.set_grad_enabled(gradients),
        progress.task("record", len(chosen)) as task,
    ):
        for passage, rows in chosen:
            ids = torch.tensor([passage.ids if gradients else passage.ids[: rows[-1] + 1]], device=model.device)
            for tap in taps:
                tap.expect(rows, ids.shape[1])
            output = body(input_ids=ids, use_cache=False)
            if gradients:
                first = max(1, passage.prompt)
                logits = output.logits[0, first - 1 : -1].float()
                cross_entropy(logits, ids[0, first:], reduction="sum").backward()
            task.advance()
    return {f"{tap.name}.{kind}": rows for tap in taps for kind, rows in tap.take().items()}


def check_file(file: Path, overwrite: bool) -> None:
    """Raise OutputError if `file` exists; with `overwrite` it may be an earlier recording, and nothing else."""
    if not file.exists():
        return
    if not overwrite or not file.is_file():
        raise OutputError(f"{file} exists; choose another output, or replace an earlier recording with --overwrite")
    try:
        with safe_open(file, "pt") as stream:
            ours = _FACTS in (stream.metadata() or {})
    except SafetensorError:
        ours = False
    if not ours:
        raise OutputError(f"{file} is no earlier recording of crossmatch and is not overwritten")


def save(file: Path, tensors: dict[str, Tensor], facts: RecordedJson) -> None:
    """Write tensors, and facts as JSON in the metadata, beside `file`, then rename. Raises OutputError."""
    partial = file.with_name(f".{file.name}.crossmatch-partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, {_FACTS: json.dumps(facts, sort_keys=True)})
        partial.replace(file)
    except OSError as error:
        raise disk_error(error, file) from error
    except SafetensorError as error:
        raise OutputError(f"{file} cannot be written: {error}; nothing was left there") from error
    finally:
        with suppress(OSError):
            partial.unlink()


class _Tap:
    """A forward hook that keeps the expected rows of what its module takes in, and of the gradient at its output."""

    def __init__(self, name: str, gradients: bool) -> None:
        self.name = name
        self.kept: dict[str, list[Tensor]] = {"inputs": [], "gradients": []} if gradients else {"inputs": []}
        self.rows: list[int] = []
        self.length = self.passages = 0

    def expect(self, rows: list[int], length: int) -> None:
        """Announce the next sequence: which of its `length` rows are to be kept."""
        self.rows, self.length = rows, length
        self.passages += 1

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._keep("inputs", args[0])
        if "gradients" in self.kept:
            # The weights are frozen: the graph begins at the first tapped output.
            if not output.requires_grad:
                output.requires_grad_()
            output.register_hook(lambda gradient: self._keep("gradients", gradient))

    def _keep(self, kind: str, values: Tensor) -> None:
        values = values.detach().reshape(-1, values.shape[-1])
        if len(values) != self.length:
            raise self._error("does not see every token once, as an expert of a mixture; leave it out")
        self.kept[kind].append(values[self.rows].float().cpu())

    def take(self) -> dict[str, Tensor]:
        """All rows by kind; what was kept for them is given up."""
        if any(len(parts) != self.passages for parts in self.kept.values()):
            raise self._error("does not see every token once, as a module that layers share; leave it out")
        taken = {kind: torch.cat(self.kept.pop(kind)) for kind in list(self.kept)}
        if not all(rows.isfinite().all() for rows in taken.values()):
            raise self._error("sees NaN or infinite values on this data; the model is broken there")
        return taken

    def _error(self, why: str) -> InputError:
        return InputError(f"module {self.name} {why}")


@contextmanager
def _tapped(model: nn.Module, modules: Sequence[str], gradients: bool) -> Iterator[list[_Tap]]:
    """Taps on the modules while the block runs, with all weights frozen, so that no gradient is formed for them."""
    taps = [_Tap(name, gradients) for name in modules]
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles = [model.get_submodule(tap.name).register_forward_hook(tap) for tap in taps]
    try:
        for parameter in learnt:
            parameter.requires_grad_(False)
        yield taps
    finally:
        for handle in handles:
            handle.remove()
        for parameter in learnt:
            parameter.requires_grad_(True)
