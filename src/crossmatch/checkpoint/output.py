"""Output that appears whole or not at all: a partial directory, one rename."""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from crossmatch.checkpoint.header import encode_header, pread_exact, tensor_bytes
from crossmatch.checkpoint.layout import MANIFEST
from crossmatch.errors import InputError, OutputError

TensorSpec = tuple[str, torch.dtype, tuple[int, ...]]


def check_output(out: Path, overwrite: bool) -> None:
    """Raise OutputError if `out` exists and is not an empty directory.

    With `overwrite` it may also be an earlier output of ours, known by its crossmatch.json: nothing else is replaced.
    """
    if out.is_symlink():
        raise OutputError(f"{out} is a symbolic link; give the directory itself")
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


def split_pairs(pairs: Sequence[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE texts into a mapping, split at the first `=`. Raises InputError for a bad or repeated name."""
    result: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{option} {pair}: write it as NAME=VALUE")
        if name in result:
            raise InputError(f"{option} {name}: given twice")
        if not safe_name(name):
            raise InputError(
                f"{option} {name}: a name is letters, digits, '_', '.', '-', the first a letter or a digit"
            )
        result[name] = value
    return result


@contextmanager
def atomic_directory(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A `with` block that fills `.<out>.crossmatch-partial` and, if it ends well, renames it to `out`.

    An exception or an interrupt leaves neither. With `overwrite` the old directory is moved aside at the rename and
    then removed. Raises OutputError if `out` is not empty, the disk refuses, or another process is writing there.
    """
    out = Path(os.path.abspath(out))
    if out.exists() or out.is_symlink() or not _old(out).exists():
        check_output(out, overwrite)
    partial = out.with_name(f".{out.name}.crossmatch-partial")
    lock = _claim(partial, out)
    try:
        check_output(out, overwrite)
        yield partial
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
    old = _old(out)
    if old.exists():
        # A writer was killed between its two renames, or could not remove what it had replaced.
        shutil.rmtree(old, ignore_errors=True) if out.exists() else old.rename(out)
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


class OutputFile:
    """A safetensors file of known content, written at any offset and from any thread; its space is claimed at once, so
    that a full disk is noticed before the work."""

    def __init__(self, file: Path, tensors: Sequence[TensorSpec]) -> None:
        self.file = file
        self.header = encode_header(list(tensors))
        self.offsets: dict[str, int] = {}
        position = len(self.header)
        for name, dtype, shape in tensors:
            self.offsets[name] = position
            position += tensor_bytes(dtype, shape)
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            _claim_space(self._fd, position)
            self.write(0, self.header)
        except BaseException:
            self.close()
            raise

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at a byte offset of the file."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            view, offset = view[done:], offset + done

    def read(self, offset: int, nbytes: int) -> memoryview:
        """Bytes that were written, as the system gives them back."""
        return pread_exact(self._fd, nbytes, offset, self.file)

    def copy(self, source: int, source_offset: int, offset: int, nbytes: int) -> None:
        """Bytes of another file, copied by the kernel where it can (shared, not copied, on file systems that do so)."""
        while nbytes:
            try:
                done = os.copy_file_range(source, self._fd, nbytes, source_offset, offset)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
                    raise
                done = 0
            if not done:
                self.write(offset, os.pread(source, nbytes, source_offset))
                return
            nbytes, source_offset, offset = nbytes - done, source_offset + done, offset + done

    def close(self, *, durable: bool = False) -> None:
        """Close the file; `durable`: wait until the disk has it."""
        if durable:
            os.fsync(self._fd)
        os.close(self._fd)


def _claim_space(fd: int, nbytes: int) -> None:
    try:
        os.posix_fallocate(fd, 0, nbytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(fd, nbytes)


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors that are in memory as one safetensors file; return its blake3 digest."""
    output = OutputFile(file, [(name, t.dtype, tuple(t.shape)) for name, t in tensors.items()])
    digest = blake3(output.header)
    for name, tensor in tensors.items():
        data = memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy().data) if tensor.numel() else b""
        output.write(output.offsets[name], data)
        digest.update(data)
    output.close()
    return digest.hexdigest()


def json_text(value: Any) -> str:
    """A value as indented JSON with a newline at the end; refuses NaN."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(file: Path, value: Any) -> None:
    """Write a value as `json_text` has it."""
    file.write_text(json_text(value), encoding="utf-8")


def write_rows(file: Path, rows: Iterable[Any]) -> None:
    """Write values as JSON lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def replace_json(file: Path, value: Any) -> None:
    """Write JSON beside `file` and rename it there, so that a reader sees the old or the new one."""
    temporary = file.with_name(file.name + ".tmp")
    write_json(temporary, value)
    temporary.replace(file)


def sync(directory: Path) -> None:
    """Wait until the disk has the entries of a directory."""
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
    old = _old(out)
    try:
        out.rename(old)
        partial.rename(out)
    except BaseException:
        if not out.exists():
            old.rename(out)
        raise
    # What is published stays published, even if the old one cannot be removed now: the next run does.
    shutil.rmtree(old, ignore_errors=True)


def _old(out: Path) -> Path:
    """Where an output lies between the two renames that replace it."""
    return out.with_name(f".{out.name}.crossmatch-old")
