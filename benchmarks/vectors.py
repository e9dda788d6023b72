"""What vectors cost: extraction, sums, application and removal, on a Llama of 1.1 B and a merge of two adapters on it.

python benchmarks/vectors.py            needs 14 GB of disk, about ten minutes
python benchmarks/vectors.py --small    a Llama of 0.1 B: whether it runs

Processes and memory as benchmarks/merge.py says; one run of each, files in the cache where they fit. Private: what the
process holds itself, without the pages of files that it maps to take their digests.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from merge import CROSSMATCH, RANK, SCALING, TINY_LLAMA, WEIGHTS, apart, build, given, measure, parameters


def commands(root: Path) -> dict[str, list[str]]:
    """What is measured, in an order in which each finds what it needs."""
    base, tuned, vector = (str(root / name) for name in ("base", "tuned", "vector"))
    both = [flag for name in WEIGHTS for flag in ("-a", f"{name}={root / name}")]
    return {
        "extract, dense": ["extract", base, tuned, "-o", vector],
        f"extract --rank {2 * RANK}": ["extract", base, tuned, "--rank", str(2 * RANK), "-o", str(root / "low")],
        "extract --energy 0.9": ["extract", base, tuned, "--energy", "0.9", "-o", str(root / "most")],
        "add two adapters": ["add", *both, "-o", str(root / "sum")],
        "add a dense vector and an adapter": ["add", "-a", f"v={vector}", *both[:2], "-o", str(root / "mixed")],
        "inspect a dense vector": ["inspect", vector],
        "apply a dense vector, with its proof": ["apply", base, vector, "-o", str(root / "again")],
        "remove it, with its proof, and compare": ["remove", tuned, vector, "-o", str(root / "off")],
    }


def main() -> None:
    """Build, measure, print in Markdown."""
    parser = argparse.ArgumentParser(description="What vectors cost; the head of this file says how it is measured.")
    parser.add_argument("--small", action="store_true", help="a Llama of 0.1 B")
    options = parser.parse_args()
    shape = next(iter(SCALING)) if options.small else TINY_LLAMA
    versions = ", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch"))
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {load}, Python {platform.python_version()}, {versions}\n")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        apart(build, root, shape, RANK)
        merge = [*CROSSMATCH, "merge", str(root / "base"), *given(root, WEIGHTS), "-o", str(root / "tuned")]
        subprocess.run(merge, check=True, stdout=subprocess.DEVNULL)
        print(f"{parameters(shape) / 1e6:,.0f} M parameters in bfloat16, two adapters of rank {RANK}\n")
        print("| | seconds | peak private MB | peak RSS MB |\n|---|---|---|---|")
        for name, arguments in commands(root).items():
            seconds, resident, private, _ = measure([*CROSSMATCH, "vectors", *arguments], root / "log")
            print(f"| {name} | {seconds:.1f} | {private / 1e6:,.0f} | {resident / 1e6:,.0f} |", flush=True)
            for kept in ("mixed", "again", "off"):
                shutil.rmtree(root / kept, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
