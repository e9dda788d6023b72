"""The weights of a loaded model, changed in place by the tensor names of the file that it was loaded from.

A model does not always hold what its file holds: names differ, and experts that lie apart in the file are one parameter
in memory. transformers says how it leads from one to the other, and what it said when it loaded the model is used here.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from crossmatch.checkpoint import Checkpoint
from crossmatch.delta import Delta, LowRank, merged_rows
from crossmatch.errors import AdapterError

# Bytes of a base that is kept in memory beside the model.
_KEPT = 4 << 30


class InPlace:
    """Parameters of a model by the names of its file.

    stored: dtype of the checkpoints whose weights they become (None: the base's own). known: names of the file that are
    in the model, alone or as a part of a parameter.
    """

    def __init__(self, model: Any, base: Checkpoint, stored: torch.dtype | None) -> None:
        self.model, self.base, self.stored = model, base, stored
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._buffers = dict(model.named_buffers())
        conversions = getattr(model, "_weight_conversions", None) or []
        self._converters = {
            pattern: conversion
            for conversion in conversions
            if isinstance(conversion, WeightConverter)
            for pattern in conversion.source_patterns
        }
        renamings = [conversion for conversion in conversions if isinstance(conversion, WeightRenaming)]
        self._places: dict[str, str] = {}
        self._groups: dict[str, list[tuple[str, str]]] = {}
        converters = [conversion for conversion in conversions if isinstance(conversion, WeightConverter)]
        held = dict(model.state_dict(keep_vars=True))
        for name in base.tensors:
            target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, held)
            if pattern is not None:
                self._groups.setdefault(target, []).append((name, pattern))
                self._places[name] = target
            elif target in self._parameters:
                self._places[name] = target
        self.known = frozenset(self._places)
        # Single precision in memory: weights change in a fraction of a second, each element within one rounding.
        single = {info.dtype for info in base.tensors.values()} | {stored or torch.float32, model.dtype}
        on_cpu = next(model.parameters()).device.type == "cpu"
        self._fast = single == {torch.float32} and on_cpu and base.nbytes <= _KEPT
        self._own: dict[str, Tensor] = {}

    def set(self, deltas: Mapping[str, Delta | None]) -> None:
        """Give tensors of the file the value base + delta (None: the base). Raises AdapterError for one that the model
        does not have."""
        groups: dict[str, None] = {}
        for name, delta in deltas.items():
            target = self._places.get(name)
            if target is None:
                raise AdapterError(f"the model has no parameter {name}; it cannot take this adapter in place")
            if target in self._groups:
                groups[target] = None
            else:
                self._write(name, self._parameters[target].data, delta)
        for target in groups:
            self._convert(target, deltas)

    def _write(self, name: str, target: Tensor, delta: Delta | None) -> None:
        columns = delta.columns if delta is not None else self.base.tensors[name].columns
        target = target.view(-1, columns)
        if self._fast and (delta is None or isinstance(delta, LowRank)):
            if name not in self._own:
                self._own[name] = self.base[name].to(target.device)
            target.copy_(self._own[name].view(-1, columns))
            if delta is not None:
                delta.add_to(target, 0, len(target))
            return
        if delta is not None:
            delta = delta.bind(lambda start, stop: self.base.rows(name, start, stop, columns))
        for start, stop in self.base.blocks(name, columns):
            rows = self.base.rows(name, start, stop, columns)
            form = self.stored or rows.dtype
            done = merged_rows(rows, delta, start, stop, form) if delta else rows.to(form)
            target[start:stop].copy_(done)

    def _convert(self, target: str, deltas: Mapping[str, Delta | None]) -> None:
        """A parameter (or several) made of several tensors of the file, all of them read, as on loading."""
        members: Sequence[tuple[str, str]] = sorted(self._groups[target], key=lambda pair: dot_natural_key(pair[0]))
        converter: Any = deepcopy(self._converters[members[0][1]])
        for name, pattern in members:
            info = self.base.tensors[name]
            form = self.stored if self.stored is not None and info.dtype.is_floating_point else info.dtype
            value = torch.empty(info.shape, dtype=form)
            self._write(name, value, deltas.get(name))
            converter.add_tensor(target, name, pattern, value)
        for name, value in converter.convert(target, model=self.model, config=self.model.config).items():
            tensor = value[0] if isinstance(value, list) else value
            held = self._parameters.get(name, self._buffers.get(name))
            if held is None or held.shape != tensor.shape:
                raise AdapterError(f"the model has no parameter {name}; it cannot take this adapter in place")
            held.data.copy_(tensor)
