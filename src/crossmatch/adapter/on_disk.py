"""What is known of a tuning vector that lies in a directory: where it comes from, its files, their digests."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from crossmatch.adapter.parts import Part, build_parts
from crossmatch.checkpoint import (
    MANIFEST,
    Checkpoint,
    Source,
    TensorFiles,
    check_links,
    file_digest,
    files_digest,
    locate,
    read_json,
)
from crossmatch.delta import Delta, TuningVector


class Recorded(TuningVector):
    """A tuning vector in a directory: a PEFT adapter, or a stored vector.

    source: its directory, and the hub id that it was fetched from, if any; paths: the files that are its content;
    files: their tensors; parts: tensor name -> what they hold for it, read when it is asked for.
    """

    source: Source
    paths: tuple[Path, ...]
    files: TensorFiles
    parts: dict[str, tuple[Part, ...]]

    def __init__(self, source: str | Path) -> None:
        self.source = locate(source)
        if self.path.is_dir():
            check_links(self.path)
        self.terms = ((1.0, self),)

    def __getitem__(self, name: str) -> Delta:
        return build_parts(self.parts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __contains__(self, name: object) -> bool:
        return name in self.parts

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.source.path

    @cached_property
    def record(self) -> dict[str, object]:
        """What the manifest or training record beside it says; empty without one."""
        file = self.path / MANIFEST
        record = read_json(file) if file.exists() else {}
        inner = record.get("predicate")
        return inner if isinstance(inner, dict) else record

    @cached_property
    def trained_on(self) -> str | None:
        """Digest of the base that the record beside it names, or None without a record."""
        base = self.record.get("base")
        digest = base.get("digest") if isinstance(base, dict) else None
        return digest if isinstance(digest, str) else None

    def made_on(self, base: str | None) -> bool | None:
        """Whether the record beside it names the base of this digest; None where either is not known."""
        return self.trained_on == base if self.trained_on and base else None

    def other_name(self, base: Checkpoint) -> str | None:
        """The base that its config names, where that is none of this one's names and no record shows that it is the
        same. Of a path or a hub id the last part can be compared; other weights of the same name are not told."""
        return None

    @cached_property
    def file_digests(self) -> dict[str, str]:
        """blake3 of the files that are its content, by file name."""
        return {path.name: file_digest(path) for path in self.paths}

    @cached_property
    def digest(self) -> str:
        """One digest of its content: of the names and digests of its files."""
        return files_digest(self.file_digests)


def notes_on_bases(adapters: Mapping[str, Recorded], base: Checkpoint) -> Iterator[str]:
    """A note for each adapter that names another base, by its config alone."""
    for name, adapter in adapters.items():
        if adapter.trained_on is None and (other := adapter.other_name(base)):
            yield f"note: adapter {name} names {other} as its base, not {base.path}: is it the same model?"
