"""The study's last stage: what each adapter changed in the base's weights, and how they lie to each other."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmatch.adapter import Adapter
from crossmatch.analysis import Wanted, assemble, open_vectors
from crossmatch.checkpoint import Checkpoint, read_json, replace_json
from crossmatch.study.stages import Ledger

# A large k needs many of the base's directions; `crossmatch analyse` has more.
KS = ("64", "r")


def explain(base: Checkpoint, adapters: Mapping[str, Adapter], root: Path, ledger: Ledger) -> dict[str, Any]:
    """The facts of `crossmatch analyse` for all adapters of a study, in `root/analysis.json`."""
    out = root / "analysis.json"

    def work() -> None:
        opened = open_vectors(base.path, {name: adapter.path for name, adapter in adapters.items()})
        # The result is kept; the base's directions would be hundreds of megabytes.
        with tempfile.TemporaryDirectory(prefix="directions-", dir=root) as cache:
            facts = assemble(opened, Wanted(KS, cache=Path(cache)), progress=ledger.progress)
        replace_json(out, facts)

    inputs = [base.digest, {name: adapter.digest for name, adapter in adapters.items()}, list(KS)]
    ledger.run("explain", inputs, lambda: [out], work)
    return read_json(out)
