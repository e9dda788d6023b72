"""The machine: versions of what is installed against what is needed, cores, memory, disk, GPU."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

from crossmatch.report.text import size
from crossmatch.runtime import cores, free_memory
from crossmatch.study.doctor.checkup import Line

_NAMED = ("torch", "transformers", "peft", "trl", "safetensors")
# Below these a small model of a hundred million parameters does not fit beside the libraries.
_LITTLE_MEMORY, _LITTLE_DISK = 4 * 10**9, 5 * 10**9


def environment(package: str = "crossmatch") -> Iterator[Line]:
    """A line for each thing of this machine that decides whether the work can run."""
    system = platform.system()
    python = f"Python {platform.python_version()} on {system} {platform.machine()}"
    if system == "Windows":
        yield Line("system", "warning", f"{python}: nothing has been tried there", "use Linux, macOS or WSL")
    else:
        yield Line("system", "ok", f"crossmatch {metadata.version(package)}, {python}")
    yield from _packages(package)
    free, count = free_memory(), cores()
    if free is None:
        yield Line("memory", "warning", f"{count} cores; the system does not tell how much memory is free")
    else:
        remedy = "close other programs, or run where there is more" if free < _LITTLE_MEMORY else ""
        yield Line("memory", "warning" if remedy else "ok", f"{size(free)} free, {count} cores", remedy)
    yield _disk(Path())
    yield _gpu()


def _packages(package: str) -> Iterator[Line]:
    """What is needed and is missing or of another version; which extras are there."""
    needed = [Requirement(text) for text in metadata.requires(package) or ()]
    extras: dict[str, list[Requirement]] = {}
    wrong = []
    for one in needed:
        extra = next(
            (name for name in metadata.metadata(package).get_all("Provides-Extra") or () if _of(one, name)), None
        )
        if extra is not None:
            extras.setdefault(extra, []).append(one)
        elif (one.marker is None or one.marker.evaluate()) and not _fits(one):
            wrong.append(one)
    found = ", ".join(f"{name} {_version(name) or 'missing'}" for name in _NAMED)
    if wrong:
        names = ", ".join(f"{one.name} {_version(one.name) or 'is missing'} (needed {one.specifier})" for one in wrong)
        install = " ".join(f"'{one.name}{one.specifier}'" for one in wrong)
        yield Line("packages", "fault", names, f"pip install {install}")
    else:
        yield Line("packages", "ok", found)
    there = [name for name, parts in extras.items() if all(map(_fits, parts))]
    absent = [name for name in extras if name not in there]
    seen = f"{', '.join(there) or 'none'} installed" + (
        f"; not {', '.join(absent)}, needed only where a command asks for one" if absent else ""
    )
    yield Line("extras", "ok", seen)


def _of(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement is one of an extra, and of it alone."""
    marker = requirement.marker
    plain = {**default_environment(), "extra": ""}
    return marker is not None and marker.evaluate({**plain, "extra": extra}) and not marker.evaluate(plain)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement) -> bool:
    found = _version(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _disk(place: Path) -> Line:
    if not os.access(place, os.W_OK):
        return Line("disk", "warning", f"{place.absolute()} cannot be written", "work in a directory of yours")
    free = shutil.disk_usage(place).free
    remedy = "runs and merged models need more; work on another disk" if free < _LITTLE_DISK else ""
    return Line("disk", "warning" if remedy else "ok", f"{size(free)} free in this directory", remedy)


def _gpu() -> Line:
    """A GPU that torch can use; one that is there and that torch cannot use is worth a warning."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        seen = f"{torch.cuda.get_device_name()}, {size(free)} of {size(total)} free"
        return Line("GPU", "ok", seen)
    if Path("/dev/nvidia0").exists():
        why = (
            "is built without CUDA" if torch.version.cuda is None else "does not see it (driver, CUDA_VISIBLE_DEVICES)"
        )
        return Line("GPU", "warning", f"there is one, and torch {torch.__version__} {why}", "install a torch for it")
    return Line("GPU", "ok", "none; the CPU does the work (small models, and any merge or proof)")
