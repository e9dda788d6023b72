"""What crossmatch vectors apply and remove have written, for people and as JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.cli.console import Terminal, emit, say

if TYPE_CHECKING:
    from crossmatch.checkpoint import Checkpoint


def show_strengths(output: Path, results: dict[float, dict[str, Any]], as_json: bool) -> None:
    """One line for each strength, and how the result compares with the base where that was counted."""
    if as_json:
        kept = [{k: v for k, v in facts.items() if k != "sentence"} for facts in results.values()]
        emit({"schema_version": 1, "output": str(output), "strengths": kept})
        return
    for number, facts in results.items():
        print(f"strength {number:g}: {facts['sentence']}")
        against = facts.get("against_base")
        if against is not None:
            beyond = f"; {against['beyond']:,} in added rows stay" if against["beyond"] else ""
            print(f"  {against['differ']:,} of {against['elements']:,} elements are not the base's{beyond}")
            for name, count in sorted(against["tensors"].items(), key=lambda item: -item[1])[:3]:
                print(f"    {count:,} in {name}")


def against_base(base: "Checkpoint", result: "Checkpoint") -> dict[str, Any] | None:
    """How many elements of a result are not the base's, as plain JSON; None, and a line why, if they are no pair."""
    from crossmatch.errors import CheckpointError
    from crossmatch.vectors import count_unequal, pair_checkpoints

    try:
        return count_unequal(pair_checkpoints(base, result), Terminal()).to_dict()
    except CheckpointError as error:
        # What was written is there and proved; only the comparison fails.
        say(f"note: not compared with the base: {error}")
        return None
