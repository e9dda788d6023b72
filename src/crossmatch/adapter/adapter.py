"""A PEFT LoRA directory, read as a tuning vector."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch

from crossmatch.adapter.config import CONFIG_FILE, read_config
from crossmatch.checkpoint import MANIFEST, TensorFiles, file_digest, files_digest, locate, read_json
from crossmatch.delta import LowRank, TuningVector, low_rank
from crossmatch.errors import AdapterError

WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Files of PEFT before 0.3 and raw state dicts carry the adapter's name after lora_A.
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<factor>[AB])(\.[^.]+)?\.weight$")
_REFUSED = {
    "lora_magnitude_vector": "a DoRA magnitude",
    "lora_embedding_": "an embedding LoRA factor",
    "lora_B.bias": "a LoRA bias",
    "modules_to_save": "a saved module",
    "token_adapter": "trainable tokens",
}


class Adapter(TuningVector):
    """A LoRA adapter: tensor name -> LowRank(B, A, scaling), read from its file when asked for.

    The scaling is alpha/r, or alpha/sqrt(r) for rsLoRA, with rank_pattern and alpha_pattern. Names are those of the
    base checkpoint's tensors. Accepts a path or a hub id. Raises AdapterError for what is not understood.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = locate(source)
        self.path = self.source.path
        self.config = read_config(self.path)
        file = self.path / WEIGHTS_FILE
        if not file.exists():
            pickled = self.path / "adapter_model.bin"
            hint = (
                f"only {pickled.name}, a pickle that can run code; load it with PEFT and save_pretrained it again"
                if pickled.exists()
                else f"no {WEIGHTS_FILE}"
            )
            raise AdapterError(f"{self.path} holds {hint}")
        self.files = TensorFiles([file])
        self._factors = _pair(self.files, file)
        self.terms = ((1.0, self),)

    def __getitem__(self, name: str) -> LowRank:
        module, key_a, key_b = self._factors[name]
        a, b = self.files[key_a], self.files[key_b]
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise AdapterError(f"{self.path}: the factors of {module} hold NaN or infinite values; train it again")
        delta = low_rank(b, a, self.config.scaling(module))
        if delta.rank != self.config.rank(module):
            raise AdapterError(
                f"{self.path}: {module} has rank {delta.rank} in the file, "
                f"{self.config.rank(module)} by {CONFIG_FILE}; one of the two is not this adapter's"
            )
        return LowRank(delta.a.T, delta.b.T, delta.scale) if self.config.fan_in_fan_out else delta

    def __iter__(self) -> Iterator[str]:
        return iter(self._factors)

    def __len__(self) -> int:
        return len(self._factors)

    def __contains__(self, name: object) -> bool:
        return name in self._factors

    def shape(self, name: str) -> tuple[int, int]:
        """(d_out, d_in) of the stored tensor that a delta belongs to, from headers alone."""
        _, key_a, key_b = self._factors[name]
        rows, columns = self.files.tensors[key_b].shape[0], self.files.tensors[key_a].shape[1]
        return (columns, rows) if self.config.fan_in_fan_out else (rows, columns)

    @cached_property
    def trained_on(self) -> str | None:
        """Digest of the base that the training record beside the adapter names, or None without a record."""
        file = self.path / MANIFEST
        base = read_json(file).get("base") if file.exists() else None
        digest = base.get("digest") if isinstance(base, dict) else None
        return digest if isinstance(digest, str) else None

    @cached_property
    def file_digests(self) -> dict[str, str]:
        """blake3 of the weights and of the config, by file name."""
        return {name: file_digest(self.path / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}

    @cached_property
    def digest(self) -> str:
        """One digest of the adapter: of its two files."""
        return files_digest(self.file_digests)


def _pair(files: TensorFiles, file: Path) -> dict[str, tuple[str, str, str]]:
    found: dict[str, dict[str, str]] = {}
    for key, info in files.tensors.items():
        for mark, what in _REFUSED.items():
            if mark in key:
                raise AdapterError(f"{file}: {key} is {what}, which is not supported; refused rather than dropped")
        match = _FACTOR.match(key)
        if match is None:
            raise AdapterError(f"{file}: {key} is no LoRA factor, which is not supported; refused rather than dropped")
        if len(info.shape) != 2:
            raise AdapterError(f"{file}: {key} has shape {list(info.shape)}; only linear layers are supported")
        factors = found.setdefault(match["module"].removeprefix(_PREFIX), {})
        if match["factor"] in factors:
            raise AdapterError(
                f"{file}: {key} and {factors[match['factor']]} are both lora_{match['factor']} of a module"
            )
        factors[match["factor"]] = key
    if not found:
        raise AdapterError(f"{file} holds no tensors; the adapter was saved empty")
    pairs = {}
    for module, keys in found.items():
        if set(keys) != {"A", "B"}:
            missing = ({"A", "B"} - set(keys)).pop()
            raise AdapterError(f"{file}: {module} has no lora_{missing}; the adapter is incomplete, save it again")
        pairs[f"{module}.weight"] = (module, keys["A"], keys["B"])
    return pairs
