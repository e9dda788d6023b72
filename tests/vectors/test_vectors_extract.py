"""Extraction of tuning vectors: what comes back, bit for bit, and what is said where it does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossmatch import Checkpoint, StoredVector, extract
from crossmatch.cli import run
from crossmatch.errors import CheckpointError, EqualError, OutputError
from helpers import copy, make_gpt2, make_llama, make_tokenizer
from vector_helpers import differing, moved, tensors_of, tune

FORMS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` and `tuned` in bfloat16."""
    root = tmp_path_factory.mktemp("pair")
    make_llama(root / "base")
    tune(root / "base", root / "tuned")
    return root


@pytest.mark.parametrize(("dtype", "form"), [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float64")])
def test_extraction_then_application_gives_the_tuned_checkpoint_bit_for_bit(
    tmp_path: Path, dtype: str, form: str
) -> None:
    base = make_llama(tmp_path / "base", dtype=FORMS[dtype])
    tuned = tune(base, tmp_path / "tuned")
    assert run(["vectors", "extract", str(base), str(tuned), "-o", str(tmp_path / "v"), "--dtype", form]) == 0
    exact = StoredVector(tmp_path / "v").record["exactness"]
    assert exact == {
        "elements": sum(t.numel() for t in tensors_of(base).values()),
        **dict.fromkeys(("differ", "sign_of_zero", "rounded"), 0),
        "tensors": {},
    }
    assert run(["vectors", "apply", str(base), str(tmp_path / "v"), "-o", str(tmp_path / "again")]) == 0
    assert differing(tuned, tmp_path / "again") == 0
    assert run(["verify", str(tmp_path / "again")]) == 0


def test_what_float32_loses_of_float32_is_counted_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_llama(tmp_path / "base", dtype=torch.float32)
    # Numbers that owe nothing to the base's: many are much smaller than the ones they replace.
    tuned = tune(base, tmp_path / "tuned", lambda t: moved({n: torch.ones_like(x) for n, x in t.items()}, size=9.0))
    assert run(["vectors", "extract", str(base), str(tuned), "-o", str(tmp_path / "v")]) == 0
    said = capsys.readouterr().out
    exact = StoredVector(tmp_path / "v").record["exactness"]
    assert run(["vectors", "apply", str(base), str(tmp_path / "v"), "-o", str(tmp_path / "again")]) == 0
    lost = differing(tuned, tmp_path / "again")
    assert 0 < lost == exact["differ"] == exact["rounded"] == sum(exact["tensors"].values())
    assert f"{lost:,} differ by more digits than float32 has; --dtype float64" in said


def test_reasons_for_elements_that_do_not_come_back(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    name, other = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"

    def change(tensors: dict) -> dict:
        new = dict(tensors)
        new[name], new[other] = tensors[name].clone(), tensors[other].clone()
        # tau is W itself with the other sign, and W + tau is +0.
        new[name][0, :3] = -0.0
        # 2^-40 beside a weight of about 2^-6: the difference has more than 24 digits.
        new[name][1, :5] = 2.0**-40
        # The sign of a zero alone: a tensor with nothing but that did not change.
        new[other][0, 0] = -0.0
        return new

    def zeroed(tensors: dict) -> dict:
        new = dict(tensors)
        new[other] = tensors[other].clone()
        new[other][0, 0] = 0.0
        return new

    start = tune(base, tmp_path / "start", zeroed)
    tuned = tune(start, tmp_path / "tuned", change)
    facts = extract(Checkpoint(start), Checkpoint(tuned), tmp_path / "v")["predicate"]
    assert set(StoredVector(tmp_path / "v")) == {name}
    assert facts["exactness"]["tensors"] == {other: 1, name: 8}
    assert (facts["exactness"]["sign_of_zero"], facts["exactness"]["rounded"]) == (4, 5)
    facts = extract(Checkpoint(start), Checkpoint(tuned), tmp_path / "w", dtype="float64")["predicate"]
    assert (facts["exactness"]["sign_of_zero"], facts["exactness"]["rounded"]) == (4, 0)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "bfloat16")]
)
def test_other_dtypes(tmp_path: Path, ours: str, theirs: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_llama(tmp_path / "base", dtype=FORMS[ours])
    inside = "model.layers.0."

    def change(tensors: dict) -> dict:
        new = moved({n: t.float() for n, t in tensors.items()}, only=inside)
        return {n: t.to(FORMS[theirs]) for n, t in new.items()}

    tuned = tune(base, tmp_path / "tuned", change, {"dtype": theirs})
    assert run(["vectors", "extract", str(base), str(tuned), "-o", str(tmp_path / "v"), "--dtype", "float64"]) == 0
    assert "stored in" in capsys.readouterr().err
    # What the other dtype holds as well did not change; float16 to bfloat16 moves nothing by itself.
    assert all(name.startswith(inside) for name in StoredVector(tmp_path / "v"))
    again = tmp_path / "again"
    assert run(["vectors", "apply", str(base), str(tmp_path / "v"), "-o", str(again), "--dtype", theirs]) == 0
    assert differing(tuned, again) == 0


def test_only_changed_tensors_are_stored(pair: Path, tmp_path: Path) -> None:
    tuned = tune(pair / "base", tmp_path / "tuned", lambda t: moved(t, only="q_proj"))
    facts = extract(Checkpoint(pair / "base"), Checkpoint(tuned), tmp_path / "v")["predicate"]
    vector = StoredVector(tmp_path / "v")
    assert set(vector) == {f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)}
    assert (facts["changed"], facts["unchanged"]) == (2, len(Checkpoint(pair / "base")) - 2)
    want = {n: tensors_of(tuned)[n].float() - tensors_of(pair / "base")[n].float() for n in vector}
    for name in vector:
        assert torch.equal(vector[name].rows(0, 64), want[name])
        assert torch.equal(vector[name].rows(3, 5), want[name][3:5])


def test_sharding_makes_no_difference(pair: Path, tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", shard="60KB")
    tuned = make_llama(tmp_path / "tuned", shard="100KB")
    tune(base, tmp_path / "moved")
    for file in (tmp_path / "tuned").glob("*.safetensors"):
        new = moved(tensors_of(tmp_path / "base"))
        save_file({n: new[n] for n in load_file(file)}, file, {"format": "pt"})
    assert len(Checkpoint(base).layout.files) != len(Checkpoint(tuned).layout.files) > 1
    extract(Checkpoint(base), Checkpoint(tuned), tmp_path / "v")
    extract(Checkpoint(pair / "base"), Checkpoint(pair / "tuned"), tmp_path / "w")
    # The order of the files differs, the deltas do not.
    one, other = StoredVector(tmp_path / "v"), StoredVector(tmp_path / "w")
    assert set(one) == set(other)
    assert all(torch.equal(one.files[f"delta/{n}"], other.files[f"delta/{n}"]) for n in one)


def test_the_same_inputs_give_the_same_bytes(pair: Path, tmp_path: Path) -> None:
    for name in "vw":
        extract(Checkpoint(pair / "base"), Checkpoint(pair / "tuned"), tmp_path / name)
    for file in ("vector.safetensors", "crossmatch.json"):
        assert (tmp_path / "v" / file).read_bytes() == (tmp_path / "w" / file).read_bytes()


def test_a_grown_vocabulary_travels_with_the_vector(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", eos_token_id=2)
    make_tokenizer(base)

    def grown(tensors: dict) -> dict:
        new = moved(tensors)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            rows = torch.randn(5, 64, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
            new[name] = torch.cat([new[name], rows])
        return new

    tuned = tune(base, tmp_path / "tuned", grown, {"vocab_size": 261})
    template = next(
        p for p in (tuned / "chat_template.jinja", tuned / "tokenizer_config.json") if "<|" in p.read_text()
    )
    template.write_text(template.read_text().replace("{{ m.content }}", "{{ m.content }} ."))
    assert run(["vectors", "extract", str(base), str(tuned), "-o", str(tmp_path / "v")]) == 0
    assert StoredVector(tmp_path / "v").added["lm_head.weight"][0] == 256
    for strength, again in (("1", tmp_path / "again"), ("0.5", tmp_path / "half")):
        arguments = ["vectors", "apply", str(base), str(tmp_path / "v"), "-o", str(again), "-g", strength]
        assert run(arguments) == 0
        assert run(["verify", str(again)]) == 0
    assert differing(tuned, tmp_path / "again") == 0
    half = tensors_of(tmp_path / "half")
    # The added rows are the tuned ones at any strength.
    assert torch.equal(half["lm_head.weight"][256:], tensors_of(tuned)["lm_head.weight"][256:])
    assert (
        (tmp_path / "half" / template.name).read_bytes() == template.read_bytes() != (base / template.name).read_bytes()
    )
    assert json.loads((tmp_path / "half" / "config.json").read_text())["vocab_size"] == 261
    for command in (["add", "-a", f"v={tmp_path / 'v'}"], ["scale", str(tmp_path / "v")]):
        out = tmp_path / f"copy-{command[0]}"
        assert run(["vectors", *command, "-o", str(out)]) == 0
        assert run(["vectors", "apply", str(base), str(out), "-o", str(out) + "-on"]) == 0
        assert differing(tuned, Path(f"{out}-on")) == 0
    # Taken off, the rows that both have are the base's, the others stay.
    assert run(["vectors", "remove", str(tuned), str(tmp_path / "v"), "-o", str(tmp_path / "off")]) == 0
    off = tensors_of(tmp_path / "off")
    assert torch.equal(off["lm_head.weight"][:256], tensors_of(base)["lm_head.weight"])
    assert len(off["lm_head.weight"]) == 261


def test_tied_embeddings_change_as_one(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", tied=True)
    assert "lm_head.weight" not in Checkpoint(base)
    tuned = tune(base, tmp_path / "tuned")
    assert run(["vectors", "extract", str(base), str(tuned), "-o", str(tmp_path / "v")]) == 0
    assert StoredVector(tmp_path / "v").parts["model.embed_tokens.weight"][0].kind == "shared"
    assert run(["vectors", "apply", str(base), str(tmp_path / "v"), "-o", str(tmp_path / "again")]) == 0
    assert differing(tuned, tmp_path / "again") == 0

    # The shared tensor stored twice is the same fine-tune.
    twice = tune(tuned, tmp_path / "twice", lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"].clone()})
    extract(Checkpoint(base), Checkpoint(twice), tmp_path / "w")
    assert (tmp_path / "v" / "vector.safetensors").read_bytes() == (tmp_path / "w" / "vector.safetensors").read_bytes()
    untied = make_llama(tmp_path / "untied")
    assert run(["vectors", "apply", str(untied), str(tmp_path / "v"), "-o", str(tmp_path / "no"), "--any-base"]) == 2


@pytest.mark.parametrize("size", [0.0, 0.05])
def test_tied_embeddings_that_have_grown(tmp_path: Path, size: float) -> None:
    base = make_llama(tmp_path / "base", tied=True, eos_token_id=2)
    make_tokenizer(base)

    def grown(tensors: dict) -> dict:
        name = "model.embed_tokens.weight"
        new = moved(tensors, size=size)
        return {**new, name: torch.cat([new[name], torch.ones(3, 64, dtype=torch.bfloat16)])}

    tuned = tune(base, tmp_path / "tuned", grown, {"vocab_size": 259})
    facts = extract(Checkpoint(base), Checkpoint(tuned), tmp_path / "v")["predicate"]
    assert facts["changed"] == (len(Checkpoint(base)) if size else 1)
    assert run(["vectors", "apply", str(base), str(tmp_path / "v"), "-o", str(tmp_path / "again")]) == 0
    assert differing(tuned, tmp_path / "again") == 0
    # Of a delta that is zero no weight can be told.
    assert run(["verify", str(tmp_path / "again")]) == (0 if size else 3)
    low = ["vectors", "extract", str(base), str(tuned), "--rank", "2", "-o", str(tmp_path / "low")]
    assert run(low) == (0 if size else 2)
    if size:
        # As an adapter both embeddings are saved whole, and stay one tensor.
        assert run(["vectors", "apply", str(base), str(tmp_path / "low"), "-o", str(tmp_path / "back")]) == 0
        name = "model.embed_tokens.weight"
        assert set(Checkpoint(tmp_path / "back")) == set(Checkpoint(tuned))
        assert torch.equal(Checkpoint(tmp_path / "back")[name], Checkpoint(tuned)[name])


def test_a_fine_tune_that_unties_its_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_llama(tmp_path / "base", tied=True)

    def change(tensors: dict) -> dict:
        new = moved(tensors)
        return {**new, "lm_head.weight": moved(tensors, seed=5)["model.embed_tokens.weight"]}

    tuned = tune(base, tmp_path / "tuned", change, {"tie_word_embeddings": False})
    assert run(["vectors", "extract", str(base), str(tuned), "-o", str(tmp_path / "v")]) == 0
    assert "--tied untie" in capsys.readouterr().err
    assert run(["vectors", "apply", str(base), str(tmp_path / "v"), "-o", str(tmp_path / "again")]) == 2
    arguments = ["vectors", "apply", str(base), str(tmp_path / "v"), "-o", str(tmp_path / "again"), "--tied", "untie"]
    assert run(arguments) == 0
    assert differing(tuned, tmp_path / "again") == 0
    assert json.loads((tmp_path / "again" / "config.json").read_text())["tie_word_embeddings"] is False


def test_equal_checkpoints_have_no_vector(pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(pair / "base", tmp_path / "same")
    for more in ([], ["--rank", "2"]):
        assert (
            run(["vectors", "extract", str(pair / "base"), str(tmp_path / "same"), "-o", str(tmp_path / "v"), *more])
            == 1
        )
        assert "equals its base" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "same"]
    with pytest.raises(EqualError):
        extract(Checkpoint(pair / "base"), Checkpoint(tmp_path / "same"), tmp_path / "v")


def _spoil(tensors: dict, name: str, value: float) -> dict:
    new = {**tensors, name: tensors[name].clone()}
    new[name][-1] = value
    return new


BAD = {
    "nan": (lambda t: _spoil(moved(t), "model.norm.weight", float("nan")), None, "model.norm.weight holds NaN or infinite"),
    "inf, unchanged else": (lambda t: _spoil(t, "model.norm.weight", float("inf")), None, "model.norm.weight holds NaN"),
    "missing": (lambda t: {k: v for k, v in t.items() if "up_proj" not in k}, None, "lacks 2 of the 21 tensors"),
    "extra": (lambda t: {**moved(t), "model.new.weight": torch.ones(2)}, None, "base lacks 1 of the 22 tensors"),
    "shape": (lambda t: {**t, "model.norm.weight": torch.ones(65)}, None, r"has shape \[64\] in .*, \[65\] in"),
    "rows lost": (lambda t: {**t, "lm_head.weight": t["lm_head.weight"][:200].clone()}, None, "has lost rows"),
    "integers": (lambda t: {**t, "model.norm.weight": torch.ones(64, dtype=torch.int32)}, None, "takes no delta"),
    "ties": (lambda t: {k: v for k, v in moved(t).items() if k != "lm_head.weight"}, {"tie_word_embeddings": True}, "ties its embeddings"),
    "stale tie": (moved, {"tie_word_embeddings": True}, "stores two that differ"),
    "architecture": (moved, {"model_type": "mistral"}, "different architectures: .* is a llama, .* a mistral"),
    "quantised": (moved, {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_pairs_are_refused_by_name(pair: Path, tmp_path: Path, case: str) -> None:
    change, config, line = BAD[case]
    tuned = tune(pair / "base", tmp_path / "tuned", change, config)
    with pytest.raises(CheckpointError, match=line) as caught:
        extract(Checkpoint(pair / "base"), Checkpoint(tuned), tmp_path / "v")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [tuned]


def test_other_kinds_of_input(pair: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpt2 = make_gpt2(tmp_path / "gpt2")
    out = str(tmp_path / "v")
    for arguments, line in (
        ([str(pair / "base"), str(gpt2), "-o", out], "different architectures"),
        ([str(pair / "base"), str(models / "pt"), "-o", out], "is an adapter; a whole model is needed"),
        ([str(pair / "base"), str(pair / "tuned"), "-o", str(pair / "base")], "are one directory"),
        ([str(pair / "base"), str(pair / "tuned"), "-o", out, "--energy", "1.5"], "share between 0 and 1"),
        ([str(pair / "base"), str(pair / "tuned"), "-o", out, "--dtype", "float16"], "--dtype float16: give one of"),
        ([str(pair / "base"), str(pair / "tuned"), "-o", out, "--rank", "2", "--dtype", "float64"], "for dense"),
    ):
        assert run(["vectors", "extract", *arguments]) == 2
        assert line in capsys.readouterr().err
    assert not Path(out).exists()


KILLED = """
import os, signal, sys
from crossmatch import Checkpoint, extract
from crossmatch.vectors import extract as module
import crossmatch.vectors.vector_file as write
original = write.OutputFile.write
def stop(self, offset, data):
    original(self, offset, data)
    if offset > 20_000:
        os.kill(os.getpid(), int(sys.argv[4]))
write.OutputFile.write = stop
# A shell that starts a job in the background has it ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
extract(Checkpoint(sys.argv[1]), Checkpoint(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.parametrize("signal", [2, 9])
def test_a_crash_leaves_nothing_that_can_be_taken_for_a_vector(pair: Path, tmp_path: Path, signal: int) -> None:
    out = tmp_path / "v"
    arguments = [str(pair / "base"), str(pair / "tuned"), str(out), str(signal)]
    assert subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True).returncode != 0
    assert not out.exists()
    # Ctrl-C cleans up; what SIGKILL leaves is hidden and goes with the next run.
    assert [p.name for p in tmp_path.iterdir()] == ([] if signal == 2 else [".v.crossmatch-partial"])
    assert run(["vectors", "extract", str(pair / "base"), str(pair / "tuned"), "-o", str(out)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["v"]
    with pytest.raises(OutputError, match="not empty"):
        extract(Checkpoint(pair / "base"), Checkpoint(pair / "tuned"), out)
    extract(Checkpoint(pair / "base"), Checkpoint(pair / "tuned"), out, overwrite=True)


def test_a_removed_vector_leaves_the_base(pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract(Checkpoint(pair / "base"), Checkpoint(pair / "tuned"), tmp_path / "v")
    arguments = ["vectors", "remove", str(pair / "tuned"), str(tmp_path / "v"), "--json"]
    assert run([*arguments, "-o", str(tmp_path / "off")]) == 0
    (result,) = json.loads(capsys.readouterr().out)["strengths"]
    assert result["against_base"]["differ"] == differing(pair / "base", tmp_path / "off") < 20
    assert result["verdict"]["verdict"] == "verified"
    assert run(["verify", str(tmp_path / "off")]) == 0
    capsys.readouterr()
    # Another base under the same name is noticed, and another strength compares with nothing.
    assert run([*arguments, "-o", str(tmp_path / "x"), "--base", str(pair / "tuned")]) == 0
    assert "against_base" not in capsys.readouterr().out
    assert run([*arguments, "-o", str(tmp_path / "y"), "-g", "0.5"]) == 0
    assert "against_base" not in capsys.readouterr().out
