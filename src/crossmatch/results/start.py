"""What the commands for the first ten minutes print: `init` and `doctor`."""

from typing import Literal

from typing_extensions import TypedDict

CheckState = Literal["ok", "warning", "fault"]


class InitJson(TypedDict):
    """`crossmatch init --json`."""

    schema_version: Literal[1]
    output: str
    written: list[str]
    found: list[str]
    guessed: list[str]
    left_out: list[str]


class CheckLineJson(TypedDict):
    """One thing that was looked at."""

    topic: str
    state: CheckState
    seen: str
    remedy: str
    """What to do; empty: nothing."""


class DoctorJson(TypedDict):
    """`crossmatch doctor --json`."""

    schema_version: Literal[1]
    worst: CheckState
    ok: int
    warning: int
    fault: int
    lines: list[CheckLineJson]
