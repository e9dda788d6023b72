"""The statement that lies beside what we write: the files with their digests, and how they were made."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch


def statement(kind: str, subjects: Mapping[str, Mapping[str, str]], predicate: Mapping[str, Any]) -> dict[str, Any]:
    """An in-toto Statement v1: files with their digests by algorithm as subjects, how they were made as the predicate.
    No times, no host."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": dict(digests)} for name, digests in sorted(subjects.items())],
        "predicateType": kind,
        "predicate": {"schema_version": 1, **predicate},
    }


def versions() -> dict[str, str]:
    """The programs that decide the bytes."""
    return {
        "crossmatch": version("crossmatch"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
