"""A stored vector wherever an adapter goes: merge, verify, identify, evaluate, inspect; and files that are none."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_docs import ROOT, blocks

from crossmatch import Adapter, Checkpoint, StoredVector, extract, identify, merge, open_vector, write
from crossmatch.cli import run
from crossmatch.delta import LowRank
from crossmatch.errors import AdapterError
from crossmatch.vectors import add
from helpers import copy, make_adapter, make_chat_model, make_llama
from vector_helpers import differing, moved, tensors_of, tune


@pytest.fixture(scope="module")
def room(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` in bfloat16 with adapters `pt` and `sft`, `tuned`, its vector `v`, and `low`, the sum of both adapters."""
    root = tmp_path_factory.mktemp("compose")
    for name in ("base", "pt", "sft"):
        copy(models / name, root / name)
    tune(root / "base", root / "tuned")
    extract(Checkpoint(root / "base"), Checkpoint(root / "tuned"), root / "v")
    add({n: (Adapter(root / n), 1.0) for n in ("pt", "sft")}, root / "low")
    return root


def test_the_file_says_what_it_is(room: Path) -> None:
    assert isinstance(open_vector(room / "v"), StoredVector)
    assert isinstance(open_vector(room / "pt"), Adapter)
    with pytest.raises(AdapterError, match=r"holds no adapter_config\.json"):
        open_vector(room / "base")
    with pytest.raises(AdapterError, match="holds no tuning vector"):
        StoredVector(room / "pt")


def test_merge_and_verify_take_a_vector(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(room, tmp_path / "here")
    here = tmp_path / "here"
    parts = ["-a", f"v={here / 'v'}", "-a", f"sft={here / 'sft'}", "-a", f"low={here / 'low'}"]
    weights = ["-w", "v=0.5", "-w", "sft=0.7", "-w", "low=-0.2,mlp:0.1"]
    assert run(["merge", str(here / "base"), *parts, *weights, "-o", str(here / "out")]) == 0
    recorded = json.loads((here / "out" / "crossmatch.json").read_text())["predicate"]["adapters"]
    assert recorded["v"]["digest"] == StoredVector(here / "v").digest
    assert recorded["v"]["path"] == "../v"
    # The claim comes from the manifest, and all of it may have moved together.
    here.rename(tmp_path / "there")
    there = tmp_path / "there"
    capsys.readouterr()
    assert run(["verify", str(there / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["digests"]["adapters"]["v"] == recorded["v"]["digest"]
    assert found["weights"]["v"]["recovered"] == pytest.approx(0.5, abs=1e-3)
    wrong = ["-a", f"v={there / 'v'}", "-a", f"sft={there / 'sft'}", "-w", "v=0.5", "-w", "sft=0.6"]
    assert run(["verify", str(there / "out"), "--base", str(there / "base"), *wrong]) == 1
    # A vector that is no longer the one that was merged.
    shutil.rmtree(there / "v")
    extract(Checkpoint(there / "base"), Checkpoint(there / "tuned"), there / "v", dtype="float64")
    capsys.readouterr()
    assert run(["verify", str(there / "out")]) == 2
    assert "adapter v at" in (said := capsys.readouterr().err)
    assert "is not the one that was merged" in said


def test_a_merge_of_a_vector_is_the_sum(room: Path, tmp_path: Path) -> None:
    base, v, sft = Checkpoint(room / "base"), StoredVector(room / "v"), Adapter(room / "sft")
    merge(base, {"v": (v, 0.5), "sft": (sft, 0.7)}, tmp_path / "out")
    write(base, 0.5 * v + 0.7 * sft, tmp_path / "same")
    assert differing(tmp_path / "out", tmp_path / "same") == 0
    ours, merged = tensors_of(room / "base"), tensors_of(tmp_path / "out")
    for name, tensor in ours.items():
        exact = tensor.double() + 0.5 * v[name].rows(0, v[name].height, torch.float64).reshape(tensor.shape)
        if name in sft:
            exact += 0.7 * sft[name].rows(0, len(tensor), torch.float64)
        wrong = merged[name] != exact.float().to(torch.bfloat16)
        assert float(wrong.double().mean()) <= 1e-3
    # A sum of adapters as a vector is that sum.
    merge(base, {"low": (open_vector(room / "low"), 1.0)}, tmp_path / "low")
    merge(base, {n: (Adapter(room / n), 1.0) for n in ("pt", "sft")}, tmp_path / "both")
    assert differing(tmp_path / "low", tmp_path / "both") == 0


def test_a_vector_knows_its_base(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["merge", str(room / "tuned"), "-a", f"v={room / 'v'}", "-w", "v=1", "-o", str(tmp_path / "out")]
    assert run(arguments) == 2
    assert "another base" in capsys.readouterr().err
    assert run([*arguments, "--any-base"]) == 0
    other = make_llama(tmp_path / "wide", hidden_size=32)
    assert run(["merge", str(other), *arguments[2:-1], str(tmp_path / "no")]) == 2
    assert "a delta of" in capsys.readouterr().err


def test_identify_finds_a_vector_among_adapters(room: Path, tmp_path: Path) -> None:
    base = Checkpoint(room / "base")
    parts = {n: open_vector(room / n) for n in ("v", "pt", "sft")}
    merge(base, {"v": (parts["v"], 0.4), "sft": (parts["sft"], 0.7)}, tmp_path / "out")
    verdict = identify(tmp_path / "out", base, parts)
    assert verdict.verdict == "identified"
    assert verdict.weights["v"].recovered == pytest.approx(0.4, abs=0.01)
    assert verdict.evidence["absent"] == ["pt"]
    flags = [flag for name in parts for flag in ("-a", f"{name}={room / name}")]
    assert run(["identify", str(tmp_path / "out"), "--base", str(room / "base"), *flags]) == 0


def test_an_adapter_of_a_vector(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["merge", str(room / "base"), "-a", f"sft={room / 'sft'}", "-w", "sft=0.7", "--to", "adapter"]
    dense = [*arguments, "-a", f"v={room / 'v'}", "-w", "v=1", "-o", str(tmp_path / "no")]
    assert run(dense) == 2
    assert "vector v is no product of factors on" in capsys.readouterr().err
    low = [*arguments, "-a", f"low={room / 'low'}", "-w", "low=0.5", "-o", str(tmp_path / "out")]
    assert run(low) == 0
    want = 0.5 * Adapter(room / "pt") + 1.2 * Adapter(room / "sft")
    merged = Adapter(tmp_path / "out")
    assert merged.config.r == 24
    assert (merged - want).norm() < 1e-6 * want.norm()


def answers(directory: Path) -> list[dict[str, Any]]:
    (file,) = directory.glob("ask*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()][-3:]


def test_evaluate_takes_a_vector(tmp_path: Path) -> None:
    base = make_chat_model(tmp_path / "base")
    make_adapter(base, tmp_path / "sft", seed=1)
    for seed in (1, 2):
        tune(base, tmp_path / f"tuned{seed}", lambda t, seed=seed: moved(t, seed=seed, size=0.5))
        extract(Checkpoint(base), Checkpoint(tmp_path / f"tuned{seed}"), tmp_path / f"v{seed}")
    words = ("heart", "lung", "kidney")
    items = [{"id": w, "question": f"what is the {w}", "reference": "blood"} for w in words]
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "ask.yaml").write_text("name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 6\n")
    digests = []
    for seed in (1, 2):
        (tmp_path / "v").unlink(missing_ok=True)
        (tmp_path / "v").symlink_to(tmp_path / f"v{seed}")
        command = ["evaluate", str(base), "-a", f"v={tmp_path / 'v'}", "-a", f"sft={tmp_path / 'sft'}", "-w", "v=1"]
        assert run([*command, "-w", "sft=0.5", "--suite", str(tmp_path / "ask.yaml"), "-o", str(tmp_path / "out")]) == 0
        rows = answers(tmp_path / "out" / "v")
        digests.append(rows[0]["model_digest"])
        # The variant is the tuned model: the same distribution after every prompt.
        shutil.rmtree(tmp_path / "check", ignore_errors=True)
        command = [
            "evaluate",
            str(tmp_path / f"tuned{seed}"),
            "-a",
            f"sft={tmp_path / 'sft'}",
            "-w",
            "sft=1",
            "--suite",
        ]
        assert run([*command, str(tmp_path / "ask.yaml"), "-o", str(tmp_path / "check")]) == 0
        for row, own in zip(rows, answers(tmp_path / "check" / "base"), strict=True):
            assert row["opener_loglikelihoods"] == pytest.approx(own["opener_loglikelihoods"], rel=1e-4)
            assert row["entropy"] == pytest.approx(own["entropy"], rel=1e-5)
    assert digests[0] != digests[1]


def test_inspect(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["inspect"], ["vectors", "inspect"]):
        assert run([*command, str(room / "v"), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["kind"], facts["form"], facts["made_by"]) == ("vector", {"dense": 21}, "extract")
        assert facts["norm"] == pytest.approx(StoredVector(room / "v").norm(), rel=1e-12)
        assert facts["made_from"]["base"]["digest"] == Checkpoint(room / "base").digest
        assert facts["as_written"] is True
        assert run([*command, str(room / "low")]) == 0
        shown = capsys.readouterr().out
        assert "factors x 14" in shown
        assert "16 x 14" in shown
        assert max(map(len, shown.splitlines())) < 80
    assert run(["vectors", "inspect", str(room / "pt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "adapter"
    assert run(["vectors", "inspect", str(room / "base")]) == 2
    assert "holds no tuning vector" in capsys.readouterr().err


def test_a_vector_is_no_checkpoint(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["merge", str(room / "v"), "-a", f"v={room / 'v'}", "-w", "v=1", "-o", str(tmp_path / "out")]) == 2
    assert "is a tuning vector; a whole model is needed here" in capsys.readouterr().err


def _damage(directory: Path, change: Any) -> None:
    file = directory / "vector.safetensors"
    tensors = load_file(file)
    save_file({k: v.contiguous() for k, v in change(tensors).items()}, file)


NORM = "model.norm.weight"
Q = "model.layers.0.self_attn.q_proj.weight"
DAMAGE = {
    "unknown key": ("v", lambda t: {**t, "other/x": torch.ones(2)}, "is no tensor of a tuning vector"),
    "two forms": ("v", lambda t: {**t, f"shared/{NORM}": torch.ones(64)}, "do not make one delta"),
    "half a factor": ("low", lambda t: {k: v for k, v in t.items() if k != f"a/{Q}"}, "do not make one delta"),
    "other rank": ("low", lambda t: {**t, f"a/{Q}": torch.ones(3, 64)}, "do not fit each other"),
    "scale alone": ("v", lambda t: {**t, "scale/x": torch.tensor(1.0).double()}, "do not make one delta"),
    "scale infinite": ("v", lambda t: {**t, f"scale/{NORM}": torch.tensor(float("inf")).double()}, "is no number"),
    "integers": ("v", lambda t: {**t, f"delta/{NORM}": torch.ones(64, dtype=torch.int32)}, "which no tuning vector is"),
    "added rows": ("v", lambda t: {**t, f"added/{NORM}": torch.ones(2, 3), f"first/{NORM}": torch.tensor(1)}, "do not fit"),
    "nan": ("v", lambda t: {**t, f"delta/{NORM}": torch.full((64,), float("nan"))}, "NaN or infinite"),
    "nan in factors": ("low", lambda t: {**t, f"a/{Q}": torch.full((16, 64), float("nan"))}, "NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_vectors_are_refused(room: Path, tmp_path: Path, case: str) -> None:
    source, change, line = DAMAGE[case]
    copy(room / source, tmp_path / "v")
    _damage(tmp_path / "v", change)
    with pytest.raises(AdapterError, match=line) as caught:
        merge(Checkpoint(room / "base"), {"v": (open_vector(tmp_path / "v"), 1.0)}, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_vector_that_was_changed_says_so(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(room / "v", tmp_path / "v")
    _damage(tmp_path / "v", lambda t: {**t, f"delta/{NORM}": torch.ones(64)})
    assert run(["inspect", str(tmp_path / "v"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["as_written"] is False
    (tmp_path / "v" / "vector.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"without its vector\.safetensors"):
        open_vector(tmp_path / "v")


def test_experts_keep_their_stacks(tmp_path: Path) -> None:
    """Three factors of every expert: written, read, summed."""
    from crossmatch.delta import Stack, TuningVector, dense, low_rank

    generator = torch.Generator().manual_seed(0)

    def stack() -> Stack:
        pairs = [(torch.randn(6, 2, generator=generator), torch.randn(2, 5, generator=generator)) for _ in range(3)]
        return Stack(tuple(low_rank(b, a, 0.5) for b, a in pairs))

    name = "model.layers.0.mlp.experts.down_proj"
    parts = {label: (TuningVector({name: stack()}), weight) for label, weight in (("x", 2.0), ("y", -1.0))}
    add(parts, tmp_path / "v")
    found = StoredVector(tmp_path / "v")[name]
    assert isinstance(found, Stack)
    assert {part.rank for part in found.parts} == {4}
    want = 2.0 * dense(parts["x"][0][name]) - dense(parts["y"][0][name])
    torch.testing.assert_close(dense(found), want, rtol=0, atol=1e-12)


def test_convolutions_keep_their_shape(tmp_path: Path) -> None:
    from crossmatch.delta import TuningVector, dense

    b, a = torch.randn(6, 2), torch.randn(2, 4 * 9)
    delta = LowRank(b, a, torch.ones(2, dtype=torch.float64), (6, 4, 3, 3))
    add({"x": (TuningVector({"conv.weight": delta}), 0.5)}, tmp_path / "v")
    found = StoredVector(tmp_path / "v")["conv.weight"]
    assert found.shape == (6, 4, 3, 3)
    assert torch.equal(dense(found), dense(delta.scaled(0.5)))


def test_a_full_disk_leaves_nothing(room: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from crossmatch.cli import run;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        f"sys.exit(run(['vectors', 'extract', {str(room / 'base')!r}, {str(room / 'tuned')!r}, '-o', {str(tmp_path / 'v')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "file size limit" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_examples_of_the_document_run(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, home in (("base", "models"), ("tuned", "models"), ("pt", "runs"), ("sft", "runs")):
        copy(room / name, tmp_path / home / name)
    monkeypatch.chdir(tmp_path)
    document = ROOT / "docs" / "vectors.md"
    lines = [line for block in blocks(document, "") for line in block.splitlines()]
    mine = [line for line in lines if line.startswith(("crossmatch vectors", "crossmatch merge", "crossmatch verify"))]
    assert len(mine) >= 13
    for line in mine:
        assert run(shlex.split(line)[1:]) == 0, line
    exec(compile(blocks(document, "python")[0], "vectors.md", "exec"), {})
