"""The command line: exit codes, one clear line for bad input, JSON on stdout, nothing half-written."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from test_kinds import tune

from crossmatch.cli import run
from helpers import copy, make_gpt2


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def pair(models: Path, pt: str = "0.3", sft: str = "0.7") -> list[str]:
    return ["-a", f"pt={models / 'pt'}", "-a", f"sft={models / 'sft'}", "-w", f"pt={pt}", "-w", f"sft={sft}"]


def test_merge_then_verify(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(models, tmp_path / "m")
    models, out = tmp_path / "m", tmp_path / "m" / "merged"
    code, text, hint = call(capsys, "merge", models / "base", *pair(models), "-o", out)
    assert code == 0
    assert "14 tensors merged, 7 copied; verified" in text
    assert f"crossmatch verify {out}" in hint
    code, text, _ = call(capsys, "verify", out)
    assert code == 0
    assert text.startswith("VERIFIED")
    code, text, _ = call(capsys, "verify", out, "--json", "--detail")
    result = json.loads(text)
    assert (code, result["verdict"], len(result["details"])) == (0, "verified", 14)
    code, text, _ = call(capsys, "verify", out, "--base", models / "base", *pair(models, "0.7", "0.3"))
    assert code == 1
    assert text.startswith("FAILED")
    assert "weights-swapped: the adapters' weights are exchanged." in text
    code, text, _ = call(capsys, "verify", out, "-w", "pt=0.5")
    assert code == 1
    assert "claimed 0.5" in text
    assert call(capsys, "verify", out, "-w", "x=1")[0] == 2
    code, text, _ = call(capsys, "verify", models / "base", "--base", models / "base", *pair(models, "0", "0"))
    assert (code, text[:8]) == (0, "VERIFIED")


def test_inconclusive_is_exit_3(models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The same adapter under two names: their weights cannot be told apart."""
    twin = ["-a", f"a={models / 'pt'}", "-a", f"b={models / 'pt'}", "-w", "a=0.3", "-w", "b=0.2"]
    assert call(capsys, "merge", models / "base", *twin, "-o", tmp_path / "out")[0] == 0
    code, text, _ = call(capsys, "verify", tmp_path / "out", "--base", models / "base", *twin, "--json")
    assert code == 3
    result = json.loads(text)
    assert result["verdict"] == "inconclusive"
    assert result["weights"]["a"] == {"claimed": 0.3, "recovered": None, "stderr": None}


def test_dry_run_writes_nothing(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = call(capsys, "merge", models / "base", *pair(models), "-o", tmp_path / "out", "--dry-run", "--json")
    assert code == 0
    assert json.loads(text)["counts"] == {"merge": 14, "copy": 7, "cast": 0}
    assert "14 to merge" in call(capsys, "merge", models / "base", *pair(models), "--dry-run")[1]
    assert list(tmp_path.iterdir()) == []


def test_inspect(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = call(capsys, "inspect", models / "base", "--json")
    facts = json.loads(text)
    assert (code, facts["kind"], facts["tensors"], facts["dtypes"]) == (0, "checkpoint", 21, {"BF16": 21})
    code, text, _ = call(capsys, "inspect", models / "pt", "--json")
    facts = json.loads(text)
    assert (code, facts["kind"], facts["ranks"], facts["scales"]) == (0, "adapter", {"8": 14}, {"2": 14})
    assert facts["targets"]["q_proj"] == 2
    assert len(facts["digest"]) == 64
    for name in ("base", "pt"):
        code, text, _ = call(capsys, "inspect", models / name)
        assert code == 0
        assert max(len(x) for x in text.splitlines() if not x.startswith(("path", "base"))) <= 80


@pytest.mark.parametrize(
    ("config", "ranks"),
    [
        ({"use_dora": True}, {"4": 2}),
        ({"modules_to_save": ["lm_head", "norm"]}, {"4": 2}),
        ({"trainable_token_indices": [3, 200]}, {"4": 2}),
    ],
)
def test_inspect_has_no_norm_of_what_is_relative_to_its_base(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, Any], ranks: dict[str, int]
) -> None:
    tune(models / "base", tmp_path / "a", **config)
    code, text, _ = call(capsys, "inspect", tmp_path / "a", "--json")
    facts = json.loads(text)
    # Ranks are counted where there are factors.
    assert (code, facts["norm"], facts["ranks"]) == (0, None, ranks)
    code, text, _ = call(capsys, "inspect", tmp_path / "a")
    assert code == 0
    assert re.search(r"^norm +needs the base", text, re.MULTILINE)


def test_bad_input_is_one_line_and_exit_2(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, out = models / "base", tmp_path / "out"
    make_gpt2(tmp_path / "gpt2")
    truncated = copy(base, tmp_path / "truncated")
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    empty = tmp_path / "empty"
    empty.mkdir()
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("x")
    stray = copy(models / "pt", tmp_path / "stray")
    tensors = load_file(stray / "adapter_model.safetensors")
    save_file({k.replace("layers", "lawyers"): v for k, v in tensors.items()}, stray / "adapter_model.safetensors")
    before = sorted(p.name for p in tmp_path.iterdir())
    adapters = pair(models)
    cases: list[tuple[list[object], str]] = [
        (["merge", tmp_path / "none", *adapters, "-o", out], "does not exist"),
        (["merge", empty, *adapters, "-o", out], "holds no *.safetensors"),
        (["merge", pickled, *adapters, "-o", out], "convert them"),
        (["merge", truncated, *adapters, "-o", out], "not a whole safetensors file"),
        (["merge", tmp_path / "gpt2", *adapters, "-o", out], "different architectures"),
        (["merge", base, "-a", f"x={stray}", "-w", "x=1", "-o", out], "match nothing"),
        (["merge", base, *pair(models, "nan"), "-o", out], "finite number"),
        (["merge", base, *pair(models, "a lot"), "-o", out], "'a lot' is not a number"),
        (["merge", base, "-a", f"pt={models / 'pt'}", "-o", out], "adapter pt has no weight; add -w pt=NUMBER"),
        (["merge", base, "-w", "pt=1", "-o", out], "weight pt has no adapter"),
        (["merge", base, "-o", out], "no adapter given"),
        (["merge", base, *adapters, "-w", "pt=1", "-o", out], "given twice"),
        (["merge", base, "-a", "pt", "-o", out], "write it as NAME=VALUE"),
        (["merge", base, "-a", f"../pt={models / 'pt'}", "-w", "../pt=1", "-o", out], "a name is letters"),
        (["merge", base, *adapters, "-o", base, "--overwrite"], "one directory, or one lies in the other"),
        (["merge", base, *adapters], "no output given"),
        (["merge", base, *adapters, "-o", full], "not empty"),
        (["merge", base, *adapters, "-o", out, "--dtype", "int8"], "give one of float32"),
        (["merge", base, *adapters, "-o", out, "--rule", "tie"], "no rule is called 'tie'"),
        (["verify", base], "has no crossmatch.json"),
        (["verify", base, *adapters], "has no crossmatch.json"),
        (["merge", base, *adapters[:4], "-w", "pt=1", "-w", "stf=1", "-o", out], "did you mean sft?"),
        (["merge", base, *adapters, "--tokenizer", "x", "--dry-run"], "give base or one of pt, sft"),
        (["merge", models / "pt", *adapters, "-o", out], "is an adapter; a whole model is needed"),
        (["evaluate", base, *adapters, "--suite", tmp_path / "s.jsonl", "-o", out], "give the YAML file"),
        (["inspect", base / "config.json"], "is a file"),
        (["inspect", "no/such-model"], "no directory no/such-model here, and the hub"),
        (["train", base, "--stage", "rl", "--data", "x.jsonl", "-o", out], "give pt or sft"),
        (["train", base, "--stage", "pt", "--data", "x.jsonl", "-o", out], "x.jsonl does not exist"),
        (["train", base, "--stage", "pt", "--data", "x", "-o", out, "--set", "rang=3"], "did you mean rank"),
        (["train", base, "--stage", "pt", "--data", "x", "-o", out, "--set", "rank=0"], "greater than or equal to 1"),
        (["run", tmp_path / "none.yaml"], "does not exist"),
        (["report", tmp_path], "holds no report.json"),
        (["evaluate", base, *adapters, "--suite", tmp_path / "none.yaml", "-o", out], "cannot be read"),
    ]
    for arguments, message in cases:
        code, text, err = call(capsys, *arguments)
        lines = [line for line in err.splitlines() if line.startswith("error:")]
        assert (code, text, len(lines)) == (2, "", 1), (arguments, err)
        assert message in lines[0], (arguments, err)
        assert "Traceback" not in err
        assert sorted(p.name for p in tmp_path.iterdir()) == before, arguments


def test_half_a_file_is_a_verdict(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = copy(models / "base", tmp_path / "out")
    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, text, _ = call(capsys, "verify", out, "--base", models / "base", *pair(models), "--json")
    assert (code, [f["fault"] for f in json.loads(text)["findings"]]) == (1, ["export-incomplete"])


@pytest.mark.parametrize("arguments", [["no-such-command"], ["merge"], ["verify", "--no-such-option", "x"]])
def test_bad_usage_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err


def test_a_fault_of_ours_is_exit_4(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("crossmatch.vectors.facts.locate", broken)
    code, _, err = call(capsys, "inspect", models / "base")
    assert code == 4
    assert "internal error: ZeroDivisionError" in err
    assert "Traceback" not in err
    code, _, err = call(capsys, "--debug", "inspect", models / "base")
    assert "Traceback" in err


def test_help_loads_nothing_heavy() -> None:
    """Half a second is the promise; what it loads is what it costs, on any machine."""
    heavy = {"torch", "transformers", "numpy", "scipy", "pydantic", "peft", "datasets"}
    code = f"import sys; from crossmatch.cli import run; run(['--help']); sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version_and_quiet(models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call(capsys, "--version")[1].startswith("crossmatch 0.")
    code, _, err = call(capsys, "--quiet", "merge", models / "base", *pair(models), "-o", tmp_path / "out")
    assert (code, err) == (0, "")


def test_names_with_equals_signs(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = copy(models / "pt", tmp_path / "lr=5e-4")
    code, *_ = call(capsys, "merge", models / "base", "-a", f"pt={odd}", "-w", "pt=-0.5", "-o", tmp_path / "out")
    assert code == 0
