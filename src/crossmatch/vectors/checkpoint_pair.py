"""A base and its fine-tune, laid beside each other: which tensor belongs to which, or why they make no vector."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.checkpoint import DTYPE_NAMES, Checkpoint, by_names_of, input_embedding, is_needless, output_embedding
from crossmatch.delta import STORABLE, is_finite
from crossmatch.errors import CheckpointError

INTEGERS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


@dataclass(frozen=True)
class Site:
    """One tensor in both checkpoints.

    name: of the delta; ours: the base's tensor (another one for an output embedding that it does not store); rows: how
    many the base has, seen as a matrix of `columns` columns; added: rows that the tuned one has beyond these; shared:
    whether it serves as both tied embeddings.
    """

    name: str
    ours: str
    shape: tuple[int, ...]
    rows: int
    columns: int
    dtype: torch.dtype
    added: int = 0
    shared: bool = False

    @property
    def elements(self) -> int:
        """Elements that both have."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Pair:
    """Base and tuned checkpoint with the tensors that they share, and what had to be said of them."""

    base: Checkpoint
    tuned: Checkpoint
    sites: tuple[Site, ...]
    notes: tuple[str, ...] = ()

    def blocks(self, site: Site) -> Iterator[tuple[int, int]]:
        """Row ranges that cover what both have of a tensor."""
        yield from self.base.blocks(site.ours, site.columns)

    def rows(self, site: Site, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Rows of the base's and of the tuned tensor, as stored. Raises CheckpointError for values that are not
        finite."""
        found = []
        for checkpoint, name in ((self.base, site.ours), (self.tuned, site.name)):
            block = checkpoint.rows(name, start, stop, site.columns)
            if not is_finite(block):
                raise CheckpointError(
                    f"{checkpoint.path}: {name} holds NaN or infinite values; no difference can be taken"
                )
            found.append(block)
        return found[0], found[1]

    def added_rows(self, site: Site, start: int, stop: int) -> Tensor:
        """Some of the rows that only the tuned tensor has, counted from the first of them."""
        block = self.tuned.rows(site.name, site.rows + start, site.rows + stop, site.columns)
        if not is_finite(block):
            raise CheckpointError(f"{self.tuned.path}: {site.name} holds NaN or infinite values; train it again")
        return block


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one dtype are the same, bit for bit."""
    integer = INTEGERS.get(first.dtype)
    return torch.equal(first, second) if integer is None else torch.equal(first.view(integer), second.view(integer))


def unequal_bits(first: Tensor, second: Tensor) -> int:
    """Elements of two tensors of one dtype that are not the same, bit for bit."""
    integer = INTEGERS.get(first.dtype)
    return int((first != second if integer is None else first.view(integer) != second.view(integer)).sum())


def pair_checkpoints(base: Checkpoint, tuned: Checkpoint) -> Pair:
    """Find for every tensor of the tuned checkpoint the base's.

    Raises CheckpointError for quantised checkpoints, other architectures, tensors that one of them lacks, other shapes
    (but for rows that the embeddings gained), and embeddings that only the tuned one ties.
    """
    _check_models(base, tuned)
    notes: list[str] = []
    tuned, renamed = by_names_of(base, tuned)
    if renamed:
        first = next(iter(renamed))
        notes.append(f"{len(renamed)} tensors go by another name in the base's file, as {renamed[first]} is {first}")
    names, shared = _names(base, tuned, notes)
    # Of a tied pair the output embedding may be stored a second time.
    twice = {output_embedding(c.tensors) for c in (base, tuned) if shared is not None}
    missing = [n for n in base.tensors if n not in {*names.values(), *twice} and not is_needless(n, base, tuned)]
    extra = [n for n in tuned.tensors if n not in {*names, *twice} and not is_needless(n, tuned, base)]
    for found, here, there in ((missing, base, tuned), (extra, tuned, base)):
        if found:
            raise CheckpointError(
                f"{there.path} lacks {len(found)} of the {len(here.tensors)} tensors of {here.path}, first {found[0]}; "
                "they are of different architectures, or one of them was saved half"
            )
    sites = tuple(_site(name, ours, base, tuned, shared=name == shared) for name, ours in names.items())
    grown = [site for site in sites if site.added]
    if grown:
        notes.append(f"vocabulary: {grown[0].rows} rows became {grown[0].rows + grown[0].added}")
    for site in sites:
        ours = base.tensors[site.ours].dtype
        if ours != site.dtype and {ours, site.dtype} <= set(STORABLE):
            notes.append(f"the base is stored in {DTYPE_NAMES[ours]}, the tuned one in {DTYPE_NAMES[site.dtype]}")
    return Pair(base, tuned, sites, tuple(dict.fromkeys(notes)))


def _check_models(base: Checkpoint, tuned: Checkpoint) -> None:
    for checkpoint in (base, tuned):
        if checkpoint.quantisation:
            raise CheckpointError(
                f"{checkpoint.path} is quantised ({checkpoint.quantisation}); take the 16- or 32-bit checkpoint"
            )
    first, second = base.config.get("model_type"), tuned.config.get("model_type")
    if first != second and first is not None and second is not None:
        raise CheckpointError(f"different architectures: {base.path} is a {first}, {tuned.path} a {second}")


def _names(base: Checkpoint, tuned: Checkpoint, notes: list[str]) -> tuple[dict[str, str], str | None]:
    """The tuned checkpoint's tensors with the base's of the same place, and the one that is both tied embeddings."""
    entrance, output = input_embedding(base.tensors), output_embedding(tuned.tensors)
    theirs = output_embedding(base.tensors)
    names = {name: name for name in tuned.tensors if name in base.tensors}
    if tuned.tied and output is not None and entrance in tuned.tensors and not _equal(tuned, str(entrance), output):
        raise CheckpointError(
            f"{tuned.path} ties its embeddings by config.json and stores two that differ; save it with "
            "tie_word_embeddings as it was trained"
        )
    if not base.tied:
        if output is None and theirs is not None and entrance is not None:
            raise CheckpointError(
                f"{tuned.path} ties its embeddings, {base.path} does not; save the tuned model with its own "
                f"{theirs} (tie_word_embeddings false)"
            )
        return names, None
    if entrance is None or entrance not in tuned.tensors:
        return names, None
    if output is None or tuned.tied or _equal(tuned, entrance, output):
        # One tensor, stored once or twice: its change is that of both.
        names.pop(str(output), None)
        notes.append(f"tied embeddings: the change of {entrance} is that of both")
        return names, entrance
    names.setdefault(output, theirs or entrance)
    notes.append("the tuned checkpoint unties its embeddings: put the vector on the base with --tied untie")
    return names, None


def _equal(checkpoint: Checkpoint, first: str, second: str) -> bool:
    ours, other = checkpoint.tensors[first], checkpoint.tensors[second]
    if (ours.shape, ours.dtype) != (other.shape, other.dtype):
        return False
    return all(
        same_bits(checkpoint.rows(first, start, stop), checkpoint.rows(second, start, stop))
        for start, stop in checkpoint.blocks(first)
    )


def _site(name: str, ours: str, base: Checkpoint, tuned: Checkpoint, *, shared: bool) -> Site:
    before, after = base.tensors[ours], tuned.tensors[name]
    embeddings = {input_embedding(tuned.tensors), output_embedding(tuned.tensors)}
    added = 0
    if before.shape != after.shape:
        grown = len(before.shape) == len(after.shape) == 2 and before.shape[1:] == after.shape[1:]
        added = after.shape[0] - before.shape[0] if grown and name in embeddings else 0
        if added <= 0:
            cut = grown and name in embeddings
            why = "the tuned one has lost rows, which no vector can say" if cut else "they are of different models"
            raise CheckpointError(
                f"{name} has shape {list(before.shape)} in {base.path}, {list(after.shape)} in {tuned.path}; {why}"
            )
    columns = before.columns
    height = before.elements // max(1, columns)
    return Site(name, ours, before.shape, height, columns, after.dtype, added, shared)
