"""How a sweep grows with points and workers, on a sample study's models.

python benchmarks/scale.py runs/sample                        9, 25 and 81 points: in process, on 1 and 2 Ray workers
python benchmarks/scale.py runs/sample --points 4 9 --items 8  smaller

Choices alone, without halving, one thread a process, so that two workers have a core each. Each sweep is a process of
its own. Seconds: by the clock, with the start of Python and of Ray; a point: what each further point takes, from the
smallest grid to the largest.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merge import CROSSMATCH
from sweep import STUDY, Timed, timed

EXECUTORS = ("local", "ray:workers=1", "ray:workers=2")


def recipe_of(study: Path, root: Path, items: int) -> dict[str, Any]:
    """The sample's sweep with its choices alone: `items` in the search, about as many in the confirmation."""
    from crossmatch.sweeping import load_sweep

    rows = (study / "data/name.jsonl").read_text().splitlines(keepends=True)
    (root / "name.jsonl").write_text("".join(rows[: 2 * items]))
    (root / "name.yaml").write_text((study / "data/name.yaml").read_text())
    models = {"base": str(study / "base"), "adapters": {n: str(study / "adapters" / n) for n in ("pt", "sft")}}
    asked = {
        "suites": [str(root / "name.yaml")],
        "goals": ["acc"],
        "constraints": [],
        "halving": [],
        "confirm": 0.5,
        "finalists": 1,
    }
    return {**load_sweep(STUDY).model_dump(exclude_defaults=True), **models, **asked, "shard": 4}


def swept(recipe: dict[str, Any], side: int, executor: str, root: Path) -> Timed:
    """A grid of side x side weights."""
    name = f"{side}-{executor.replace(':', '-')}"
    space = dict.fromkeys(("pt", "sft"), f"0..1 step {1 / (side - 1):g}")
    (root / f"{name}.yaml").write_text(json.dumps({**recipe, "space": space}))
    return timed([*CROSSMATCH, "sweep", str(root / f"{name}.yaml"), "-o", str(root / name), "--executor", executor])


def main() -> None:
    """Print in Markdown."""
    parser = argparse.ArgumentParser(description="How a sweep grows with points and workers; the head of this file.")
    parser.add_argument("study", type=Path, help="a finished run of studies/sample.yaml, as in runs/sample")
    parser.add_argument("--points", type=int, nargs="+", default=[9, 25, 81], help="points of the grids: squares")
    parser.add_argument("--items", type=int, default=8, help="choices of a point in the search, about")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    versions = ", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch", "transformers", "ray"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n", flush=True)
    sides = [round(points**0.5) for points in given.points]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        recipe = recipe_of(given.study.resolve(), root, given.items)
        print(f"| executor | {' | '.join(f'{side * side} points, s' for side in sides)} | a further point, s |")
        print("|---" * (len(sides) + 2) + "|")
        for executor in EXECUTORS:
            clocks = [swept(recipe, side, executor, root).clock for side in sides]
            further = (clocks[-1] - clocks[0]) / max(1, sides[-1] ** 2 - sides[0] ** 2)
            print(f"| `{executor}` | {' | '.join(f'{s:.0f}' for s in clocks)} | {further:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
