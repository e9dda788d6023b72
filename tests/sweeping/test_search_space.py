"""The space: spans, weights by module and depth, rules, and what is refused."""

from typing import Any

import pytest

from crossmatch.errors import CrossmatchError
from crossmatch.rules import Weights
from crossmatch.sweeping import parse_sweep
from crossmatch.sweeping.space import parse_dimension

PLAIN: dict[str, Any] = {"base": "b", "adapters": {"pt": "p", "sft": "s"}, "suites": ["x.yaml"]}


def opened(**changes: Any) -> Any:
    return parse_sweep({**PLAIN, **changes}, "test").opened_space()


def test_spans_lists_and_numbers() -> None:
    assert parse_dimension("pt", "0..1 step 0.25").values == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert parse_dimension("pt", "0..0.3 step 0.1").values == (0.0, 0.1, 0.2, 0.3)
    assert parse_dimension("pt", "-0.5..0.5").values == ()
    assert parse_dimension("pt", [0.1, 0.1, 2]).values == (0.1, 2.0)
    assert parse_dimension("pt", "0,0.3").values == (0.0, 0.3)


def test_a_grid_holds_every_model_once() -> None:
    space = opened(space={"pt": "0..1 step 0.5", "sft": "0..1 step 0.5"})
    assert [p.name for p in space.grid()] == [
        *("base", "sft0.5", "sft", "pt0.5", "pt0.5+sft0.5"),
        *("pt0.5+sft1", "pt", "pt1+sft0.5", "pt1+sft1"),
    ]
    assert {p.name: p.kind for p in space.grid()}["sft0.5"] == "control"
    assert [p.name for p in space.always] == ["base", "pt", "sft"]
    merge = next(p for p in space.grid() if p.name == "pt1+sft0.5")
    assert space.control_of(merge).name == "sft0.5"


def test_weights_by_module_type_and_depth() -> None:
    space = opened(space={"pt": {"all": [0.0, 0.5], "mlp": 0.2, "layers[1:]": "0..1 step 0.5"}}, fixed={"sft": 1})
    point = space.at({"pt": 0.5, "pt.mlp": 0.2, "pt.layers[1:]": 1.0, "sft": 1.0})
    assert point.weights == {"pt": Weights(0.5, (("mlp", 0.2), ("layers[1:]", 1.0))), "sft": 1.0}
    assert space.at({"pt": 0.5, "pt.mlp": 0.5, "pt.layers[1:]": 0.5, "sft": 1.0}).weights == {"pt": 0.5, "sft": 1.0}


def test_rules_with_parameters_and_templates_are_points_too() -> None:
    space = opened(
        space={"pt": [0.5]} | {"sft": [0.5, 1]},
        rules={"linear": {}, "ties": {"density": [0.2, 0.5]}},
        templates=["own", "nothink"],
    )
    names = [p.name for p in space.grid()]
    assert len(names) == 2 * 3 * 2
    assert "pt0.5+sft1-ties-density0.2@nothink" in names
    assert len({p.variant.name for p in space.grid()}) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed": {"pt": 0.3, "sft": 1}}, "no weight is free"),
        ({"space": {"pt": "0..1"}}, "space.pt: a grid needs steps"),
        ({"space": {"pt": {f"layers[{i}]": "0..1 step 0.5" for i in range(5)}}}, "at most 4"),
        ({"space": {"pt": "1..0"}}, "holds nothing"),
        ({"space": {"pt": "much"}}, "no number, nor a span"),
        ({"space": {"pt": {"atn[": [0, 1]}}}, "a selector is"),
        ({"space": dict.fromkeys(("pt", "sft"), "0..1 step 0.01")}, "10201 points"),
        ({"space": {"ptt": "0..1"}}, "no adapter of this sweep; did you mean pt"),
        ({"spaec": {}}, "unknown key spaec; did you mean space"),
        ({"rules": {"tise": {}}}, "did you mean ties"),
        ({"rules": {"ties": {"densty": 0.5}}}, "did you mean density"),
        ({"rules": {"regmean": {}}}, "crossmatch calibrate"),
        ({"halving": [0.5, 0.25]}, "ascending shares"),
        ({"executor": "rya"}, "give one of local, ray, slurm"),
        ({"executor": "ray:worker=2"}, "did you mean workers"),
        ({"reference": "dpo"}, "reference: dpo is no adapter"),
    ],
)
def test_what_cannot_be_searched_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CrossmatchError) as caught:
        opened(**changes).grid()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
