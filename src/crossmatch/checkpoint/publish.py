"""Output that appears whole or not at all: a partial directory, one rename."""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

from crossmatch.checkpoint.header import encode_header
from crossmatch.checkpoint.layout import MANIFEST
from crossmatch.errors import OutputError

TensorSpec = tuple[str, torch.dtype, tuple[int, ...]]


def check_output(out: Path, overwrite: bool) -> None:
    """Raise OutputError if `out` exists and is not an empty directory.

    With `overwrite` it may also be an earlier output of ours, known by its crossmatch.json: nothing else is replaced.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; give a directory for the output")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise OutputError(f"{out} is not empty; choose another output, or remove it (merge: --overwrite)")
    if not (out / MANIFEST).is_file():
        raise OutputError(f"{out} is no earlier output of crossmatch (no {MANIFEST}) and is not overwritten")


def check_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Raise OutputError if `out` is, contains, or lies in one of the input directories."""
    target = out.resolve()
    for path in inputs:
        source = path.resolve()
        if target == source or target in source.parents or source in target.parents:
            raise OutputError(f"{out} and the input {path} are one directory, or one lies in the other; choose another")


def safe_name(name: str) -> bool:
    """Whether a name may become part of a path: letters, digits, `_`, `.`, `-`, the first a letter or a digit."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is not None


@contextmanager
def atomic_directory(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A `with` block that fills `.<out>.crossmatch-partial` and, if it ends well, renames it to `out`.

    An exception or an interrupt leaves neither. With `overwrite` the old directory is moved aside at the rename and
    then removed. Raises OutputError if `out` is not empty, the disk refuses, or another process is writing there.
    """
    out = Path(os.path.abspath(out))
    check_output(out, overwrite)
    partial = out.with_name(f".{out.name}.crossmatch-partial")
    lock = _claim(partial, out)
    try:
        yield partial
        _sync(partial)
        check_output(out, overwrite)
        _swap(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise disk_error(error, out) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _claim(partial: Path, out: Path) -> int:
    """Make the partial directory this process's own, and empty: a lock on the directory itself, so that none is left
    behind, and a killed writer's goes with it. Returns the descriptor that holds it."""
    try:
        while True:
            partial.mkdir(parents=True, exist_ok=True)
            lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if partial.exists() and os.path.samestat(os.fstat(lock), partial.stat()):
                    break
            except BlockingIOError as error:
                os.close(lock)
                raise OutputError(f"another process is writing {out}; wait for it, or choose another output") from error
            os.close(lock)
    except OSError as error:
        raise disk_error(error, out) from error
    for left in partial.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return lock


def disk_error(error: OSError, out: Path) -> OutputError:
    """The one-line error for a failed write."""
    hint = {
        errno.ENOSPC: "the disk is full; free some space or choose another output",
        errno.EFBIG: "the file size limit is reached; raise it or write smaller shards",
        errno.EACCES: "permission denied; choose another output",
        errno.EROFS: "the file system is read-only; choose another output",
    }.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"{out} cannot be written: {hint}; nothing was left there")


def write_safetensors(file: Path, tensors: list[TensorSpec], blocks: Iterable[bytes | bytearray | memoryview]) -> str:
    """Write one safetensors file from blocks of bytes that follow `tensors` in order; return its blake3 digest.

    Raises OutputError if the blocks do not add up to what the header announces.
    """
    digest = blake3()
    header = encode_header(tensors)
    expected = len(header) + sum(dtype.itemsize * _count(shape) for _, dtype, shape in tensors)
    written = len(header)
    with file.open("xb", buffering=0) as stream:
        _write_all(stream.fileno(), header)
        digest.update(header)
        for block in blocks:
            _write_all(stream.fileno(), block)
            digest.update(block)
            written += len(block)
        os.fsync(stream.fileno())
    if written != expected:
        raise OutputError(f"{file}: {written} bytes written where the header announces {expected}")
    return digest.hexdigest()


def write_json(file: Path, value: Any) -> None:
    """Write a value as indented JSON with a newline at the end; refuses NaN."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def replace_json(file: Path, value: Any) -> None:
    """Write JSON beside `file` and rename it there, so that a reader sees the old or the new one."""
    temporary = file.with_name(file.name + ".tmp")
    write_json(temporary, value)
    temporary.replace(file)


def _write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _swap(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
        return
    if not any(out.iterdir()):
        partial.replace(out)
        return
    old = out.with_name(f".{out.name}.crossmatch-old")
    if old.exists():
        shutil.rmtree(old)
    out.rename(old)
    partial.rename(out)
    shutil.rmtree(old)
