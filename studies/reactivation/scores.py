"""What may predict traces, for every merge of the grid and of the other texts: scores from the factors alone, and from
passes of the model over a few questions.

    python studies/reactivation/scores.py RUNS RESULTS
"""

import json
import sys
from pathlib import Path
from typing import Any

from crossmatch import Checkpoint
from crossmatch.adapter import fit, open_vector
from crossmatch.analysis.interference.model_scores import ModelScores
from crossmatch.analysis.interference.weight_scores import WeightScores
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.suites import load_suite
from crossmatch.data.token_classes import read_texts

ITEMS = 12
# The grid, and the other texts in PT's place.
RUNS = ("grid", "texts1", "texts2", "texts3")
TEMPLATE = Path(__file__).parent / "templates" / "answer-only.jinja"


def scored(runs: Path, run: str) -> dict[str, dict[str, Any]]:
    """variant -> every score, of the merges of a run that are SFT and one other adapter."""
    summary = json.loads((runs / f"reactivation-{run}" / "summary.json").read_text(encoding="utf-8"))
    base = Checkpoint(runs / "reactivation-base" / "merges" / "habit1")
    recipe = json.loads((runs / f"reactivation-{run}" / "recipe.json").read_text(encoding="utf-8"))
    paths = {
        name: Path(one["path"]) if one.get("path") else runs / f"reactivation-{run}" / "adapters" / name
        for name, one in recipe["adapters"].items()
    }
    suite = load_suite(str(runs / "reactivation" / "data" / "define.yaml"))
    tokenizer = open_tokenizer(base.path)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    answers = [
        [*suite.messages(item), {"role": "assistant", "content": item.reference}] for item in suite.items[:ITEMS]
    ]
    texts = [text for text in read_texts(tokenizer, answers) if not text.is_probe]
    found: dict[str, dict[str, Any]] = {}
    for other in sorted(set(paths) - {"sft"}):
        vectors = fit(base, {name: open_vector(paths[name]) for name in (other, "sft")}).vectors
        factors, passes = WeightScores(vectors, "sft"), ModelScores(base, vectors, "sft", texts)
        for name, variant in summary["variants"].items():
            weights = variant["weights"]
            if variant["kind"] == "merge" and set(weights) == {other, "sft"}:
                found[name] = {"other": other, **factors.scores(weights), **passes.scores(weights)}
                print(name, found[name], flush=True)
    return found


def main(runs: Path, results: Path) -> None:
    """Score the merges of every run that is finished and not scored yet."""
    file = results / "scores.json"
    scores = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for run in RUNS:
        if run not in scores and (runs / f"reactivation-{run}" / "summary.json").is_file():
            scores[run] = scored(runs, run)
            file.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
