"""Answers: the fields of one, as parts come, and the finished records of a run."""

from typing import Any

from crossmatch.results.record import RecordJson

Record = dict[str, Any]
"""Fields of an answer before it is whole."""

Records = dict[tuple[str, str, str], list[RecordJson]]
"""Records by names: (variant, suite, condition)."""
