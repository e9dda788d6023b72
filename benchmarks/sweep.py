"""What a search over merge weights costs on a sample study's models, beside files that are written, loaded and asked.

python benchmarks/sweep.py runs/sample                                 5 x 5 weights, 32 generations each, five splits
python benchmarks/sweep.py runs/sample --points 3 --items 8 --splits 2  smaller

Grid: `crossmatch sweep` without halving, in a process of its own, on choices and generations; what is not spent waiting
for answers is the search's own. Peer: three merges, each written by `crossmatch merge` and loaded and asked by the HF
backend of lm-evaluation-harness 0.4.13 (one at a time as it comes, and in batches of 16; an environment and a process
of its own), beside the same three in one model's memory, also in a process of their own; both are given the same
prompts, options and limits. Halving: the goals and constraints of studies/sample-sweep.yaml. Every point is asked every
item once; on these answers the product's own search and confirmation then run with and without halving, over random
splits into search and confirmation.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import evaluate
import merge
from merge import CROSSMATCH, PEERS, REPOSITORY, apart

STUDY = REPOSITORY / "studies/sample-sweep.yaml"
SPAN = 0, 1
# Generations of the confirmation part of the grid: one finalist needs six.
CONFIRMED = 8
# Prompts that the harness takes at a time: its default, and more.
BATCHES = (1, 16)
PEER_WEIGHTS = ({"pt": 0.25, "sft": 0.75}, {"pt": 0.5, "sft": 0.5}, {"pt": 0.25, "sft": 1.0})
HARNESS = """
import json, sys
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
asked = json.load(open(sys.argv[2]))
model = HFLM(pretrained=sys.argv[1], dtype="float32", device="cpu", batch_size=int(sys.argv[3]))
scored = [
    Instance("loglikelihood", {}, (item["prompt"], option), i)
    for item in asked["choices"] for i, option in enumerate(item["options"])
]
values = iter([value for value, _ in model.loglikelihood(scored, disable_tqdm=True)])
how = {"until": asked["until"], "max_gen_toks": asked["limit"], "do_sample": False}
written = [Instance("generate_until", {}, (prompt, how), i) for i, prompt in enumerate(asked["prompts"])]
texts = model.generate_until(written, disable_tqdm=True)
print(json.dumps({"values": [[next(values) for _ in item["options"]] for item in asked["choices"]], "texts": texts}))
"""


@dataclass(frozen=True)
class Size:
    """weights of each adapter, generations of a point, and splits."""

    points: int
    items: int
    splits: int

    @property
    def span(self) -> str:
        """The weights of each adapter."""
        low, high = SPAN
        return f"{low}..{high} step {(high - low) / (self.points - 1):g}"


@dataclass(frozen=True)
class Timed:
    """A process: seconds by the clock, and of CPU, and what it printed."""

    clock: float
    cpu: float
    output: str


def timed(command: Sequence[str]) -> Timed:
    """Run a command. Raises SystemExit with its last line if it fails."""
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ...: {merge.last_line(done.stderr)}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Timed(time.perf_counter() - started, cpu, done.stdout)


def write_suites(study: Path, out: Path, size: Size) -> dict[str, str]:
    """Suite -> its file: the study's, with the first items alone where fewer are asked."""
    counts = {"define": size.items + CONFIRMED, "name": 2 * (size.items + CONFIRMED)}
    found = {}
    for file in sorted((study / "data").glob("*.yaml")):
        rows = file.with_suffix(".jsonl")
        if not rows.exists():
            continue
        lines = rows.read_text().splitlines(keepends=True)
        (out / rows.name).write_text("".join(lines[: counts.get(file.stem, len(lines))]))
        (out / file.name).write_text(file.read_text())
        found[file.stem] = str(out / file.name)
    return found


def recipe_of(study: Path, suites: dict[str, str], size: Size, **settings: Any) -> dict[str, Any]:
    """The sample's sweep, of this study's base and adapters."""
    from crossmatch.sweeping import load_sweep

    known = load_sweep(STUDY).model_dump(exclude_defaults=True)
    models = {"base": str(study / "base"), "adapters": {n: str(study / "adapters" / n) for n in ("pt", "sft")}}
    asked = {"suites": [suites[Path(file).stem] for file in known["suites"]]}
    return {**known, **models, **asked, "space": dict.fromkeys(("pt", "sft"), size.span), **settings}


def confirmed_share(file: str, generations: int) -> float:
    """The share of the confirmation that leaves so many items of a suite to the search."""
    from crossmatch.data.suites import load_suite
    from crossmatch.sweeping.parts import place_of

    places = sorted((place_of(item) for item in load_suite(file).items), reverse=True)
    return (places[generations - 1] + places[generations]) / 2


def grid(recipe: dict[str, Any], root: Path) -> Iterator[str]:
    """The whole grid by the command line, without halving."""
    from crossmatch.checkpoint import read_json

    (root / "grid.yaml").write_text(json.dumps(recipe))
    spent = timed([*CROSSMATCH, "sweep", str(root / "grid.yaml"), "-o", str(root / "grid")])
    facts, times = read_json(root / "grid/sweep.json"), read_json(root / "grid/seconds.json")
    own = times["seconds"] - times["asked_seconds"]
    count, parts = len(facts["points"]), facts["parts"]["search"]
    items = ", ".join(f"{number} of {name}" for name, number in parts.items())
    yield f"| grid without halving | {count} points, {items} each |"
    yield "|---|---|"
    yield f"| the whole command | {spent.clock:.0f} s, {spent.clock / 60:.1f} minutes ({spent.cpu:.0f} s of CPU) |"
    yield f"| start, and opening what it reads | {spent.clock - times['seconds']:.1f} s |"
    yield f"| the model: loading, changes of weights, answers | {times['asked_seconds']:.1f} s |"
    yield f"| the search's own | {own:.1f} s, {100 * own / times['asked_seconds']:.1f}% of the model's |"
    yield f"| recommended | {facts['recommendation']['name']} |"


def in_place(recipe: dict[str, Any], answers: Path) -> float:
    """Ask the three merges, one loaded model after the other's weights; seconds of the asking."""
    from crossmatch.sweeping.prepare import prepare
    from crossmatch.sweeping.recipe import parse_sweep
    from crossmatch.sweeping.run import open_board, workplace_of

    prepared = prepare(parse_sweep(recipe, "benchmark"))
    board, worker = open_board(prepared, answers), workplace_of(prepared, answers)()
    points = [prepared.space.at(weights) for weights in PEER_WEIGHTS]
    started = time.perf_counter()
    for shard in board.open_shards(points, prepared.parts.search):
        worker.answer(shard)
    worker.close()
    return time.perf_counter() - started


def asked_of(prepared: Any, board: Any) -> dict[str, Any]:
    """What a point is asked in the search part, as prompts and options; with the ids."""
    point, ids = prepared.space.at(PEER_WEIGHTS[0]), prepared.parts.search.ids
    questions = {}
    for suite in ("name", "define"):
        cell = board.cell(point, suite)
        questions[suite] = board.asking.questions(cell.suite, cell.condition, cell.scored)
    name, define = questions["name"], questions["define"]
    scored = [name.scorable(name.prompts[i.id], i) for i in name.suite.items if i.id in ids["name"]]
    return {
        "choices": [{"prompt": prompt, "options": list(options)} for prompt, options in scored],
        "choice_ids": [i.id for i in name.suite.items if i.id in ids["name"]],
        "prompts": [define.prompts[key] for key in ids["define"]],
        "prompt_ids": list(ids["define"]),
        "until": [text for _, text in define.stops.tokens],
        "limit": define.suite.settings.max_new_tokens,
    }


def peer(recipe: dict[str, Any], root: Path) -> Iterator[str]:
    """Three points: in one model's memory, and each written, loaded and asked by the harness."""
    from crossmatch.sweeping.prepare import prepare
    from crossmatch.sweeping.recipe import parse_sweep
    from crossmatch.sweeping.run import open_board

    started = time.perf_counter()
    asking = apart(in_place, recipe, root / "three")
    ours = time.perf_counter() - started
    prepared = prepare(parse_sweep(recipe, "benchmark"))
    board = open_board(prepared, root / "three")
    board.logs.refresh()
    asked = asked_of(prepared, board)
    (root / "asked.json").write_text(json.dumps(asked))
    count = len(asked["choices"]), len(asked["prompts"])
    yield f"| three points, {count[0]} choices and {count[1]} generations each | s | a point |"
    yield "|---|---|---|"
    yield f"| crossmatch, with its start | {ours:.1f} | {ours / 3:.1f} |"
    yield f"| crossmatch, without start and imports | {asking:.1f} | {asking / 3:.1f} |"
    reason = merge.install("lm-eval")
    if reason:
        yield f"| lm-eval 0.4.13 | {reason} | |"
        return
    wrote, choices, texts, ran = 0.0, 0, 0, dict.fromkeys(BATCHES, 0.0)
    for weights in PEER_WEIGHTS:
        out = root / "written"
        given = [text for name, value in weights.items() for text in ("-w", f"{name}={value}")]
        given += [text for name, path in recipe["adapters"].items() for text in ("-a", f"{name}={path}")]
        command = [*CROSSMATCH, "merge", recipe["base"], *given, "--no-verify", "--overwrite", "-o", str(out)]
        wrote += timed(command).clock
        python = str(PEERS / "lm-eval/bin/python")
        for batch in BATCHES:
            spent = timed([python, "-c", HARNESS, str(out), str(root / "asked.json"), str(batch)])
            ran[batch] += spent.clock
            same = alike(json.loads(spent.output.splitlines()[-1]), asked, prepared.space.at(weights), board)
            choices, texts = choices + same[0], texts + same[1]
    yield f"| crossmatch merge --no-verify | {wrote:.1f} | {wrote / 3:.1f} |"
    for batch, seconds in ran.items():
        how = f"in batches of {batch}" if batch > 1 else "one at a time, as it comes"
        theirs = wrote + seconds
        yield f"| lm-eval 0.4.13 on the file, with its start, {how} | {seconds:.1f} | {seconds / 3:.1f} |"
        yield f"| with the writing | {theirs:.1f} | {theirs / 3:.1f} |"
        yield f"| over crossmatch with its start | {theirs / ours:.1f} | |"
    of = [len(PEER_WEIGHTS) * len(BATCHES) * number for number in count]
    yield f"| the same answers | {choices} of {of[0]} choices, {texts} of {of[1]} texts | |"


def alike(found: dict[str, Any], asked: dict[str, Any], point: Any, board: Any) -> tuple[int, int]:
    """How many choices, and how many texts, are those of the same point here."""
    scores, written = (board.logs.sheet(board.sheet(point, suite)) for suite in ("name", "define"))
    mine = evaluate.best([scores.get("options", key)["loglikelihoods"] for key in asked["choice_ids"]])
    choices = sum(a == b for a, b in zip(evaluate.best(found["values"]), mine, strict=True))
    texts = [written.get("answer 0", key)["output"].strip() for key in asked["prompt_ids"]]
    return choices, sum(a.strip() == b for a, b in zip(found["texts"], texts, strict=True))


def halving(recipe: dict[str, Any], root: Path, splits: int) -> Iterator[str]:
    """With and without halving on the same answers, over random splits of the items."""
    from crossmatch.runtime import SILENT
    from crossmatch.sweeping.conclusion import conclude
    from crossmatch.sweeping.driver import Driver
    from crossmatch.sweeping.facts import questions_of
    from crossmatch.sweeping.methods import open_method
    from crossmatch.sweeping.parts import Part, Parts
    from crossmatch.sweeping.prediction import open_scores
    from crossmatch.sweeping.prepare import prepare
    from crossmatch.sweeping.recipe import parse_sweep
    from crossmatch.sweeping.run import open_board, search, workplace_of

    answers = root / "grid/answers"
    prepared = prepare(parse_sweep(recipe, "benchmark"))
    board = open_board(prepared, answers)
    driver = Driver(board, prepared.recipe, workplace_of(prepared, answers), root, SILENT)
    scores = open_scores(prepared.source.base, prepared.source.adapters, prepared.recipe.sft)
    items = {name: [item.id for item in suite.items] for name, suite in prepared.source.suites.items()}
    points = {point.name: point for point in [*prepared.space.always, *prepared.space.grid()]}
    driver.ask(list(points.values()), Part("every", {name: tuple(ids) for name, ids in items.items()}))
    yield "| split | questions, whole | halved | saved | first, whole | halved | recommended, whole | halved |"
    yield "|---" * 8 + "|"
    saved, same = [], 0
    for seed in range(splits):
        drawn = {name: random.Random(f"{seed}.{name}").sample(ids, len(ids)) for name, ids in items.items()}
        half = {name: len(ids) // 2 for name, ids in drawn.items()}
        parts = Parts(
            Part("search", {n: tuple(ids[half[n] :]) for n, ids in drawn.items()}),
            Part("confirmation", {n: tuple(ids[: half[n]]) for n, ids in drawn.items()}),
        )
        asked, first, recommended = [], [], []
        for shares in ((), prepared.recipe.halving):
            here = replace(prepared, parts=parts, recipe=prepared.recipe.model_copy(update={"halving": shares}))
            found = search(here, board, driver, open_method(here.recipe, here.space, root, scores))
            end = conclude(board, found.finished, parts.search, parts.confirmation, here.recipe.finalists, driver.ask)
            asked.append(questions_of(found, here)["asked"])
            first.append(end.ranked[0].name if end.ranked else "none")
            recommended.append(end.recommended.name)
        saved.append(1 - asked[1] / asked[0])
        same += len(set(first)) == len(set(recommended)) == 1
        cells = [f"{asked[0]}", f"{asked[1]}", f"{100 * saved[-1]:.0f}%", *first, *recommended]
        yield f"| {seed} | {' | '.join(cells)} |"
    driver.close()
    mean = 100 * sum(saved) / len(saved)
    yield f"\nsaved on average: {mean:.0f}% of the questions; first and recommended the same in {same} of {splits}"


def main() -> None:
    """Print in Markdown."""
    parser = argparse.ArgumentParser(description="What a search over merge weights costs; the head of this file.")
    parser.add_argument("study", type=Path, help="a finished run of studies/sample.yaml, as in runs/sample")
    parser.add_argument("--points", type=int, default=5, help="weights of each adapter, so that a grid has its square")
    parser.add_argument("--items", type=int, default=32, help="generations of a point in the search; twice the choices")
    parser.add_argument("--splits", type=int, default=5, help="seeds of the split over which halving is compared")
    parser.add_argument("--work", type=Path, help="keeps what was asked, so that another run goes on")
    given = parser.parse_args()
    size = Size(given.points, given.items, given.splits)
    versions = ", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch", "transformers"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = (given.work or Path(scratch)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        suites = write_suites(given.study.resolve(), root, size)
        two = {name: suites[name] for name in ("define", "name")}
        timing = {
            "suites": list(two.values()),
            "goals": ["rougeL"],
            "constraints": ["acc not below sft"],
            "halving": [],
            "finalists": 1,
            "confirm": confirmed_share(two["define"], size.items),
        }
        half = confirmed_share(two["define"], (size.items + CONFIRMED) // 2)
        whole = recipe_of(given.study.resolve(), suites, size, confirm=half)
        for part in (
            grid({**whole, **timing}, root),
            peer({**whole, **timing}, root),
            halving(whole, root, size.splits),
        ):
            for line in part:
                print(line, flush=True)
            print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
