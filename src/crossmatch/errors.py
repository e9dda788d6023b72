"""The tree of errors, and the exit codes that the command line gives them.

    CrossmatchError               2   anything a user can mend; printed as one line, never a traceback
    ├── InputError                2   a path, a file or an argument that cannot be used
    │   ├── CheckpointError       2   a checkpoint that cannot be read, or is refused
    │   ├── AdapterError          2   an adapter that cannot be read, or is refused
    │   └── DataError             2   a data file or a suite with a bad line
    ├── RecipeError               2   a study recipe that does not say what it means
    ├── OutputError               2   an output that may not, or cannot, be written
    ├── RuleError                 2   a sum of deltas that is not defined (also a ValueError)
    ├── ExecutorError            2   workers that are lost again and again
    ├── EqualError                1   two models that are the same where a difference was asked for
    └── ProofError                1   a merge whose own proof failed; nothing was published

Each message says what failed, where, and what to do about it.
"""

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INTERNAL = 4
    INTERRUPTED = 130


class CrossmatchError(Exception):
    """Root of every error that a user can mend.

    fault: id of the fault that this is in a checkpoint under proof, if it is one: `verify` gives it as its verdict.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, message: str = "", *, fault: str | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class InputError(CrossmatchError):
    """A path, a file or an argument that cannot be used."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read, or is refused."""


class AdapterError(InputError):
    """An adapter that cannot be read, or is refused."""


class DataError(InputError):
    """A data file or a suite with a bad line."""


class RecipeError(CrossmatchError):
    """A study recipe that does not say what it means."""


class OutputError(CrossmatchError):
    """An output that may not, or cannot, be written."""


class RuleError(CrossmatchError, ValueError):
    """A sum of deltas that is not defined."""


class ExecutorError(CrossmatchError):
    """Workers that are lost again and again; what was answered is kept."""


class EqualError(CrossmatchError):
    """Two models that are the same where a difference was asked for."""

    exit_code = ExitCode.FAILED


class ProofError(CrossmatchError):
    """A merge whose own proof failed; nothing was published."""

    exit_code = ExitCode.FAILED


def pip_line(extra: str) -> str:
    """The line that installs what an extra needs, by its requirements: no index has to know this project for that."""
    from importlib.metadata import requires

    asked = [line.split(";") for line in requires("crossmatch") or ()]
    needed = [f"'{name.strip()}'" for name, *rest in asked if f'extra == "{extra}"' in "".join(rest).replace("'", '"')]
    return f"pip install {' '.join(needed)}"


def one_of(option: str, value: str | None, allowed: Sequence[str | None]) -> None:
    """Raise InputError unless the value is an allowed one."""
    if value not in allowed:
        raise InputError(f"{option} {value}: give one of {', '.join(a for a in allowed if a)}")
