"""A tuning vector as a directory: a safetensors file and a manifest. What is in it keeps its form.

Keys of the file: `delta/NAME`, a dense delta; `shared/NAME`, one of two tied embeddings, which acts on both; `b/NAME`
and `a/NAME`, factors, with a first axis more for experts; `scale/NAME`, float64, one number for a dense delta and one
for each factor column else; `added/NAME`, rows that a vocabulary has gained, and `first/NAME`, the row behind which.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from crossmatch.adapter.adapter import Adapter
from crossmatch.adapter.config import CONFIG_FILE
from crossmatch.adapter.on_disk import Recorded
from crossmatch.adapter.parts import Part
from crossmatch.checkpoint import MANIFEST, TensorFiles, check_links, locate, read_json
from crossmatch.delta import Delta, LowRank, Stack, is_finite
from crossmatch.errors import AdapterError

VECTOR_FILE = "vector.safetensors"
VECTOR = "urn:crossmatch:vector:1"
DENSE_KEYS = ("delta", "shared")
# Of weights and scales: the squares of what they multiply are still numbers.
LARGEST = 1e30
# Rows of an embedding.
_MOST_TOKENS = 1 << 28
_KEYS = (*DENSE_KEYS, "b", "a", "scale", "added", "first")
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class StoredDense(Delta):
    """D = s T for a tensor T that stays in its file: rows are read when they are asked for.

    key: T's in `files` (None: T is zero); dims: shape of D, which may have more rows than T, zeros.
    """

    files: TensorFiles
    key: str | None
    dims: tuple[int, ...]
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of D."""
        return self.dims

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop], computed in `dtype`. Raises AdapterError for values that are not finite."""
        del base
        if self.key is None:
            return torch.zeros(stop - start, self.columns, dtype=dtype)
        held = self.files.tensors[self.key].elements // max(1, self.columns)
        first, last = min(start, held), min(stop, held)
        found = self.files.rows(self.key, first, last, self.columns)
        if not is_finite(found):
            raise AdapterError(f"{self.key} in {VECTOR_FILE} holds NaN or infinite values; extract the vector again")
        block = found.to(dtype) * self.scale
        missing = (stop - start) - (last - first)
        return block if not missing else torch.cat([block, torch.zeros(missing, self.columns, dtype=dtype)])


class StoredVector(Recorded):
    """A tuning vector in a directory: tensor name -> delta, read from its file when asked for.

    parts: name -> its one part, of kind delta, shared, low-rank or experts; added: name -> (first row, key) of rows
    that a vocabulary has gained. Accepts a path or a hub id. Raises AdapterError for a directory that holds none, and
    for a file whose keys do not make deltas.
    """

    def __init__(self, source: str | Path) -> None:
        super().__init__(source)
        file = self.path / VECTOR_FILE
        if not is_vector(self.path):
            raise AdapterError(f"{self.path} holds no tuning vector; crossmatch vectors extract makes one")
        if not file.exists():
            raise AdapterError(f"{self.path} is a tuning vector without its {VECTOR_FILE}; fetch or make it again")
        self.paths = (file,)
        self.files = TensorFiles([file])
        self.added: dict[str, tuple[int, str]] = {}
        self.parts = {name: (self._part(name, keys),) for name, keys in self._by_name().items()}

    def _by_name(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for key, info in self.files.tensors.items():
            kind, slash, name = key.partition("/")
            if not slash or kind not in _KEYS or not name:
                raise AdapterError(f"{info.file}: {key} is no tensor of a tuning vector; refused rather than dropped")
            if info.dtype not in (torch.int64,) * (kind == "first") + _FLOATS * (kind != "first"):
                raise AdapterError(f"{info.file}: {key} is stored as {info.dtype}, which no tuning vector is")
            found.setdefault(name, set()).add(kind)
        return found

    def _part(self, name: str, keys: set[str]) -> Part:
        kinds = keys - {"added", "first"}
        if kinds == {"b", "a", "scale"} and kinds == keys:
            return self._factors(name)
        if len(keys & {"added", "first"}) != 1 and kinds - {"scale"} in ({"delta"}, {"shared"}, set()):
            dense = next(iter(kinds - {"scale"}), None)
            if dense is not None or keys == {"added", "first"}:
                return self._dense(name, dense, "scale" in kinds, grown="added" in keys)
        raise AdapterError(f"{self.paths[0]}: {', '.join(sorted(keys))} of {name} do not make one delta; make it again")

    def _dense(self, name: str, kind: str | None, is_scaled: bool, *, grown: bool) -> Part:
        key = f"{kind}/{name}" if kind else None
        shape = self.files.tensors[key].shape if key else (0,)
        if grown:
            rows, first = self.files.tensors[f"added/{name}"].shape, self._number(f"first/{name}")
            if len(rows) != 2 or not 0 <= first <= _MOST_TOKENS or (key and shape != (first, rows[1])):
                raise AdapterError(f"{self.paths[0]}: the rows added to {name} do not fit the others; make it again")
            self.added[name] = (int(first), f"added/{name}")
            shape = (int(first) + rows[0], rows[1])
        scale = self._number(f"scale/{name}") if is_scaled else 1.0
        build = partial(StoredDense, self.files, key, shape, float(scale))
        return Part(kind or "delta", shape, (key,) if key else (), build)

    def _number(self, key: str) -> float:
        info = self.files.tensors[key]
        value = self.files[key].item() if info.shape == () else math.nan
        if not math.isfinite(value) or (key.startswith("scale/") and abs(value) > LARGEST):
            raise AdapterError(f"{info.file}: {key} is no number that can be used; make the vector again")
        return value

    def _factors(self, name: str) -> Part:
        b, a, scale = (self.files.tensors[f"{kind}/{name}"] for kind in ("b", "a", "scale"))
        rank = scale.shape[-1:]
        stacked = len(b.shape) == 3
        one = (b.shape[1:], a.shape[1:]) if stacked else (b.shape, a.shape)
        fits = len(one[0]) == 2 and len(one[1]) >= 2 and one[0][1:] == one[1][:1] == rank
        fits = fits and len(scale.shape) == 1 + stacked and scale.dtype == torch.float64
        if stacked:
            fits = fits and len(a.shape) == 3 and b.shape[0] == a.shape[0] == scale.shape[0] > 0
        if not fits:
            shapes = f"{list(b.shape)}, {list(a.shape)} and {list(scale.shape)}"
            raise AdapterError(f"{b.file}: the factors of {name} do not fit each other ({shapes}); make it again")
        dims = (one[0][0], *one[1][1:])
        kind = "experts" if stacked else "low-rank"
        shape = (b.shape[0], *dims) if stacked else dims
        return Part(kind, shape, (f"a/{name}", f"b/{name}"), partial(self._low_rank, name, stacked))

    def _low_rank(self, name: str, stacked: bool) -> Delta:
        b, a, scale = (self._finite(f"{kind}/{name}") for kind in ("b", "a", "scale"))
        if float(scale.abs().max() if scale.numel() else 0.0) > LARGEST:
            raise AdapterError(f"{self.paths[0]}: scale/{name} is no number that can be used; make the vector again")
        if stacked:
            return Stack(tuple(LowRank(b[i], a[i], scale[i]) for i in range(len(b))))
        dims = (b.shape[0], *a.shape[1:]) if a.ndim > 2 else None
        return LowRank(b, a.flatten(1), scale, dims)

    def _finite(self, key: str) -> Tensor:
        tensor = self.files[key]
        if not is_finite(tensor):
            raise AdapterError(f"{self.paths[0]}: {key} holds NaN or infinite values; make the vector again")
        return tensor


def open_vector(source: str | Path) -> Adapter | StoredVector:
    """What lies at a path or hub id: a PEFT adapter (adapter_config.json) or a stored vector (by its manifest).

    Raises AdapterError if it is neither.
    """
    found = locate(source)
    if (found.path / CONFIG_FILE).exists() or not is_vector(found.path):
        return Adapter(source)
    return StoredVector(source)


def is_vector(directory: Path) -> bool:
    """Whether a directory is a stored vector, by its manifest. Raises CheckpointError for links that lead out of it."""
    check_links(directory)
    file = directory / MANIFEST
    return file.is_file() and read_json(file).get("predicateType") == VECTOR
