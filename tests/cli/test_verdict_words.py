"""How a verdict reads on a terminal of 80 columns."""

import pytest

from crossmatch.cli import run
from crossmatch.cli.verdict_output import show
from crossmatch.report.text import columns, paragraph
from crossmatch.verification.verdict import Finding, RecoveredWeight, Verdict

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
