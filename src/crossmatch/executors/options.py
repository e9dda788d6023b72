"""How an executor is asked for: `local`, `ray:workers=4,gpus=1`, `slurm:partition=gpu,minutes=120`."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from crossmatch.errors import InputError

KINDS = ("local", "ray", "slurm")
Kind = Literal["local", "ray", "slurm"]
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([MGT])i?B?", re.IGNORECASE)
_UNITS = {"m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class ExecutorOptions:
    """Where cells are done.

    workers: processes, each with a model of its own; cpus, gpus, memory (bytes): of each worker; retries: how often
    lost workers are replaced, in all; address: of a Ray cluster (None: one is started here); partition, minutes: of
    Slurm's jobs; cluster: of submitit, `slurm`, or `local` for processes of this machine.
    """

    kind: Kind = "local"
    workers: int = 2
    cpus: int = 1
    gpus: float = 0
    memory: int | None = None
    retries: int = 3
    address: str | None = None
    partition: str | None = None
    minutes: int = 60
    cluster: str = "slurm"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


LOCAL = ExecutorOptions()
_OF = {
    "local": (),
    "ray": ("workers", "cpus", "gpus", "memory", "retries", "address"),
    "slurm": ("workers", "cpus", "gpus", "memory", "retries", "partition", "minutes", "cluster"),
}


def parse_executor(text: str | Mapping[str, Any]) -> ExecutorOptions:
    """Options from `KIND` or `KIND:key=value,...`. Raises InputError for what is not known, or out of range."""
    if isinstance(text, Mapping):
        kind, given = str(text.get("kind", "local")), {str(k): str(v) for k, v in text.items() if k != "kind"}
    else:
        kind, _, rest = text.partition(":")
        # An address holds colons, never commas.
        pairs = [part.partition("=") for part in rest.split(",") if part]
        given = {key.strip(): value.strip() for key, _, value in pairs}
    if kind not in KINDS:
        raise InputError(f"--executor {kind}: give one of {', '.join(KINDS)}")
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _OF[kind]:
            close = difflib.get_close_matches(key, _OF[kind], n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(_OF[kind]) or 'no options'}"
            raise InputError(f"--executor {kind}: no option {key!r}; {hint}")
        values[key] = _value(kind, key, value)
    return ExecutorOptions(kind=kind, **values)  # type: ignore[arg-type]


def _value(kind: str, key: str, text: str) -> Any:
    if key in ("address", "partition", "cluster"):
        if key == "cluster" and text not in ("slurm", "local"):
            raise InputError(f"--executor {kind}: cluster is slurm or local, not {text!r}")
        return text
    if key == "memory":
        match = _MEMORY.fullmatch(text)
        if match is None:
            raise InputError(f"--executor {kind}: memory is written as 16GB, not {text!r}")
        return int(float(match[1]) * _UNITS[match[2].lower()])
    try:
        number = float(text) if key == "gpus" else int(text)
    except ValueError:
        raise InputError(f"--executor {kind}: {key} is a number, not {text!r}") from None
    if number < (0 if key in ("gpus", "retries") else 1):
        raise InputError(f"--executor {kind}: {key} cannot be {text}")
    return number
