"""A stage runs once: it is skipped while the digests of its inputs and settings, and of what it left, are unchanged."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import file_digest, value_digest
from crossmatch.result_kinds import STAGE
from crossmatch.runtime import Progress


def remove(directory: Path) -> None:
    """Remove a directory inside the run directory that this study wrote earlier."""
    if directory.exists():
        shutil.rmtree(directory)


@dataclass
class Ledger:
    """What ran in a run directory: `stages/<name>.json` with fingerprint, outputs and seconds."""

    root: Path
    progress: Progress
    ran: dict[str, float] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)

    def run(self, name: str, inputs: Any, outputs: Callable[[], list[Path]], work: Callable[[], Any]) -> Any:
        """Run `work` unless its record says that the same inputs made the files that lie there now.

        inputs: JSON-able settings and digests; outputs: the files it leaves, known once it ran. Returns what `work`
        returned (plain JSON) when it last ran.
        """
        file = self.root / "stages" / f"{name}.json"
        self.stages.append(name)
        fingerprint = value_digest({"stage": name, "inputs": inputs, "version": version("crossmatch")})
        if file.exists():
            record = STAGE.read(file)
            if record["fingerprint"] == fingerprint and self._unchanged(record["outputs"]):
                self.progress.say(f"{name}: unchanged, skipped")
                return record["result"]
        started = time.monotonic()
        result = work()
        seconds = round(time.monotonic() - started, 1)
        self.ran[name] = seconds
        file.parent.mkdir(parents=True, exist_ok=True)
        left = {str(path.relative_to(self.root)): file_digest(path) for path in outputs()}
        STAGE.replace(
            file,
            {
                "schema_version": 1,
                "fingerprint": fingerprint,
                "outputs": left,
                "seconds": seconds,
                "result": result,
            },
        )
        return result

    def seconds(self) -> dict[str, float]:
        """Seconds of every stage of this study when it last ran, in order."""
        return {name: STAGE.read(self.root / "stages" / f"{name}.json")["seconds"] for name in self.stages}

    def _unchanged(self, outputs: dict[str, str]) -> bool:
        return all((self.root / p).is_file() and file_digest(self.root / p) == d for p, d in outputs.items())
