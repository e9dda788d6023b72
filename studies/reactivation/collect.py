"""Keep what the case study found: every answer of every run in a few compressed files, so that all tables can be made
again without a model.

    python studies/reactivation/collect.py RUNS RESULTS

RUNS holds the runs of `run.sh`; into RESULTS go the two suites, one file of answers a run, and the verdicts.
"""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

STUDIES = (
    "base",
    "grid",
    "low",
    "texts1",
    "templates",
    "temperature",
    "seed2",
    "texts2",
    "seed3",
    "texts3",
)
SUITES = ("define", "system", "name")
# What the tables are made from; questions, options and references stand in the suites.
FIELDS = ("id", "seed", "output", "opened", "truncated", "tokens", "chosen", "chosen_norm")
GENERATED = ("seed", "output", "opened", "truncated", "tokens", "chosen")


def answers(run: Path) -> Iterator[dict[str, Any]]:
    """The answers of a run to the two suites, a row for each variant, condition, item and seed."""
    for file in sorted(run.glob("evaluate/*/*.jsonl")):
        suite, condition = file.name.removesuffix(".jsonl").split(".", 1)
        if suite not in SUITES:
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("failed"):
                raise ValueError(f"{file}: item {record['id']} has no answer: {record['failed']}")
            row = {"variant": file.parent.name, "suite": suite, "condition": condition}
            row |= {name: record[name] for name in FIELDS if name in record}
            if "generated" in record:
                row["generated"] = [{n: one[n] for n in GENERATED if n in one} for one in record["generated"]]
            if openers := record.get("opener_loglikelihoods"):
                row["think"] = round(openers["<think>"], 4)
            yield row


def perplexities(run: Path) -> dict[str, Any]:
    """Perplexity on unread texts with its interval, of every variant of a run."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    found = {}
    for condition in summary["conditions"].values():
        documents = condition["suites"].get("documents")
        found |= documents["metrics"]["perplexity"] if documents else {}
    return found


def updates(run: Path) -> dict[str, Any]:
    """What is claimed of two updates; by vector and type of module the median effective rank of what they change, over
    the smaller side of the matrix."""
    found = json.loads((run / "analysis.json").read_text(encoding="utf-8"))
    shares: dict[str, dict[str, list[float]]] = {}
    for vector, rows in found["size"].items():
        for row in rows:
            if row["level"] == "module" and row["effective_rank"] is not None:
                known = shares.setdefault(vector, {}).setdefault(row["module"], [])
                known.append(row["effective_rank"] / min(row["shape"]))
    ranks = {vector: {name: median(of) for name, of in types.items()} for vector, types in shares.items()}
    return {"claims": [one for one in found["claims"] if one["primary"]], "ranks": ranks}


def figures(run: Path) -> dict[str, Any]:
    """suite -> variant -> its figure, with the difference to PT alone."""
    (found,) = json.loads((run / "summary.json").read_text(encoding="utf-8"))["conditions"].values()
    wanted = {"name": "acc", "documents": "perplexity"}
    return {suite: found["suites"][suite]["metrics"][metric] for suite, metric in wanted.items()}


def attribution(found: dict[str, Any]) -> dict[str, Any]:
    """What each module of PT does to the loss and to the log-odds of a trace, and how well predictions of it agree with
    taking modules out."""
    targets = {}
    for target, of in found["attribution"].items():
        modules = [
            {"name": one["name"], "layer": one["layer"], "module": one["module"], **one["integrated"]}
            for one in of["modules"]
            if one["adapter"] == found["guest"] and one["integrated"]
        ]
        targets[target] = {key: of[key] for key in ("host_alone", "merge", "change", "completeness")}
        targets[target] |= {"modules": modules, "agreement": found["agreement"][target]}
    return {"weights": found["weights"], "targets": targets}


def keep(runs: Path, results: Path) -> list[str]:
    """Write the results of the runs that are finished beside those that are kept already; return the names of all."""
    results.mkdir(parents=True, exist_ok=True)
    for suite in SUITES:
        for file in (f"{suite}.yaml", f"{suite}.jsonl"):
            (results / file).write_bytes((runs / "reactivation" / "data" / file).read_bytes())
    kept = results / "facts.json"
    facts: dict[str, dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for name in STUDIES:
        run = runs / f"reactivation-{name}"
        if not (run / "report.json").is_file():
            continue
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answers(run))
        # Without a time inside, equal answers are equal bytes.
        (results / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode("utf-8"), 9, mtime=0))
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        facts[name] = {
            "verdicts": {merge: found["verdict"] for merge, found in report["verdicts"].items()},
            "seconds": report["seconds"],
            "perplexity": perplexities(run),
        }
        if report.get("interference"):
            facts[name]["interference"] = attribution(report["interference"])
        if name == "grid":
            facts[name]["claims"] = report["analysis"]["claims"]
    for kind in ("full", "lora"):
        analysed, asked = runs / f"reactivation-{kind}", runs / f"reactivation-{kind}-both"
        if (analysed / "analysis.json").is_file() and (asked / "summary.json").is_file():
            facts[kind] = updates(analysed) | {"both": figures(asked)}
    kept.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return list(facts)


if __name__ == "__main__":
    print(json.dumps(keep(Path(sys.argv[1]), Path(sys.argv[2]))))
