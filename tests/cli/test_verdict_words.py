"""How a verdict reads on a terminal of 80 columns."""

from pathlib import Path

import pytest

from crossmatch.cli import run
from crossmatch.cli.verdict_output import show
from crossmatch.report.text import columns, paragraph
from crossmatch.verification.verdict import Finding, RecoveredWeight, Verdict
from crossmatch.verification.verdict_record import swallowed
from crossmatch.verification.weights.estimate import Estimate
from crossmatch.verification.weights.findings import weights_text
from crossmatch.verification.weights.module_verdicts import Thresholds
from helpers import make_llama

_NAMES = tuple(f"model.layers.{n}.self_attn.q_proj.weight" for n in range(210))
_ROUTE = "PEFT, combined in bfloat16: base in bfloat16, factors rounded to bfloat16, weight on A, delta rounded"


def made(word: str = "failed", *findings: Finding, **fields: object) -> Verdict:
    """A verdict on 210 modules at 0.3 and 0.7."""
    facts = {
        "weights": {"pt": RecoveredWeight(0.3, 0.3, 6e-6), "sft": RecoveredWeight(0.7, 0.69999, 1e-5)},
        "modules": {"adapted": 210, "agree": 210, "disagree": 0, "undecided": 0},
        "tensors": {"total": 272, "untouched_identical": 62, "untouched_changed": [], "missing": [], "extra": []},
        "rounding": {"route": "twice", "violations": 0.0, "arithmetic": _ROUTE},
    }
    return Verdict(word, findings, **{**facts, **fields})  # pyright: ignore[reportArgumentType]


def shown(verdict: Verdict, capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stdout, and no line of it is too long."""
    show("merged", verdict)
    out = capsys.readouterr().out
    assert max(map(columns, out.splitlines())) <= 79
    return out


def test_every_line_fits_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    missed = {"one row": 0.5, "a tenth of the rows": 0.01, "a hundredth of the rows": 0.3, "half of the rows": 1e-9}
    sampled = {"rows": 12, "of": 4096, "tensor": _NAMES[0], "missed": missed}
    finding = Finding("unexplained-delta", _NAMES, "a remainder of 1.7e-03 of the base's norm, of effective rank 18")
    evidence = {"sampled": sampled, "not_checked": ["the tokenizer " * 10]}
    notes = ("rounded-twice", "rounding-swallow", "dtype-changed")
    out = shown(made("failed", finding, notes=notes, evidence=evidence), capsys)
    # Columns of the weights stay, and what is wrapped is indented below its first line.
    assert "\n  pt           claimed 0.3      recovered 0.30000 ± 6e-06\n" in out
    assert "\n  rounding: PEFT, combined in bfloat16: base in bfloat16, factors rounded to\n    bfloat16" in out
    assert " ".join(out.split()).count("and 207 more") == 1
    assert "\n  Seen: a remainder" in out


def test_long_words_stay_whole_when_a_text_is_wrapped() -> None:
    path = "/a/" + "b" * 90
    assert paragraph(f"look at {path} again", 2).splitlines() == ["  look at", f"  {path}", "  again"]


def test_a_long_path_is_parted_behind_its_slashes(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/models/" + "a-directory-of-some-length/" * 6 + "merged"
    show(path, made("failed", evidence={"not_checked": [f"{path}/tokenizer.json differs"]}))
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "FAILED"
    assert max(map(columns, out.splitlines())) <= 79
    assert path in "".join(out.split())


def test_a_long_error_is_wrapped_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ["identify", "no/such/" + "directory/" * 3, "--base", "no/base", "-a", "a=" + "no/adapter/" * 8]
    assert run(missing) == 2
    plain_line = capsys.readouterr().err
    assert plain_line.count("\n") == 1
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert run(missing) == 2
    wrapped = capsys.readouterr().err
    assert wrapped.count("\n") > 1
    assert wrapped.split() == plain_line.split()


def test_what_is_left_over_says_why_it_is_honest(capsys: pytest.CaptureFixture[str]) -> None:
    evidence = {"left_over": 0.0081, "unseen": 0.0001}
    out = " ".join(shown(made("verified", evidence=evidence), capsys).split())
    assert "at most 0.81% of the claimed delta, in any module: what the rounding above leaves open" in out
    assert "0.01%, spread over a module, would be seen (99%), by single elements" in out
    # A rounding that no program has: the larger remainder is noise, and nothing is said of single elements.
    odd = {"route": "twice", "violations": 0.01}
    out = shown(made("verified", evidence=evidence, rounding=odd), capsys)
    assert "noise no larger than one more rounding" in " ".join(out.split())
    assert "by single elements" not in out


def test_weights_beside_something_unexplained_have_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("unexplained-delta", _NAMES, "a remainder", unclaimed=True)
    weights, none = {"pt": RecoveredWeight(None, 0.31427, 5e-4)}, {"adapted": 210, "agree": 0}
    out = shown(made("failed", finding, weights=weights, modules=none), capsys)
    assert "recovered 0.31\n" in out
    assert "±" not in out
    assert "not reliable beside what is unexplained" in out
    # Nobody claimed anything: what to do speaks of what was given.
    assert "claim" not in out
    assert "give it as one more -a" in " ".join(out.split())
    # Where the others agree, one odd module shifts nothing.
    assert "0.31427 ± 0.0005" in shown(made("failed", finding, weights=weights), capsys)
    assert "beside the claimed adapters" in shown(made("failed", Finding("unexplained-delta")), capsys)


def test_an_adapter_alone_is_said_and_a_weight_within_its_error_is_0() -> None:
    names, claimed, t = ("pt", "sft"), (0.3, 0.7), Thresholds()
    alone = Estimate((1.945e-6, 1.00001), (6e-6, 9e-6), 1000, 1.0, True)
    assert weights_text(alone, claimed, names, t) == "pt 0 for 0.3; sft 1 for 0.7: this is sft alone"
    both = Estimate((0.09, 0.49), (6e-6, 9e-6), 1000, 1.0, True)
    assert weights_text(both, claimed, names, t) == "pt 0.09 for 0.3; sft 0.49 for 0.7"


def test_the_note_on_swallowed_energy_has_its_figures() -> None:
    lost = {"swallowed_energy": 0.2486, "swallowed_by_adapter": {"pt": 0.4838, "sft": 0.29, "none": None}}
    noted = swallowed(("rounding-swallow",), lost)  # pyright: ignore[reportArgumentType]
    assert noted == {"rounding-swallow": "25% of the delta's energy is lost (48% of pt's, 29% of sft's)"}
    assert swallowed((), lost) == {}  # pyright: ignore[reportArgumentType]
    verdict = made("verified", notes=("rounding-swallow",), evidence={"noted": noted})
    assert "before it ships, evaluate the file" in verdict.explained("rounding-swallow")
    assert verdict.explained("rounding-swallow").endswith("29% of sft's)")


def test_detail_lists_the_modules_that_do_not_agree(capsys: pytest.CaptureFixture[str]) -> None:
    def module(name: str, state: str) -> dict[str, object]:
        found = {"pt": {"recovered": 0.09, "stderr": 1e-5}, "sft": {"recovered": -3e-6, "stderr": 1e-5}}
        return {"name": name, "state": state, "weights": found}

    details = (*(module(name, "disagree") for name in _NAMES[:25]), module("agreeing", "agree"))
    show(
        "merged",
        made("failed", Finding("weights-squared"), details=details, thresholds=vars(Thresholds())),
        detail=True,
    )
    out = capsys.readouterr().out
    assert "modules that do not agree, 25 of 26:" in out
    assert f"  {_NAMES[5]}: disagree, holds pt 0.09, sft 0\n" in out
    assert _NAMES[19] in out
    assert _NAMES[20] not in out
    assert "and 5 more" in out
    assert "agreeing" not in out
    show("merged", made("verified", details=(module("agreeing", "agree"),)), detail=True)
    assert "modules: all agree." in capsys.readouterr().out
    assert "modules" not in shown(made("failed", details=details), capsys).replace("adapted modules", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base", "b", "-a", "pt=p"], "-w NAME=NUMBER is missing"),
        (["--base", "b", "-a", "pt=p"], "if nobody knows the weights: crossmatch identify"),
        (["-a", "pt=p", "-w", "pt=1"], "--base BASE is missing"),
        (["--base", "b"], "-a NAME=PATH and -w NAME=NUMBER are missing"),
        (["--base", "b", "-a", "pt=p", "-w", "pt=0,3"], "decimals take a point: 0.3"),
    ],
)
def test_a_claim_in_part_says_what_is_missing(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_llama(tmp_path / "b")
    assert run(["verify", str(tmp_path / "b"), *(str(tmp_path / "b") if word == "b" else word for word in words)]) == 2
    assert said in capsys.readouterr().err
