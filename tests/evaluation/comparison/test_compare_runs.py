"""`crossmatch compare`: logs of lm-evaluation-harness and outputs of our own, paired by document."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from crossmatch.cli import run
from crossmatch.errors import DataError, InputError
from crossmatch.evaluation.comparison.lm_eval_samples import read_samples
from crossmatch.evaluation.comparison.run_comparison import RunComparison, Wanted, compare_runs
from crossmatch.evaluation.metrics.bleu_rouge import bleu, bleu_statistics
from crossmatch.statistics.estimates import Difference
from crossmatch.statistics.non_inferiority import non_inferiority
from crossmatch.statistics.proportions import newcombe
from helpers import make_adapter, make_chat_model

DATE = "2026-03-02T10-11-12.345678"
A = [1, 1, 1, 1, 0, 0, 1, 0, 1, 1]
B = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def line(number: int, metrics: Mapping[str, Any], **other: Any) -> dict[str, Any]:
    """A line as release 0.4.9 writes it."""
    row = {
        "doc_id": number,
        "doc": {"question": f"q{number}"},
        "target": "x",
        "arguments": {"gen_args_0": {"arg_0": f"Question: q{number}", "arg_1": " x"}},
        "resps": [[["-1.5", "False"]]],
        "filtered_resps": [["-1.5", "False"]],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": f"hash-{number}",
        "prompt_hash": f"prompt-{number}",
        "target_hash": "target",
        **metrics,
    }
    return {**row, **other}


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def logged(home: Path, tasks: Mapping[str, Sequence[Mapping[str, Any]]], **results: Any) -> Path:
    """A directory as `--output_path` leaves it."""
    for task, rows in tasks.items():
        write(home / "org__model" / f"samples_{task}_{DATE}.jsonl", rows)
    (home / "org__model" / f"results_{DATE}.json").write_text(json.dumps({"model_name": home.name, **results}))
    return home


def accuracies(values: Sequence[float], **other: Any) -> list[dict[str, Any]]:
    return [line(i, {"acc": value}, **other) for i, value in enumerate(values)]


def compared(a: Path, b: Path, **wanted: Any) -> RunComparison:
    return compare_runs(read_samples(a), read_samples(b), Wanted(**wanted))


def test_figures_are_those_of_the_tests_they_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((2, 10))
    rows = [
        [line(i, {"acc": float(x), "f1": f}) for i, (x, f) in enumerate(zip(v, s, strict=True))]
        for v, s in ((A, scores[0].tolist()), (B, scores[1].tolist()))
    ]
    # The order of lines does not matter.
    found = compared(logged(tmp_path / "a", {"t": rows[0]}), logged(tmp_path / "b", {"t": rows[1][::-1]}))
    acc, f1 = found.lines
    gained, lost = sum(b > a for a, b in zip(A, B, strict=True)), sum(a > b for a, b in zip(A, B, strict=True))
    assert acc.difference is not None
    assert f1.difference is not None
    assert (acc.a.value, acc.b.value, acc.a.n) == (0.7, 0.2, 10)
    assert acc.difference.test == "mcnemar-exact"
    assert (acc.difference.gained, acc.difference.lost) == (gained, lost)
    assert acc.difference.p == pytest.approx(binomtest(gained, gained + lost).pvalue)
    assert f1.difference.test == "randomisation"
    assert f1.difference.value == pytest.approx(float((scores[1] - scores[0]).mean()))
    signs = np.array(np.meshgrid(*[[-1, 1]] * 10)).reshape(10, -1)
    changed = np.abs((scores[1] - scores[0]) @ signs)
    exact = float((changed >= abs((scores[1] - scores[0]).sum()) - 1e-9).mean())
    assert f1.difference.p == pytest.approx(exact)
    smaller, larger = sorted([acc.difference.p, exact])
    adjusted = [min(1, 2 * smaller), max(min(1, 2 * smaller), larger)]
    assert sorted([acc.difference.p_holm or 0, f1.difference.p_holm or 0]) == pytest.approx(adjusted)


def test_tasks_filters_and_versions(tmp_path: Path) -> None:
    gsm = [line(i, {"exact_match": x}, filter=f) for f in ("strict-match", "flexible-extract") for i, x in enumerate(A)]
    one = logged(tmp_path / "a", {"gsm8k": gsm, "arc": accuracies(A)}, versions={"arc": 1.0})
    two = logged(tmp_path / "b", {"gsm8k": gsm[:10], "arc": accuracies(B), "boolq": accuracies(A)}, versions={"arc": 2})
    found = compared(one, two)
    assert [(x.task, x.metric) for x in found.lines] == [("arc", "acc"), ("gsm8k/strict-match", "exact_match")]
    text = "\n".join(found.notes)
    assert "only in A: gsm8k/flexible-extract" in text
    assert "only in B: boolq" in text
    assert "arc: version 1.0 in A, version 2 in B" in text
    assert [x.task for x in compared(one, two, tasks=("gsm8k",)).lines] == ["gsm8k/strict-match"]
    with pytest.raises(InputError, match="--task mmlu: not in both runs"):
        compared(one, two, tasks=("mmlu",))
    with pytest.raises(InputError, match="no metric is in both runs; --metric asks for acc_norm"):
        compared(one, two, metrics=("acc_norm",))
    both = logged(tmp_path / "c", {"gsm8k": gsm, "arc": accuracies(A)})
    for old in (False, True):
        # Releases before 0.4.3 have no hashes; some logs have no document either.
        rows = [{k: v for k, v in r.items() if k not in ("doc_hash", "doc")} for r in gsm] if old else gsm
        again = logged(tmp_path / f"d{old}", {"gsm8k": rows, "arc": accuracies(B)})
        with pytest.raises(
            InputError, match="gsm8k/strict-match and gsm8k/flexible-extract hold the same documents"
        ) as e:
            compared(
                both if not old else again, again if not old else logged(tmp_path / "e", {"gsm8k": rows}), pooled=True
            )
        assert "choose one filter or condition of each task, as in --task gsm8k/strict-match" in str(e.value)
    chosen = compared(both, logged(tmp_path / "f", {"gsm8k": gsm}), pooled=True, tasks=("gsm8k/strict-match",))
    assert [x.b.n for x in chosen.lines] == [10]
    # A few documents that two tasks have in common are said.
    few = [accuracies(A), [line(i, {"acc": 1.0}) for i in range(7, 17)]]
    tasks = {"one": few[0], "two": few[1]}
    found = compared(logged(tmp_path / "g", tasks), logged(tmp_path / "h", tasks), pooled=True)
    assert "acc: 3 documents are in several of the tasks, and count in each" in found.notes
    pooled = compared(one, two, pooled=True)
    assert [(x.task, x.metric, x.b.n) for x in pooled.lines] == [
        ("all tasks", "acc", 10),
        ("all tasks", "exact_match", 10),
    ]


def test_unpaired_documents_and_other_prompts_are_counted(tmp_path: Path) -> None:
    one, two = accuracies(A), accuracies(B)[2:]
    two[0]["arguments"] = {"gen_args_0": {"arg_0": "<|user|> q2", "arg_1": " x"}}
    two.append(line(99, {"acc": 1.0}))
    (pairing,) = compared(write(tmp_path / "a.jsonl", one), write(tmp_path / "b.jsonl", two)).pairings
    assert (pairing.paired, pairing.only_a, pairing.only_b, pairing.other_prompts) == (8, 2, 1, 1)


def test_documents_that_are_in_a_data_set_twice(tmp_path: Path) -> None:
    """Two rows of one question have one hash: their numbers tell them apart; a line that was logged twice has not."""
    one, two = (accuracies(values, doc_hash="same") for values in (A, B))
    found = compared(write(tmp_path / "a.jsonl", one), write(tmp_path / "b.jsonl", two[::-1]))
    assert found.lines[0].b.n == 10
    assert found.pairings[0].only_a == 0
    with pytest.raises(DataError, match=r"a\.jsonl, line 11: the document of .*line 1 once more"):
        compared(write(tmp_path / "a.jsonl", [*one, one[0]]), tmp_path / "b.jsonl")


def test_other_data_and_other_answers_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", accuracies(A))
    moved = [{**row, "doc_hash": f"other-{i}"} for i, row in enumerate(accuracies(B))]
    with pytest.raises(DataError, match="no document is in both runs"):
        compared(one, write(tmp_path / "b.jsonl", moved))
    with pytest.raises(DataError, match=r"a\.jsonl, line 1 and .*b\.jsonl, line 1: .*other right answers"):
        compared(one, write(tmp_path / "b.jsonl", accuracies(B, target="y")))


def test_releases_without_hashes_filter_and_metric_names(tmp_path: Path) -> None:
    """0.4.0 wrote none of them; documents are then identified by what was recorded of them."""
    absent = {"doc_hash", "prompt_hash", "target_hash", "filter", "metrics"}
    new = [line(i, {"acc": x}, arguments=[["Question: q0", " x"]]) for i, x in enumerate(A)]
    old = [{key: value for key, value in row.items() if key not in absent} for row in new]
    found = compared(write(tmp_path / "a.jsonl", old), write(tmp_path / "b.jsonl", accuracies(B)))
    assert [(x.metric, x.b.n) for x in found.lines] == [("acc", 10)]
    other = accuracies(B, doc={"question": "another"})
    with pytest.raises(DataError, match="no document is in both"):
        compared(tmp_path / "a.jsonl", write(tmp_path / "b.jsonl", other))


def test_forms_of_values(tmp_path: Path) -> None:
    """Perplexities are ratios of sums, ifeval's lists shares of all; what the harness wrote as text is a number."""
    rng = np.random.default_rng(1)
    nats, words = -rng.random(10) * 9, rng.integers(5, 50, 10)
    lists = [[True] * (i % 3) + [False] for i in range(10)]

    def rows(shift: float) -> list[dict[str, Any]]:
        return [
            line(
                i,
                {
                    "word_perplexity": [float(nats[i]) - shift, int(words[i])],
                    "inst_level_strict_acc": lists[i],
                    "brier_score": [1, [0.25, 0.75]],
                    "acc": "True" if i % 2 else "False",
                    "f1": [1, 0],
                    "bleu": ["reference", "output"],
                },
            )
            for i in range(10)
        ]

    found = compared(write(tmp_path / "a.jsonl", rows(0)), write(tmp_path / "b.jsonl", rows(1)))
    figures = {x.metric: x for x in found.lines}
    assert figures["word_perplexity"].b.value == pytest.approx(math.exp(-(nats - 1).sum() / words.sum()))
    assert not figures["word_perplexity"].higher_is_better
    assert figures["word_perplexity"].point is None
    every = [x for group in lists for x in group]
    assert figures["inst_level_strict_acc"].a.value == pytest.approx(sum(every) / len(every))
    assert figures["brier_score"].a.value == pytest.approx(2 * 0.25**2)
    assert figures["acc"].a.value == 0.5
    assert set(figures) == {"word_perplexity", "inst_level_strict_acc", "brier_score", "acc"}
    assert sum("its figure is not made of a number for each document" in note for note in found.notes) == 2


def test_what_is_no_number_is_said(tmp_path: Path) -> None:
    one, two = accuracies(A), accuracies(B)
    two[3]["acc"] = math.nan
    (note,) = (f"{tmp_path / 'b.jsonl'}, line 4: its value is NaN or infinite",)
    with pytest.raises(InputError, match="no metric is in both runs") as error:
        compared(write(tmp_path / "a.jsonl", one), write(tmp_path / "b.jsonl", two))
    assert note in str(error.value)
    two[3]["acc"] = None
    found = compared(tmp_path / "a.jsonl", write(tmp_path / "b.jsonl", two))
    assert found.lines[0].b.n == 9
    assert "1 documents with a value in one run alone" in "\n".join(found.notes)


def test_which_way_is_better(tmp_path: Path) -> None:
    unknown = ("surprise", "accuracy_drop", "embedding_distance", "exact_mismatch", "bleurt_error", "emissions")
    metrics = {"acc": 1.0, "wer": 0.5, "drift": 0.2, "pass@1": 1.0, "pass_at_10": 1.0, **dict.fromkeys(unknown, 0.5)}
    rows = [line(i, {name: value * (i % 2) for name, value in metrics.items()}) for i in range(8)]
    recorded = {"higher_is_better": {"t": {"drift": False, "acc": None}}}
    found = compared(logged(tmp_path / "a", {"t": rows}, **recorded), logged(tmp_path / "b", {"t": rows}))
    directions = {x.metric: (x.higher_is_better, x.direction) for x in found.lines}
    assert directions["drift"] == (False, "recorded")
    assert directions["wer"] == (False, "known")
    assert directions["acc"] == (True, "known")
    assert directions["pass@1"] == directions["pass_at_10"] == (True, "known")
    assert {directions[name] for name in unknown} == {(None, "unknown")}
    said = f"it is not known whether more or less is better of {', '.join(sorted(unknown))}; say --higher METRIC"
    assert any(note.startswith(said) for note in found.notes)
    files = (tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError, match="--margin 1: it is not known whether .* of surprise; say --higher METRIC or"):
        compared(*files, metrics=("surprise",), margin=1.0)
    given = compared(*files, metrics=("surprise", "acc"), margin=1.0, lower=("surprise",)).lines
    assert {(x.metric, x.higher_is_better, x.direction) for x in given} == {
        ("surprise", False, "given"),
        ("acc", True, "known"),
    }
    for wanted, message in (
        ({"lower": ("surprise",), "higher": ("surprise",)}, "both name surprise"),
        ({"lower": ("suprise",)}, "names suprise, which is not compared"),
    ):
        with pytest.raises(InputError, match=message):
            compared(*files, **wanted)


def test_a_difference_of_unknown_direction_is_neither_better_nor_worse(tmp_path: Path, capsys: Any) -> None:
    files = [
        write(tmp_path / f"{name}.jsonl", [line(i, {"surprise": value + i / 100}) for i in range(20)])
        for name, value in (("a", 0.1), ("b", 0.6))
    ]
    assert run(["compare", *map(str, files)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "B is other (which way is better is not known) than A in 1 of 1" in shown
    assert run(["compare", *map(str, files), "--lower", "surprise"]) == 0
    assert "B is worse than A in 1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda file: file.write_text('{"doc_id": 0}\n{"doc_id": 1'), "line 2: not JSON"),
        (lambda file: file.write_text("[1]\n"), "line 1: no doc_id and no doc_hash"),
        (lambda file: file.write_text(""), "is empty"),
        (lambda file: file.write_bytes(b'{"doc_id": 0, "x": "\xff"}\n'), "not UTF-8"),
        (lambda file: file.unlink(), "does not exist"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it: Callable[[Path], Any], message: str
) -> None:
    one, two = (write(tmp_path / f"{name}.jsonl", accuracies(A)) for name in "ab")
    break_it(two)
    assert run(["compare", str(one), str(two)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(two) in error
    assert error.count("\n") == 1


def test_directories_of_several_runs(tmp_path: Path) -> None:
    home = logged(tmp_path / "a", {"t": accuracies(A)})
    write(home / "org__model" / "samples_t_2025-01-01T00-00-00.jsonl", accuracies(B))
    read = read_samples(home)
    assert "1 older samples files" in read.notes[0]
    assert read.tasks["t"].measure(range(10))["acc"][0][:, 0].tolist() == A
    write(home / "org__other" / f"samples_t_{DATE}.jsonl", accuracies(B))
    with pytest.raises(InputError, match="holds samples in 2 directories; give one of .*org__model.*org__other"):
        read_samples(home)


def many(rng: np.random.Generator, n: int, drop: float) -> tuple[list[float], list[float]]:
    """Right answers of two runs; a tenth flips, and B is worse by `drop`."""
    flips = rng.random(n)
    first = (rng.random(n) < 0.6) | (flips < (0.1 + drop) / 2)
    second = np.where(flips < (0.1 + drop) / 2, False, first)
    second = np.where((flips > 1 - (0.1 - drop) / 2), True, second)
    first = np.where((flips > 1 - (0.1 - drop) / 2), False, first)
    return first.astype(float).tolist(), second.astype(float).tolist()


def test_the_margin_holds_its_error_and_its_number_of_documents() -> None:
    """At a true loss of the margin it says yes in 2.5% of cases; with as many documents as it names for equal runs,
    in four of five."""
    rng, margin = np.random.default_rng(0), 0.03

    def said(n: int, drop: float) -> list[Any]:
        found = []
        for a, b in (many(rng, n, drop) for _ in range(200)):
            both = np.array([b, a]) > 0.5
            gained, lost = int((both[0] & ~both[1]).sum()), int((both[1] & ~both[0]).sum())
            bounds = newcombe(int(both.all(0).sum()), gained, lost, n)
            difference = Difference((gained - lost) / n, *bounds, n, 1.0, "mcnemar-exact")
            found.append(non_inferiority(difference, margin, higher_is_better=True, family=1))
        return found

    assert sum(x.answer == "yes" for x in said(500, margin)) / 200 <= 0.05
    (asked,) = {round(np.median([x.items_if_equal for x in said(300, 0.0) if x.items_if_equal]), -2)}
    assert 0.7 < sum(x.answer == "yes" for x in said(int(asked), 0.0)) / 200 < 0.9
    assert sum(x.answer == "no" for x in said(3000, 0.09)) > 195


def test_the_margin_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    for name, n, drop, code, beginning in (
        ("same", 2500, 0.0, 0, "Yes: B is not worse than A by 2 points."),
        ("worse", 1500, 0.08, 1, "No: B is worse than A by more than 2 points: t acc."),
        ("few", 100, 0.0, 3, "Cannot tell whether B is worse than A by 2 points: too few documents."),
    ):
        one, two = many(rng, n, drop)
        files = [tmp_path / f"{name}-{side}" / f"samples_t_{DATE}.jsonl" for side in "ab"]
        for file, values in zip(files, (one, two), strict=True):
            write(file, accuracies(values))
        assert run(["compare", *map(str, files), "--margin", "2"]) == code, name
        out = capsys.readouterr().out
        assert " ".join(out.split()).startswith(beginning)
        assert run(["compare", *map(str, files), "--margin", "2", "--json"]) == code
        facts = json.loads(capsys.readouterr().out)
        assert facts["schema_version"] == 1
        assert facts["not_worse"] == {0: "yes", 1: "no", 3: "cannot tell"}[code]
        # Without a margin nothing is judged.
        assert run(["compare", *map(str, files)]) == 0
        capsys.readouterr()
    assert run(["compare", *map(str, files), "--margin", "-1"]) == 2
    assert run(["compare", str(files[0]), str(files[0])]) == 2
    assert "are the same run" in capsys.readouterr().err


def test_where_points_are_not_defined(tmp_path: Path) -> None:
    rows = [line(i, {"bits_per_byte": [-3.0 - i, 9], "acc": i % 2}) for i in range(40)]
    files = [write(tmp_path / f"{name}.jsonl", rows) for name in "ab"]
    found = compared(*files, margin=50.0)
    assert found.not_worse == "yes"
    assert any("not held to the margin" in note for note in found.notes)
    with pytest.raises(InputError, match="bits_per_byte have no points"):
        compared(*files, margin=1.0, metrics=("bits_per_byte",))


def test_many_tasks_fit_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(5)
    tasks = [f"mmlu_high_school_european_history_{i}" for i in range(40)]
    for name in ("a", "b"):
        both = {
            t: [
                line(i, {"acc": float(x), "acc_norm": float(x)}, doc_hash=f"{t}-{i}")
                for i, x in enumerate(rng.random(20) < 0.5)
            ]
            for t in tasks
        }
        logged(tmp_path / name, {**both, f"only_{name}": accuracies(A)})
    for more in ([], ["--margin", "1"], ["--pooled", "--margin", "1"]):
        run(["compare", str(tmp_path / "a"), str(tmp_path / "b"), *more])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 15, more
        assert max(map(len, lines)) <= 80, more
        assert "only in A: only_a" in " ".join(lines)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a choice and a generation suite in Chinese, base and adapter."""
    root = tmp_path_factory.mktemp("evaluated")
    make_chat_model(root / "base", initializer_range=0.15)
    make_adapter(root / "base", root / "sft", seed=2, size=0.5)
    words = "anaemia increase decrease level pressure high low answer question term".split()
    rows = [
        {"id": f"i{i}", "question": w, "options": ["heart", "blood"], "answer": i % 2, "reference": f"heart {w} level"}
        for i, w in enumerate(words)
    ]
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "pick.yaml").write_text("name: pick\nversion: 1\nkind: choice\ndata: data.jsonl\n")
    say = "name: say\nversion: 1\nkind: generation\nlanguage: zh\nmatch: text\nmax_new_tokens: 8\ndata: data.jsonl\n"
    (root / "say.yaml").write_text(say)
    suites = ["--suite", str(root / "pick.yaml"), "--suite", str(root / "say.yaml")]
    asked = ["evaluate", str(root / "base"), *suites, "-a", f"sft={root / 'sft'}", "-w", "sft=1", "--kl", "0"]
    assert run([*asked, "-o", str(root / "out")]) == 0
    return root


def test_detail_prints_every_figure_of_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        logged(tmp_path / name, {"quiz": accuracies(A)})
    asked = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--margin", "1"]
    run(asked)
    short = capsys.readouterr().out
    run([*asked, "--detail"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (found,) = compared(tmp_path / "a", tmp_path / "b", margin=1.0).to_dict()["lines"]
    told = " ".join(" ".join(lines).split())
    for figure in (
        f"{found['difference']['test']} over {len(A)} pairs: p = {found['difference']['p']:.2g}",
        f"B alone right {found['difference']['gained']}",
        f"{found['non_inferior']['items_if_equal']:,} documents if equal",
    ):
        assert figure in told
        assert figure not in short
    # Equal runs are as they were seen: one number, said once.
    assert "documents would decide." in " ".join(short.split())


def test_two_variants_of_one_evaluation(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = evaluated / "out"
    capsys.readouterr()
    assert run(["compare", f"{out}:base", f"{out}:sft", "--json"]) == 0
    lines = {(x["task"], x["metric"]): x for x in json.loads(capsys.readouterr().out)["lines"]}
    summary = json.loads((out / "summary.json").read_text())["conditions"]["own.greedy"]["suites"]
    for suite, metric in (("pick", "acc"), ("say", "exact"), ("say", "rougeL")):
        entry = summary[suite]["metrics"][metric]
        found = lines[f"{suite}.own.greedy", metric]
        assert [found[side]["value"] for side in "ab"] == [entry[v]["value"] for v in ("base", "sft")]
        against = entry["base"]["difference"]
        assert against["value"] == pytest.approx(-found["difference"]["value"])
        assert against["p"] == found["difference"]["p"]
    # The language decides how BLEU counts words.
    rows = [json.loads(row) for row in (out / "sft" / "say.own.greedy.jsonl").read_text().splitlines()]
    table = bleu_statistics([r["answer"] for r in rows], [r["reference"] for r in rows], "zh")
    expected = float(bleu(table.mean(0, keepdims=True), len(rows))[0])
    assert lines["say.own.greedy", "bleu"]["b"]["value"] == pytest.approx(expected)


def test_which_variant_is_meant(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(evaluated / "out")
    for arguments, message in (
        ([out, f"{out}:sft"], "holds several variants; write"),
        ([f"{out}:base", f"{out}:pt"], "has no variant pt; there are base, sft"),
        ([f"{out}:base", str(evaluated / "base")], "holds no samples_*.jsonl and no summary.json"),
        ([f"{out}:base", f"{evaluated / 'base'}:x"], "has no summary.json, so it has no variants"),
    ):
        assert run(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err
    file = write(evaluated / "samples.jsonl", accuracies(A))
    assert run(["compare", f"{out}:base", str(file)]) == 2
    assert "give two runs of one kind" in capsys.readouterr().err


def test_unanswered_items_are_left_out_and_counted(evaluated: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "other"
    (out / "base").mkdir(parents=True)
    (out / "summary.json").write_text((evaluated / "out" / "summary.json").read_text())
    for file in (evaluated / "out" / "base").glob("*.jsonl"):
        rows = [json.loads(row) for row in file.read_text().splitlines()]
        kept = ("variant", "suite", "suite_version", "condition", "model_digest", "id", "question", "prompt_digest")
        rows[0] = {**{k: rows[0][k] for k in kept}, "failed": "no reply"}
        write(out / "base" / file.name, rows)
    assert run(["compare", f"{out}:base", f"{evaluated / 'out'}:sft"]) == 0
    assert "2 without an answer left out" in " ".join(capsys.readouterr().out.split())
