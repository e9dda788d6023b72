"""What the contamination audit costs on a million documents, and which of the planted overlaps it finds.

python benchmarks/audit.py                            1,000,000 documents of about 100 words
python benchmarks/audit.py --documents 100000
python benchmarks/audit.py --datasketch PYTHON        beside the near level with datasketch, run by that interpreter

Documents are made of words drawn by Zipf's law (p ~ 1 / (rank + 2.7) of 50,000 words; every tenth of characters, of
3,000), 60% of them PT texts and 40% SFT pairs of question and answer. Two held-out sets of 2,000 pairs, and one of
1,000 choices. Of each planted kind 100 items of either held-out set of pairs are put into the train sets, and 1,000
SFT documents into PT. Seconds: of the whole command, in a process of its own. Memory: RSS and PSS, summed over all
processes, read every 100 ms; RSS counts what processes share once for each.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WORDS, CHARACTERS, QUESTION, LENGTH = 50_000, 3_000, 40, 100
PLANTED, SHARED = 100, 1000
# What is planted, and the level and scope that must find it.
KINDS = {
    "the same text": "exact:whole",
    "case and punctuation changed": "normalised:whole",
    "question inside a longer text": "ngram:question",
    "two units replaced": "near:whole",
    "question with another answer": "exact:question",
    "answer to another question": "exact:answer",
}
COMMAND = [sys.executable, "-m", "crossmatch", "audit"]
SKETCH = """
import json, sys, time
from datasketch import MinHash, MinHashLSH
def sketch(text):
    units, m = text.lower().split() if " " in text[:50] else list(text), MinHash(num_perm=100)
    m.update_batch([" ".join(units[i:i + 3]).encode() for i in range(len(units) - 2)])
    return m
held, train = [[json.loads(line) for line in open(f)] for f in sys.argv[1:]]
start, lsh, hits = time.monotonic(), MinHashLSH(params=(20, 5), num_perm=100), 0
for i, row in enumerate(held):
    lsh.insert(i, sketch(row["prompt"] + " " + row["completion"]))
for row in train:
    hits += bool(lsh.query(sketch(row["text"])))
print(json.dumps([time.monotonic() - start, hits]))
"""


class Maker:
    """Documents at random, one draw of many units at a time."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        letters = self.random.integers(97, 123, (WORDS, 12))
        self.words = ["".join(map(chr, row[: 2 + i % 11])) + chr(97 + i % 26) for i, row in enumerate(letters)]
        self.characters = [chr(0x4E00 + i) for i in range(CHARACTERS)]
        self.cumulated = {n: np.cumsum(1 / (np.arange(n) + 3.7)) for n in (WORDS, CHARACTERS)}

    def units(self, number: int, mean: int = LENGTH) -> Iterator[list[str]]:
        """Documents as lists of words, every tenth of characters, of about `mean` units."""
        lengths = self.random.integers(mean // 2, mean * 3 // 2 + 1, number)
        for i, length in enumerate(lengths.tolist()):
            source = self.characters if i % 10 == 9 else self.words
            cumulated = self.cumulated[len(source)]
            draws = np.searchsorted(cumulated, self.random.random(length) * cumulated[-1])
            yield [source[j] for j in draws.tolist()]


def joined(units: list[str]) -> str:
    """Words with spaces, characters without."""
    return ("" if units[0] >= "\u4e00" else " ").join(units)


def plant(kind: str, units: list[str], split: int, maker: Maker) -> dict[str, str]:
    """A train document with a held-out item, question and answer of which meet at `split`, in it."""
    question, answer = joined(units[:split]), joined(units[split:])
    other = joined(next(maker.units(1)))
    if kind == "the same text":
        return {"text": f"{question}\n{answer}"}
    if kind == "case and punctuation changed":
        return {"text": f"“{question.upper()}” – {answer.title()}!"}
    if kind == "question inside a longer text":
        return {"text": f"{other} {question} {other}"}
    if kind == "two units replaced":
        changed = units.copy()
        for at in (len(units) // 3, len(units) * 2 // 3):
            changed[at] = "\u9fa0" if units[0] >= "\u4e00" else "replaced"
        return {"text": joined(changed)}
    if kind == "question with another answer":
        return {"instruction": question, "output": other}
    return {"instruction": other, "output": answer}


def build(root: Path, documents: int) -> dict[str, dict[str, list[str]]]:
    """Write all sets; the ids that are planted by held-out set and kind."""
    maker, expected = Maker(0), {}
    pt, sft = [], []
    for name in ("valid", "test"):
        rows, expected[name] = [], {}
        for i, units in enumerate(maker.units(2000, mean=120)):
            split = min(QUESTION, len(units) // 2)
            rows.append({"id": f"{name}{i}", "prompt": joined(units[:split]), "completion": joined(units[split:])})
            if i < PLANTED * len(KINDS):
                kind = list(KINDS)[i % len(KINDS)]
                expected[name].setdefault(kind, []).append(f"{name}{i}")
                row = plant(kind, units, split, maker)
                (pt if "text" in row else sft).append(row)
        save(root / f"{name}.jsonl", rows)
    choices = [joined(units) for units in maker.units(1000, mean=30)]
    options = ["one of them", "another one", "none"]
    rows = [{"id": f"c{i}", "question": text, "options": options, "answer": i % 3} for i, text in enumerate(choices)]
    save(root / "choices.jsonl", rows)
    (root / "choices.yaml").write_text("name: choices\nversion: 1\nkind: choice\ndata: choices.jsonl\n")
    shared = []
    with (root / "sft.jsonl").open("w", encoding="utf-8") as stream:
        for i, units in enumerate(maker.units(documents * 2 // 5 - len(sft))):
            row = {"instruction": joined(units[: len(units) // 3]), "output": joined(units[len(units) // 3 :])}
            shared += [{"text": f"{row['instruction']}\n{row['output']}"}] if i < SHARED else []
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in sft)
    pt += shared
    with (root / "pt.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in pt)
        for units in maker.units(documents * 3 // 5 - len(pt)):
            stream.write(json.dumps({"text": joined(units)}, ensure_ascii=False) + "\n")
    return expected


def save(file: Path, rows: list[dict[str, Any]]) -> None:
    """An object a line."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def family(root: int) -> list[int]:
    """A process and those below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def watch(process: int, stop: threading.Event, peaks: dict[str, int]) -> None:
    """Keep the highest sums of RSS and PSS in bytes."""
    while not stop.wait(0.1):
        sums = {"Rss": 0, "Pss": 0}
        for member in family(process):
            try:
                lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                key, _, value = line.partition(":")
                if key in sums:
                    sums[key] += int(value.split()[0]) * 1024
        for key, value in sums.items():
            peaks[key] = max(peaks.get(key, 0), value)


def run(root: Path, processes: int | None) -> tuple[float, float, dict[str, int], dict[str, Any]]:
    """Seconds by the clock and of the cores, peaks and the result of the command."""
    sets = [
        f"--{kind}={name}={root / file}"
        for kind, name, file in (
            ("train", "pt", "pt.jsonl"),
            ("train", "sft", "sft.jsonl"),
            ("held-out", "valid", "valid.jsonl"),
            ("held-out", "test", "test.jsonl"),
            ("held-out", "choices", "choices.yaml"),
        )
    ]
    more = [] if processes is None else [f"--processes={processes}"]
    started = time.monotonic()
    command = subprocess.Popen([*COMMAND, *sets, *more, "-o", str(root / "out.json")], stdout=subprocess.DEVNULL)
    peaks, stop = {}, threading.Event()
    thread = threading.Thread(target=watch, args=(command.pid, stop, peaks))
    thread.start()
    code = command.wait()
    seconds = time.monotonic() - started
    stop.set()
    thread.join()
    if code:
        raise SystemExit(f"the audit ended with {code}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, used.ru_utime + used.ru_stime, peaks, json.loads((root / "out.json").read_text(encoding="utf-8"))


def judge(result: dict[str, Any], expected: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    """Of the planted items those found as they must be, and items found that were not planted, in Markdown."""
    yield "| planted | level that must find it | found |\n|---|---|---|"
    for kind, where in KINDS.items():
        ids = [(name, key) for name in expected for key in expected[name][kind]]
        hit = [any(w.endswith(where) for w in contaminated(result, name).get(key, ())) for name, key in ids]
        yield f"| {kind} | {where} | {sum(hit)} of {len(hit)} |"
    every = {(name, key) for name in expected for keys in expected[name].values() for key in keys}
    found = {(name, key) for name in result["held_out"] for key in contaminated(result, name)}
    clean = sum(part["n"] for part in result["held_out"].values()) - len(every)
    shared = next(p for p in result["pairs"] if (p["train"], p["against"]) == ("pt", "sft"))
    yield f"\nnot planted, found: {len(found - every)} of {clean}"
    yield f"SFT documents in PT: {shared['found']} found of {SHARED} planted; {shared['cut']} searches cut"


def contaminated(result: dict[str, Any], name: str) -> dict[str, list[str]]:
    """Found items of a held-out set."""
    return result["held_out"][name]["contaminated"]


def main() -> None:
    """Build, run, print."""
    parser = argparse.ArgumentParser(description="What the audit costs; the head of this file says how it is measured.")
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--datasketch", metavar="PYTHON", help="an interpreter that has datasketch")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}\n")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        expected = build(root, options.documents)
        size = sum((root / name).stat().st_size for name in ("pt.jsonl", "sft.jsonl"))
        print(f"{options.documents:,} documents, {size / 1e6:,.0f} MB\n", flush=True)
        seconds, used, peaks, result = run(root, options.processes)
        load = os.getloadavg()[0]
        print(f"{seconds:.0f} s, {used:.0f} s of the cores (load {load:.1f} at the end); ", end="")
        print(f"peak RSS {peaks['Rss'] / 1e9:.2f} GB, peak PSS {peaks['Pss'] / 1e9:.2f} GB\n")
        print("\n".join(judge(result, expected)))
        if options.datasketch:
            part = root / "part.jsonl"
            with (root / "pt.jsonl").open(encoding="utf-8") as stream:
                part.write_text("".join(line for line, _ in zip(stream, range(20_000), strict=False)), encoding="utf-8")
            command = [options.datasketch, "-c", SKETCH, str(root / "valid.jsonl"), str(part)]
            theirs, hits = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rate = 22_000 / theirs
            print(f"\ndatasketch, near level of whole texts alone: {rate:,.0f} documents/s, {hits} hits; one process")


if __name__ == "__main__":
    main()
