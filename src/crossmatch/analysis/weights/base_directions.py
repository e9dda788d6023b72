"""The leading singular directions of the base's matrices: computed once, kept on disk, known by what they were made of.

A file of the cache is named by a digest of the matrix's bytes, its shape, orientation and the settings of the sketch;
its own bytes are checked against the digest that it carries when it is read. What does not fit is made anew.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from blake3 import blake3
from torch import Tensor

from crossmatch.analysis.weights.delta_matrix import EXACT, Change
from crossmatch.checkpoint import Checkpoint, TensorFiles, value_digest, write_tensors
from crossmatch.delta import Singular, converged_singular, figure_angle, top_singular
from crossmatch.errors import CrossmatchError, DataError, OutputError

CACHE_VARIABLE = "CROSSMATCH_CACHE"
# Directions in a file: those that are asked for, rounded up to a multiple of this, so that another k finds them again.
STEP = 64
_VERSION = 2
# Figures are off by at most this share of the deviation of a random change, as far as the directions go. The diagonal
# of k pairs asks most: with vectors that are off by an angle e on both sides it is off by 2 e of its deviation.
ACCURACY = 0.01
_CHUNK = 1 << 26


class SpaceFacts(TypedDict):
    """How many directions of one matrix are known, and how good they are."""

    directions: int
    energy: float | None
    k90: int | None
    largest_residual: float | None
    figure_error: float
    left_spectral: float | None
    cached: bool


@dataclass(frozen=True, eq=False)
class Space:
    """Leading singular triples of one base matrix W (d_out, d_in), with what they leave out.

    found: as `Singular`; cached: whether they came from the disk; whole: how many hold 90% of ||W||_F^2, None if that
    is more than are known.
    """

    found: Singular
    cached: bool

    @property
    def k90(self) -> int | None:
        """The smallest k whose triples hold 90% of the energy."""
        enough = (self.found.shares() >= 0.9).nonzero()
        return int(enough[0]) + 1 if len(enough) else None

    def facts(self) -> SpaceFacts:
        """As plain JSON: how many, how good."""
        s, residuals = self.found.s, self.found.residuals
        top = float(s[0]) if len(s) else 0.0
        return {
            "directions": len(s),
            "energy": float(self.found.shares()[-1]) if len(s) else None,
            "k90": self.k90,
            "largest_residual": float(residuals.max()) / top if top > 0 else None,
            "figure_error": 2 * figure_angle(self.found),
            "left_spectral": self.found.spectral,
            "cached": self.cached,
        }


def cache_directory(given: Path | None) -> Path:
    """Where subspaces are kept: `given`, else what CROSSMATCH_CACHE says, else crossmatch/ in the user's cache."""
    if given is not None:
        return given
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "crossmatch"


class Subspaces:
    """Leading singular directions of a base's matrices, from the cache or computed and put there.

    Files appear by a rename, so that several processes may share a directory, and a run that was killed goes on with
    what it had. Raises OutputError if the directory cannot be written.
    """

    def __init__(self, base: Checkpoint, directory: Path) -> None:
        self.base, self.directory = base, directory / "subspaces"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.directory} cannot be made: {error.strerror or error}; --cache DIR") from error

    def of(self, change: Change, k: int, *, most: bool) -> Space:
        """At least k directions (all, if there are fewer) of the matrix that a change lies on.

        most: of a small matrix, as many as hold 90% of its energy, if that is more.
        """
        wanted, small = _extent(change, k, most)
        file = self._file(change, wanted, small)
        found = _read(file, change.place.shape)
        if found is not None:
            return Space(found, cached=True)
        found = self._compute(change, wanted, small, file.stem)
        _write(file, found)
        return Space(found, cached=False)

    def keep(self, change: Change, k: int, found: Singular, *, most: bool) -> None:
        """Put directions that were computed elsewhere where `of` will find them."""
        _write(self._file(change, *_extent(change, k, most)), found)

    def _file(self, change: Change, wanted: int, small: bool) -> Path:
        settings = {"version": _VERSION, "k": wanted, "all": small, "accuracy": ACCURACY}
        settings |= {"shape": list(change.place.shape), "turned": change.turned}
        return self.directory / f"{value_digest({**settings, 'matrix': _digest(self.base, change)})}.safetensors"

    def _compute(self, change: Change, wanted: int, small: bool, key: str) -> Singular:
        rows = change.base.held()
        generator = torch.Generator().manual_seed(int(key[:15], 16))
        try:
            if not small:
                return _single(converged_singular(rows, wanted, angle=ACCURACY / 2, generator=generator))
            every = top_singular(rows, min(rows.height, rows.columns), generator=generator)
        except ValueError as error:
            raise DataError(f"{self.base.path}: {change.tensor}: {error}") from error
        enough = (every.shares() >= 0.9).nonzero()
        return _single(every.first(max(wanted, int(enough[0]) + 1 if len(enough) else wanted)))


def _extent(change: Change, k: int, most: bool) -> tuple[int, bool]:
    """How many directions are kept for k, and whether as many as hold 90% of the energy."""
    least = min(change.place.shape)
    return min(-(-k // STEP) * STEP, least), most and least <= EXACT


def _single(found: Singular) -> Singular:
    # Laid out as they are when they come from the disk: products of the same numbers round alike.
    u, vh = found.u.float().contiguous(), found.vh.float().contiguous()
    return Singular(u, found.s.clone(), vh, found.residuals.clone(), found.energy, found.spectral)


def _digest(base: Checkpoint, change: Change) -> str:
    """blake3 of a matrix as it is stored."""
    info = base.tensors[change.tensor]
    width = change.place.shape[0] if change.turned else change.place.shape[1]
    row = width * info.dtype.itemsize
    start, nbytes = change.first_row * row, change.place.shape[0] * change.place.shape[1] * info.dtype.itemsize
    digest = blake3(str(info.dtype).encode())
    for at in range(start, start + nbytes, _CHUNK):
        digest.update(base.raw(change.tensor, at, min(_CHUNK, start + nbytes - at)))
    return digest.hexdigest()


def _write(file: Path, found: Singular) -> None:
    tensors = {
        "u": found.u,
        "s": found.s,
        "vh": found.vh,
        "residuals": found.residuals,
        "rest": torch.tensor([found.energy, -1.0 if found.spectral is None else found.spectral], dtype=torch.float64),
    }
    tensors["digest"] = _content_digest(tensors)
    partial = file.with_name(f".{file.stem}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)
        write_tensors(partial, tensors)
        partial.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"{file.parent} cannot be written: {error.strerror or error}; give --cache DIR") from error


def _read(file: Path, shape: tuple[int, int]) -> Singular | None:
    """What a file of the cache holds, or None if there is none, or it is not what was written."""
    if not file.is_file():
        return None
    try:
        kept = dict(TensorFiles([file]))
        digest = kept.pop("digest")
        u, s, vh, residuals, rest = (kept[name] for name in ("u", "s", "vh", "residuals", "rest"))
    except (CrossmatchError, KeyError):
        return None
    if not torch.equal(digest, _content_digest(kept)) or (u.shape[0], vh.shape[1]) != shape:
        return None
    return Singular(u, s, vh, residuals, float(rest[0]), float(rest[1]) if rest[1] >= 0 else None)


def _content_digest(tensors: dict[str, Tensor]) -> Tensor:
    digest = blake3()
    for name in ("u", "s", "vh", "residuals", "rest"):
        digest.update(memoryview(tensors[name].reshape(-1).view(torch.uint8).numpy().data))
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
