"""What may be changed of a merge, and the weights that say so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossmatch.delta import LowRank, TuningVector
from crossmatch.evaluation.conditions import Condition
from crossmatch.rules import Weights, parse_weight, weight_at
from crossmatch.sweeping.changes import changes_of, weakened
from crossmatch.sweeping.gates import Foretold
from crossmatch.sweeping.space import Point

MODULES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
NAMES = [f"model.layers.{layer}.{module}.weight" for layer in range(6) for module in MODULES]
SELECTORS = st.sampled_from(["attn", "mlp", "q_proj", "layers[2]", "layers[:3]", "layers[4:]", "layers[1:5].mlp"])


def vector(seed: int, names: list[str] = NAMES) -> TuningVector:
    torch.manual_seed(seed)
    return TuningVector(
        {name: LowRank(torch.randn(8, 2), torch.randn(2, 8), torch.ones(2, dtype=torch.float64)) for name in names}
    )


def merge(**weights: float | str) -> Point:
    return Point({name: parse_weight(weight) for name, weight in weights.items()}, "merge", Condition())


@given(
    st.lists(st.tuples(SELECTORS, st.sampled_from([0.0, 0.25, 2.0])), max_size=4),
    SELECTORS,
    st.sampled_from([0.0, 0.5]),
)
def test_lowered_weights_are_lowered_there_and_nowhere_else(
    overrides: list[tuple[str, float]], where: str, factor: float
) -> None:
    before = Weights(0.8, tuple(overrides))
    after = before.lowered(where, factor, NAMES)
    inside = Weights(0.0, ((where, 1.0),))
    for name in NAMES:
        assert after.at(name) == pytest.approx(before.at(name) * (factor if inside.at(name) else 1.0))
    after.check(NAMES)
    assert Weights.parse(str(after)) == after


def test_the_smallest_changes_come_first_and_none_is_the_whole() -> None:
    vectors = {"pt": vector(1), "sft": vector(2)}
    changes = changes_of(merge(pt=0.5, sft=1), "sft", vectors, None)
    assert [change.kept for change in changes] == sorted((change.kept for change in changes), reverse=True)
    words = {change.what for change in changes}
    places = ("layers 0-1", "layers 2-3", "layers 4-5", "attention modules", "MLP modules")
    assert words == {"projecting pt off sft's subspace"} | {
        f"lowering pt to {weight} in {place}" for place in places for weight in ("0", "0.25")
    }
    assert len({change.point.name for change in changes}) == len(changes)
    one = next(change for change in changes if change.what == "lowering pt to 0 in layers 4-5")
    assert one.point.weights == {"pt": Weights(0.5, (("layers[4:6]", 0.0),)), "sft": 1.0}
    whole, part = (vectors["pt"].norm(), TuningVector({n: vectors["pt"][n] for n in NAMES[:16]}).norm())
    assert one.kept == pytest.approx(part / whole)
    # Its null has as much of the norm.
    null = weakened(one, merge(pt=0.5, sft=1))
    assert null.weights == {"pt": pytest.approx(0.5 * part / whole, abs=1e-4), "sft": 1.0}


def test_of_an_adapter_with_attention_alone_there_are_thirds_alone() -> None:
    vectors = {"pt": vector(1, [name for name in NAMES if "attn" in name]), "sft": vector(2)}
    words = [change.what for change in changes_of(merge(pt="0.5,layers[4:]:0", sft=1), "sft", vectors, None)]
    assert not any("modules" in word for word in words)
    # Nothing is left to lower where it has no weight.
    assert not any("layers 4-5" in word for word in words)
    assert "lowering pt to 0.5 of its weight in layers 0-1" in words


def test_a_projection_is_off_what_a_calibration_holds_or_is_not_tried(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from crossmatch.rules import Calibration

    vectors, target = {"pt": vector(1), "sft": vector(2)}, merge(pt=0.5, sft=1)
    inputs = {f"{name.removesuffix('.weight')}.inputs": torch.randn(3, 8) for name in NAMES}
    save_file(inputs, tmp_path / "traces.safetensors")
    words = {c.what: c for c in changes_of(target, "sft", vectors, Calibration(tmp_path / "traces.safetensors"))}
    found = words["projecting pt off what traces.safetensors protects"]
    assert found.point.recipe.calibration is not None
    assert 0 < found.kept < 1
    inputs.popitem()
    save_file(inputs, tmp_path / "part.safetensors")
    every = changes_of(target, "sft", vectors, Calibration(tmp_path / "part.safetensors"))
    assert not any("projecting" in change.what for change in every)


def test_gates_foretell_a_change_by_what_it_takes_away() -> None:
    vectors, target = {"pt": vector(1), "sft": vector(2)}, merge(pt=0.5, sft=1)
    added = {name: float(number) for number, name in enumerate(NAMES)}
    told = Foretold("ask", 3, "loss", {"pt": added})
    for change in changes_of(target, "sft", vectors, None):
        if change.what.startswith("projecting"):
            assert told.change(target, change) is None
            continue
        lost = {n: 1 - weight_at(change.point.weights["pt"], n) / 0.5 for n in NAMES}
        assert told.change(target, change) == pytest.approx(-sum(lost[n] * added[n] for n in NAMES))


def test_gates_of_every_kind_of_suite_read_its_right_answers(searched: Path) -> None:
    from crossmatch.data.chat_templates import open_tokenizer
    from crossmatch.data.suites import load_suite
    from crossmatch.sweeping.gates import _texts

    tokenizer = open_tokenizer(searched / "base")
    for name in ("ask", "pick"):
        suite = load_suite(searched / f"{name}.yaml")
        texts = [text for text in _texts(tokenizer, suite, ["0", "1"]) if not text.is_probe]
        said = [tokenizer.decode(text.ids[text.start :]) for text in texts]
        assert all(suite.solution(item) in one for item, one in zip(suite.items, said, strict=False))
    plain = cast(
        Any, SimpleNamespace(settings=SimpleNamespace(kind="text"), items=load_suite(searched / "ask.yaml").items)
    )
    assert all(text.start == 1 for text in _texts(tokenizer, plain, ["0", "1"]))
