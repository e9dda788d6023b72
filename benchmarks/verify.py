"""What the proof costs beside reading the files and beside deltalint, and what the two say of the same files.

python benchmarks/verify.py             a 1.1 B pair, three rounds
python benchmarks/verify.py --scaling   our proof and the reading alone, over sizes
python benchmarks/verify.py --cases     both provers on every case of tests/faults whose claim can be put as one adapter
python benchmarks/verify.py --study runs/sample   the cases with the adapters that a study has trained, in bfloat16

Processes, cache and memory as benchmarks/merge.py says. Reading: every byte of base and merged, by as many threads as
there are cores, in Python.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import merge
from merge import CROSSMATCH, PEERS, RANK, ROUNDS, TINY_LLAMA, TORCH, WEIGHTS, Contender, apart, build, compete, given

merge.INSTALL["deltalint"] = [[TORCH], [TORCH, "numpy", "safetensors", "deltalint==0.1.0"]]
READ = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
def read(part):
    file, start, stop = part
    buffer, fd = bytearray(1 << 24), os.open(file, os.O_RDONLY)
    while start < stop:
        start += os.preadv(fd, [buffer], start)
files = [f for d in sys.argv[1:] for f in Path(d).glob("*.safetensors")]
parts = [(f, i, min(i + (1 << 28), f.stat().st_size)) for f in files for i in range(0, f.stat().st_size, 1 << 28)]
with ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(read, parts))
"""
READING, PROOF = "reading both", "crossmatch verify"
ONE, LINT = "crossmatch verify, one adapter", "deltalint 0.1.0, one adapter"
BESIDE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SCALES = [shape for shape in merge.SCALING if merge.parameters(shape) < 4e9]


def contenders(root: Path, peers: bool) -> list[Contender]:
    """All of them; the merge of one adapter lies in ROOT/single."""
    base, merged, single = (str(root / name) for name in ("base", "merged", "single"))
    verify = [*CROSSMATCH, "verify", merged, "--base", base, *given(root, WEIGHTS)]
    one = [*CROSSMATCH, "verify", single, "--base", base, *given(root, {"pt": 1.0})]
    identify = [*CROSSMATCH, "identify", merged, "--base", base]
    found = [
        Contender(READING, [sys.executable, "-c", READ, base, merged]),
        Contender(merge.START, [sys.executable, "-c", "import torch"]),
        Contender(PROOF, verify),
        Contender(f"{PROOF} --quick", [*verify, "--quick"]),
        Contender("crossmatch identify", [*identify, *(x for n in WEIGHTS for x in ("-a", f"{n}={root / n}"))]),
        Contender(ONE, one),
    ]
    if peers:
        lint = [str(PEERS / "deltalint/bin/deltalint"), "check", "--base", base, "--adapter", str(root / "pt")]
        # Whatever it says of the file, so long as it says something.
        said = ["sh", "-c", '"$@"; [ $? -ne 2 ]', "sh", *lint, "--merged", single, "--quiet"]
        found.append(Contender(LINT, said, {}, merge.install("deltalint")))
    return found


def prepare(root: Path, shape: merge.Shape) -> None:
    """The pair, and its merges."""
    apart(build, root, shape, RANK)
    for name, claim in (("merged", WEIGHTS), ("single", {"pt": 1.0})):
        command = [*CROSSMATCH, "merge", str(root / "base"), *given(root, claim), "--no-verify", "-o", str(root / name)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def table(rows: list[Contender]) -> Iterator[str]:
    """Line by line."""
    known = {c.name: c for c in rows if not c.reason}
    yield "| | seconds | over reading both | over deltalint | peak RSS MB | peak private MB |"
    yield "|---" * 6 + "|"
    for c in rows:
        if c.reason:
            yield f"| {c.name} | {c.reason} | | | | |"
            continue
        over = f"{c.seconds / known[LINT].seconds:.2f}" if LINT in known and c.name in (ONE, LINT) else ""
        sizes = f"{c.megabytes(1):,.0f} | {c.megabytes(2):,.0f}"
        yield f"| {c.name} | {c.seconds:.1f} | {c.seconds / known[READING].seconds:.1f} | {over} | {sizes} |"


def scale(root: Path) -> Iterator[str]:
    """Proof and reading over sizes."""
    yield "| parameters | rounds | reading both | verify | ratio | --quick | private MB |"
    yield "|---" * 7 + "|"
    for shape in SCALES:
        prepare(root, shape)
        billions = merge.parameters(shape) / 1e9
        rounds = ROUNDS if billions < 2 else 1
        rows = [c for c in contenders(root, peers=False) if c.name in (READING, PROOF, f"{PROOF} --quick")]
        compete(rows, root, rounds, judged=False)
        read, proof, quick = rows
        cells = f"{read.seconds:.1f} | {proof.seconds:.1f} | {proof.seconds / read.seconds:.1f} | {quick.seconds:.1f}"
        yield f"| {billions:.2f} B | {rounds} | {cells} | {proof.megabytes(2):,.0f} |"
        for name in ("base", "merged", "single", *WEIGHTS):
            shutil.rmtree(root / name)


def cases(root: Path) -> Iterator[str]:
    """Both provers on the faults and routes of the tests, where the claim can be put as one adapter at weight one."""
    reason = merge.install("deltalint")
    if reason:
        raise SystemExit(f"deltalint {reason}")
    sys.path.insert(0, str(merge.REPOSITORY / "tests"))
    import faults.faulty
    import faults.honest  # noqa: F401
    from faults.build import Bench
    from faults.registry import CASES, ask

    yield "| case | cell | expected | crossmatch | deltalint |"
    yield "|---" * 5 + "|"
    counts: Counter[tuple[str, str]] = Counter()
    for case in CASES.values():
        for dtype, size in case.cells:
            if (dtype, size) not in (("bf16", 1e-2), ("fp32", 1e-3)):
                continue
            bench, out = Bench(root, case.family, dtype, size), root / "made" / "out"
            out.parent.mkdir()
            claimed = case.make(bench, out)
            adapter = one_adapter(bench, claimed, root / "made" / "claimed") if claimed.recipe is None else None
            if adapter is not None and out.exists():
                ours, theirs = ask(bench, out, claimed), lint(bench.base, adapter, out)
                counts["crossmatch", "right" if ours.verdict == case.expected else ours.verdict] += 1
                counts["deltalint", "right" if theirs == case.expected else theirs] += 1
                yield f"| {case.name} | {dtype} {size:g} | {case.expected} | {ours} | {theirs} |"
            shutil.rmtree(out.parent)
    yield ""
    for (prover, what), count in sorted(counts.items()):
        yield f"{prover}: {count} {what}"


def one_adapter(bench: Any, claimed: Any, out: Path) -> Path | None:
    """What is claimed as one adapter at weight one, which is all that deltalint can express: the exact sum as factors
    (None where there is none)."""
    from crossmatch import Checkpoint
    from crossmatch.errors import CrossmatchError
    from crossmatch.merging import Output, merge_factors, plan_merge

    weights = {n: w for n, w in claimed.weights.items() if w}
    if list(weights.values()) == [1.0]:
        (name,) = weights
        return claimed.paths.get(name) or bench.adapter(name)
    try:
        parts = {name: part for name, part in claimed.parts(bench).items() if part[1]}
        merge_factors(plan_merge(Checkpoint(bench.base), parts), out, output=Output(any_base=True))
    except CrossmatchError:
        return None
    return out


def study(run: Path, root: Path) -> Iterator[str]:
    """The faults and routes of the tests, made of a study's base and of the adapters that it has trained."""
    sys.path.insert(0, str(merge.REPOSITORY / "tests"))
    import faults.faulty
    import faults.honest  # noqa: F401
    from faults.build import Bench
    from faults.registry import CASES, ask, is_named

    class Trained(Bench):
        @cached_property
        def base(self) -> Path:
            model = AutoModelForCausalLM.from_pretrained(run.absolute() / "base", dtype=self.dtype)
            return self.save(model, self.home / "base")

        def adapter(self, name: str) -> Path:
            trained, out = run.absolute() / "adapters" / name, self.home / "trained" / name
            if not trained.is_dir():
                return super().adapter(name)
            if not out.exists():
                # Without the manifest: it names the base that was trained on, of which this is a copy in 16 bits.
                shutil.copytree(trained, out, ignore=shutil.ignore_patterns("crossmatch.json"))
            return out

    from transformers import AutoModelForCausalLM

    yield "| case | expected | said | |"
    yield "|---" * 4 + "|"
    bench, counts = Trained(root, "trained", "bf16", 1e-2), Counter[str]()
    for case in CASES.values():
        if case.family != "llama" or "bf16" not in case.dtypes:
            continue
        out = root / "made" / "out"
        out.parent.mkdir()
        try:
            claimed = case.make(bench, out)
        except Exception as error:  # a case for an untied model, or for its shapes
            said, good = f"not made: {type(error).__name__}", "not made"
        else:
            for file in run.glob("adapters/sft/*"):
                if file.name in BESIDE and out.is_dir() and not (out / file.name).exists():
                    shutil.copy(file, out)
            answer = ask(bench, out, claimed)
            said, good = str(answer), "as expected" if is_named(case, answer) else "OTHERWISE"
        counts[good] += 1
        yield f"| {case.name} | {', '.join(case.faults) or case.expected} | {said} | {good} |"
        shutil.rmtree(out.parent)
    yield "\n" + ", ".join(f"{count} {what}" for what, count in counts.most_common())


def lint(base: Path, adapter: Path, merged: Path) -> str:
    """What deltalint says; exit 1 without its JSON is a crash."""
    command = [str(PEERS / "deltalint/bin/deltalint"), "check", "--base", str(base), "--adapter", str(adapter)]
    done = subprocess.run([*command, "--merged", str(merged), "--json"], capture_output=True, text=True)
    try:
        json.loads(done.stdout)
    except ValueError:
        return "unreadable" if done.returncode == 2 else "crashed"
    return {0: "verified", 1: "failed", 2: "unreadable", 3: "inconclusive"}.get(done.returncode, "crashed")


def main() -> None:
    """Print in Markdown."""
    parser = argparse.ArgumentParser(description="What the proof costs; the head of this file says how.")
    parser.add_argument("--scaling", action="store_true", help="our proof alone, over sizes")
    parser.add_argument("--cases", action="store_true", help="verdicts beside deltalint's")
    parser.add_argument("--study", type=Path, metavar="RUN", help="verdicts on merges of a study's trained adapters")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        lines = scale if options.scaling else cases if options.cases else partial(study, options.study)
        if options.scaling or options.cases or options.study:
            for line in lines(root):
                print(line, flush=True)
            return
        rows = contenders(root, peers=True)
        prepare(root, TINY_LLAMA)
        compete(rows, root, ROUNDS, judged=False)
        size = merge.parameters(TINY_LLAMA) * 2e-9
        print(f"{size:.2f} GB in bfloat16 each, two adapters of rank {RANK}\n")
        print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
