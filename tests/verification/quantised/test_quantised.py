"""Quantised exports: reading them, and what is recovered from them, on files made for real."""

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import exports
from crossmatch import Adapter, Checkpoint, TuningVector, Verdict, write
from crossmatch.checkpoint import is_quantised, open_quantised
from crossmatch.checkpoint.quantised import blocks
from crossmatch.checkpoint.quantised.blocks import decode, ulp
from crossmatch.errors import CheckpointError, InputError
from crossmatch.verification import Claim, verify_claim
from crossmatch.verification.quantised.allowance import ALLOWED
from crossmatch.verification.quantised.verify import verify_quantised
from exports import write_gguf, write_scaled
from helpers import copy, make_adapter, make_llama

SHAPE = {
    "num_hidden_layers": 1,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 512,
}
CLAIM = {"pt": 0.3, "sft": 0.7}
GGUF = ("F16", "BF16", "F32", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "Q6_K", "Q4_K")
SCALED = ("tensor", "channel", "block", "plain", "e5m2", "int8", "group")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 base, adapters whose deltas are 10%, 1% and 0.01% of it, and merges by name."""
    root = tmp_path_factory.mktemp("quantised")
    make_llama(root / "base", **SHAPE)
    for size in (1e-1, 1e-2, 1e-4):
        for seed, name in enumerate(("pt", "sft", "foreign"), 1):
            make_adapter(root / "base", root / f"{name}@{size:g}", seed=seed, size=size)
    return root


def merged(bench: Path, size: float, **weights: float) -> Path:
    out = bench / ("+".join(f"{n}{w:g}" for n, w in weights.items()) + f"@{size:g}")
    if not out.exists():
        vector = sum((w * Adapter(bench / f"{n}@{size:g}") for n, w in weights.items()), TuningVector({}))
        write(Checkpoint(bench / "base"), vector, out)
    return out


def export(model: Path, out: Path, kind: str) -> Path:
    return write_scaled(model, out, kind) if kind in SCALED else write_gguf(model, out.with_suffix(".gguf"), kind)


def judge(bench: Path, path: Path, size: float, **weights: float) -> Verdict:
    parts = {n: (Adapter(bench / f"{n}@{size:g}"), w) for n, w in (weights or CLAIM).items()}
    return verify_quantised(path, Checkpoint(bench / "base"), parts)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-2])
@pytest.mark.parametrize("kind", [*GGUF, *SCALED])
def test_honest_exports_are_verified(bench: Path, tmp_path: Path, kind: str, size: float) -> None:
    verdict = judge(bench, export(merged(bench, size, **CLAIM), tmp_path / "out", kind), size)
    assert (verdict.verdict, verdict.faults, verdict.notes) == ("verified", (), ("quantised",))
    assert verdict.modules == {"adapted": 7, "agree": 7, "disagree": 0, "undecided": 0}
    for name, weight in CLAIM.items():
        found = verdict.weights[name]
        assert found.recovered is not None
        assert found.stderr is not None
        assert found.recovered == pytest.approx(weight, abs=max(0.01, 4 * found.stderr))
        assert 4 * found.stderr < weight / 2
    mismatch = verdict.rounding["bit_mismatch"]
    assert mismatch is None if kind.endswith("_K") else mismatch < 1e-4
    json.dumps(verdict.to_dict(detail=True), allow_nan=False)


FAULTY: dict[str, tuple[str, dict[str, float]]] = {
    "base shipped as the merge": ("adapter-not-applied", {}),
    "SFT-only export": ("adapter-missing", {"sft": 1.0}),
    "SFT alone at its weight": ("adapter-missing", {"sft": 0.7}),
    "swapped": ("weights-swapped", {"pt": 0.7, "sft": 0.3}),
    "squared": ("weights-squared", {"pt": 0.09, "sft": 0.49}),
    "merged twice": ("applied-twice", {"pt": 0.6, "sft": 1.4}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FAULTY)
@pytest.mark.parametrize(("kind", "size"), [("Q8_0", 1e-2), ("Q4_K", 1e-1), ("Q4_K", 1e-2), ("tensor", 1e-2)])
def test_wrong_weights_are_named(bench: Path, tmp_path: Path, kind: str, size: float, case: str) -> None:
    fault, weights = FAULTY[case]
    verdict = judge(bench, export(merged(bench, size, **weights), tmp_path / "out", kind), size)
    assert (verdict.verdict, verdict.faults) == ("failed", (fault,))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_a_foreign_delta_is_noticed(bench: Path, tmp_path: Path, kind: str) -> None:
    wrong = export(merged(bench, 1e-1, foreign=0.3, sft=0.7), tmp_path / "wrong", kind)
    third = export(merged(bench, 1e-1, pt=0.3, sft=0.7, foreign=1.0), tmp_path / "third", kind)
    assert judge(bench, wrong, 1e-1).faults[0] in ("wrong-adapter", "adapter-missing")
    assert judge(bench, third, 1e-1).faults == ("unexplained-delta",)


@pytest.mark.slow
def test_a_replay_sees_what_the_excess_does_not(bench: Path, tmp_path: Path) -> None:
    model = merged(bench, 1e-1, pt=0.3, sft=0.7, foreign=0.3)
    replayed = judge(bench, export(model, tmp_path / "out", "Q4_0"), 1e-1)
    assert replayed.faults == ("unexplained-delta",)
    # Q4_K cannot be replayed. What could hide there is said, and this is less.
    searched = judge(bench, export(model, tmp_path / "out", "Q4_K"), 1e-1)
    assert searched.verified
    assert searched.evidence["unseen"] > 0.3 / (0.3**2 + 0.7**2) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
@pytest.mark.parametrize("weights", [CLAIM, {"pt": 0.7, "sft": 0.3}, {}], ids=("honest", "swapped", "base"))
def test_what_is_too_small_to_tell_is_inconclusive(
    bench: Path, tmp_path: Path, kind: str, weights: dict[str, float]
) -> None:
    verdict = judge(bench, export(merged(bench, 1e-4, **weights), tmp_path / "out", kind), 1e-4)
    assert (verdict.verdict, verdict.faults) == ("inconclusive", ())
    assert "not-identifiable" in verdict.notes


def damaged(bench: Path, out: Path, change: str) -> Path:
    """The honest merge with one tensor changed, which no adapter targets; or one that skips k_proj."""
    model = copy(merged(bench, 1e-1, **CLAIM), out)
    base = load_file(bench / "base" / "model.safetensors")
    tensors = load_file(model / "model.safetensors")
    norm, embedding, head = "model.layers.0.input_layernorm.weight", "model.embed_tokens.weight", "lm_head.weight"
    if change == "norm":
        tensors[norm][7] += 0.0625
    elif change == "head":
        tensors[head] = tensors[embedding].clone()
    elif change == "token":
        tensors[embedding][5] = tensors[embedding][6]
    elif change == "skipped":
        name = "model.layers.0.self_attn.k_proj.weight"
        tensors[name] = base[name]
    elif change == "nan":
        tensors[norm][3] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "tensor"])
@pytest.mark.parametrize(
    ("change", "fault", "where"),
    [
        ("norm", "untouched-changed", "model.layers.0.input_layernorm.weight"),
        ("head", "untouched-changed", "lm_head.weight"),
        ("token", "untouched-changed", "model.embed_tokens.weight"),
        ("skipped", "modules-skipped", ""),
        ("nan", "nonfinite", "model.layers.0.input_layernorm.weight"),
    ],
)
def test_other_changes_are_found(bench: Path, tmp_path: Path, kind: str, change: str, fault: str, where: str) -> None:
    verdict = judge(bench, export(damaged(bench, tmp_path / "model", change), tmp_path / "out", kind), 1e-1)
    assert verdict.verdict == "failed"
    assert verdict.faults[0] == fault
    assert verdict.tensors["untouched_changed"] == ([where] if where else [])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base with its adapters' merge, and its export as Q8_0."""
    root = tmp_path_factory.mktemp("small")
    make_llama(root / "base")
    for seed, name in enumerate(("pt", "sft"), 1):
        make_adapter(root / "base", root / name, seed=seed)
    vector = sum((w * Adapter(root / n) for n, w in CLAIM.items()), TuningVector({}))
    write(Checkpoint(root / "base"), vector, root / "merged")
    write_gguf(root / "merged", root / "merged.gguf", "F16")
    return root


def judge_small(small: Path, path: Path) -> Verdict:
    parts = {name: (Adapter(small / name), weight) for name, weight in CLAIM.items()}
    return verify_quantised(path, Checkpoint(small / "base"), parts)


def test_gguf_has_the_names_and_rows_of_the_base(small: Path) -> None:
    merge = Checkpoint(small / "merged")
    file = open_quantised(small / "merged.gguf", Checkpoint(small / "base"))
    assert set(file.tensors) == set(merge.tensors)
    assert file.extra == ()
    assert file.config["hidden_size"] == 64
    for name, info in merge.tensors.items():
        assert file.tensors[name].shape == info.shape
        wanted = merge[name].to(torch.float16).float().reshape(-1, info.columns)
        assert torch.equal(file.rows(name, 0, len(wanted)), wanted)
        middle = len(wanted) // 3
        assert torch.equal(file.rows(name, middle, middle + 1), wanted[middle : middle + 1])
        assert torch.equal(file.steps(name, 0, len(wanted)), ulp(wanted, file.tensors[name].kind))
    assert is_quantised(small / "merged.gguf")
    assert not is_quantised(small / "merged")


def test_a_split_file_is_read_whole(small: Path, tmp_path: Path) -> None:
    write_gguf(small / "merged", tmp_path / "model.gguf", "F16", split=8)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) > 1
    file = open_quantised(parts[1], Checkpoint(small / "base"))
    assert set(file.tensors) == set(Checkpoint(small / "base").tensors)
    assert is_quantised(tmp_path)
    parts[-1].unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        open_quantised(parts[0], Checkpoint(small / "base"))


def test_rows_that_were_not_permuted_do_not_pass(small: Path, tmp_path: Path) -> None:
    verdict = judge_small(small, write_gguf(small / "merged", tmp_path / "out.gguf", "F16", permute=False))
    assert verdict.verdict == "failed"
    assert all(".q_proj." in name or ".k_proj." in name for name in verdict.evidence["modules_in_question"])


def test_tensors_and_config_are_compared(small: Path, tmp_path: Path) -> None:
    extra = {"blk.0.attn_q.lora_a": np.ones((4, 64), np.float32)}
    file = write_gguf(small / "merged", tmp_path / "out.gguf", "F16", drop=["output_norm.weight"], extra=extra)
    verdict = judge_small(small, file)
    assert verdict.faults == ("tensors-missing", "tensors-extra")
    assert verdict.tensors["missing"] == ["model.norm.weight"]
    assert verdict.tensors["extra"] == ["blk.0.attn_q.lora_a"]
    other = write_gguf(small / "merged", tmp_path / "other.gguf", "F16", metadata={"rms_norm_eps": 1e-3})
    verdict = judge_small(small, other)
    assert [(f.fault, f.where) for f in verdict.findings] == [("config-changed", ("rms_norm_eps",))]
    table = {"rope_freqs.weight": np.ones(8, np.float32)}
    assert judge_small(small, write_gguf(small / "merged", tmp_path / "r.gguf", "F16", extra=table)).verified


def test_experts_are_rows_of_a_stack(tmp_path: Path) -> None:
    names = {f"model.layers.0.mlp.experts.{i}.up_proj.weight": torch.randn(32, 64).bfloat16() for i in range(4)}
    (tmp_path / "base").mkdir()
    save_file(names, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    writer = gguf.GGUFWriter(tmp_path / "moe.gguf", "qwen3moe")
    writer.add_block_count(1)
    stack = torch.stack(list(names.values())).float().numpy()
    writer.add_tensor(
        "blk.0.ffn_up_exps.weight",
        gguf.quants.quantize(stack, gguf.GGMLQuantizationType.Q8_0),
        raw_dtype=gguf.GGMLQuantizationType.Q8_0,
    )
    for action in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        action()
    file = open_quantised(tmp_path / "moe.gguf", Checkpoint(tmp_path / "base"))
    for name, tensor in names.items():
        levels = file.levels(name, 8, 32)
        assert bool(((levels.values - tensor[8:].float()).abs() <= 0.55 * levels.steps).all())


BITS = {
    "Q4_0": (2, 16, 0x11), "Q4_1": (4, 16, 0x11), "Q5_0": (6, 16, 0x11), "Q5_1": (8, 16, 0x11), "Q8_0": (2, 32, 1),
    "Q2_K": (16, 64, 0x55), "Q3_K": (32, 64, 0x55), "Q4_K": (16, 128, 0x11), "Q5_K": (48, 128, 0x11), "Q6_K": (0, 128, 0x11),
}  # fmt: skip


@pytest.mark.parametrize("kind", BITS)
def test_a_step_is_what_one_level_more_changes(kind: str) -> None:
    qtype = gguf.GGMLQuantizationType[kind]
    raw = np.random.default_rng(0).integers(0, 60, (5, 3 * gguf.GGML_QUANT_SIZES[qtype][1]), dtype=np.uint8)
    first, count, one = BITS[kind]
    low = raw.reshape(-1, gguf.GGML_QUANT_SIZES[qtype][1]).copy()
    low[:, first : first + count] = 0
    high = low.copy()
    high[:, first : first + count] = one
    values = [torch.from_numpy(gguf.quants.dequantize(x.reshape(raw.shape), qtype)) for x in (low, high)]
    torch.testing.assert_close(decode(raw, kind)[1], (values[1] - values[0]).abs(), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_steps_fit_the_levels(kind: str) -> None:
    values = torch.randn(64, 512)
    if kind.startswith("IQ4"):
        size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        raw = np.random.default_rng(1).integers(0, 60, (64, 512 // size[0] * size[1]), dtype=np.uint8)
        found, steps = decode(raw, kind)
        # Neighbouring levels are a step apart: the next value above another lies about one mean step away.
        block = found[0, :32].unique()
        assert float((block.diff() / steps[0, :32].mean()).max()) < 8
        assert bool((steps > 0).any())
        return
    found, steps = decode(exports.encode(values.numpy(), kind), kind)
    excess = 12 * ((found - values) / steps).square().mean()
    assert ALLOWED[kind].low < float(excess) < ALLOWED[kind].high


def test_every_type_has_an_allowance() -> None:
    assert set(ALLOWED) == {*blocks._SCALES, *blocks.FORMATS, "I8"}


@pytest.mark.parametrize("layout", SCALED)
def test_scaled_weights_are_read(small: Path, tmp_path: Path, layout: str) -> None:
    write_scaled(small / "merged", tmp_path / "out", layout)
    assert is_quantised(tmp_path / "out")
    file = open_quantised(tmp_path / "out", Checkpoint(small / "base"))
    assert file.extra == ()
    for name, tensor in load_file(small / "merged" / "model.safetensors").items():
        levels = file.levels(name, 0, len(tensor) if tensor.ndim > 1 else 1)
        away = (levels.values - tensor.float()).abs()
        assert bool((away <= 0.51 * levels.steps).all()) if "_proj" in name else bool((away == 0).all())


def test_8_bit_tensors_of_the_base_are_no_export(small: Path, tmp_path: Path) -> None:
    own = {"model.table": torch.ones(4, 4, dtype=torch.int8)}
    for name in ("base", "merged"):
        shutil.copytree(small / name, tmp_path / name)
        file = tmp_path / name / "model.safetensors"
        save_file(load_file(file) | own, file, metadata={"format": "pt"})
    (tmp_path / "merged" / "crossmatch.json").unlink()
    base = Checkpoint(tmp_path / "base")
    assert is_quantised(tmp_path / "merged")
    assert not is_quantised(tmp_path / "merged", base)
    parts = {name: (Adapter(small / name), weight) for name, weight in CLAIM.items()}
    verdict = verify_claim(tmp_path / "merged", Claim(base, parts))
    assert (verdict.verdict, verdict.notes) == ("verified", ())
    # A number of 8 bits that belongs to no weight does not make the others to be judged as an export's.
    save_file(load_file(file) | {"model.x.k_scale": own["model.table"]}, file, metadata={"format": "pt"})
    assert verify_claim(tmp_path / "merged", Claim(base, parts)).faults == ("tensors-extra",)
    # Another number there is a fault, and never the noise of a quantisation.
    save_file({n: t for n, t in load_file(file).items() if "k_scale" not in n}, file, metadata={"format": "pt"})
    save_file(load_file(file) | {"model.table": 2 * own["model.table"]}, file, metadata={"format": "pt"})
    assert verify_claim(tmp_path / "merged", Claim(base, parts)).faults == ("untouched-changed",)


def test_8_bit_weights_by_the_names_of_another_class(small: Path, tmp_path: Path) -> None:
    out = write_scaled(small / "merged", tmp_path / "out", "channel")
    (out / "crossmatch.json").unlink(missing_ok=True)
    # As the base model's class saves them.
    file = out / "model.safetensors"
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    verdict = judge_small(small, out)
    assert (verdict.verdict, verdict.faults) == ("verified", ())


def test_files_beside_8_bit_weights_are_compared(small: Path, tmp_path: Path) -> None:
    out = write_scaled(small / "merged", tmp_path / "out", "channel")
    verdict = judge_small(small, out)
    assert (verdict.verified, verdict.faults) == (True, ())
    assert {"config", "weight_files"} <= set(verdict.evidence["checked"])
    (out / "adapter_config.json").write_text("{}")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert set(judge_small(small, out).faults) == {"adapter-left-behind", "config-changed"}


def test_a_quantised_export_is_judged_whole(small: Path) -> None:
    claim = Claim(Checkpoint(small / "base"), {n: (Adapter(small / n), w) for n, w in CLAIM.items()})
    for quick, dtypes in ((True, ()), (False, ("bfloat16",))):
        with pytest.raises(InputError, match="judged whole"):
            verify_claim(small / "merged.gguf", replace(claim, dtypes=dtypes), quick=quick)


def test_scales_that_do_not_fit_are_refused(small: Path, tmp_path: Path) -> None:
    base = Checkpoint(small / "base")
    name = "model.layers.0.self_attn.q_proj.weight_scale"
    for number, (scale, message) in enumerate(
        [
            (torch.ones(7, 1), "cannot have scales"),
            (torch.full((64, 1), float("nan")), "not finite"),
            (-torch.ones(64, 1), "negative"),
            (torch.ones(64, 1, dtype=torch.int32), "is no scale"),
        ]
    ):
        model = write_scaled(small / "merged", tmp_path / f"{number}", "channel")
        tensors = load_file(model / "model.safetensors")
        save_file({**tensors, name: scale}, model / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            open_quantised(model, base)
    tensors = load_file(write_scaled(small / "merged", tmp_path / "int8", "int8") / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "SCB" not in k}, tmp_path / "int8" / "model.safetensors")
    with pytest.raises(CheckpointError, match="without a scale"):
        open_quantised(tmp_path / "int8", base)
    save_file({**tensors, "a.weight_zero_point": torch.zeros(1)}, tmp_path / "int8" / "model.safetensors")
    with pytest.raises(CheckpointError, match="cannot be verified"):
        open_quantised(tmp_path / "int8", base)


def test_truncated_and_spoilt_files_are_refused(small: Path, tmp_path: Path) -> None:
    base, data = Checkpoint(small / "base"), (small / "merged.gguf").read_bytes()
    file = tmp_path / "out.gguf"
    start = data.index(b"token_embd.weight")
    for cut in [0, 3, 4, 8, 20, 24, 31, 40, *range(60, start + 40, 97), len(data) // 2, len(data) - 64]:
        file.write_bytes(data[:cut])
        with pytest.raises(CheckpointError):
            open_quantised(file, base)
    random = np.random.default_rng(0)
    for _ in range(300):
        spoilt = bytearray(data)
        for place in random.integers(0, start + 400, 3):
            spoilt[place] = random.integers(0, 256)
        file.write_bytes(spoilt)
        try:
            opened = open_quantised(file, base)
            for name, tensor in opened.tensors.items():
                opened.levels(name, 0, tensor.shape[0] if len(tensor.shape) > 1 else 1)
        except CheckpointError:
            pass


def header(tensors: int = 0, fields: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + body


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def info(name: bytes, *dims: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(tensors=1 << 60), "announces"),
        (header(fields=1 << 60), "announces"),
        (header(version=3 << 24), "big-endian"),
        (header(1, 0, struct.pack("<Q", 1 << 40)), "a name of"),
        (header(1, 0, info(b"a", 1 << 40, 1 << 40)), "cannot have the shape"),
        (header(1, 0, info(b"a", 33, kind=8)), "cannot have the shape"),
        (header(1, 0, info(b"a", 4, kind=99)), "not known"),
        (header(1, 0, info(b"a", 4, offset=1 << 62)), "cannot lie"),
        (header(1, 0, info(b"a", 4, offset=7)), "cannot lie"),
        (header(2, 0, info(b"a", 4) + info(b"a", 4, offset=32)), "twice"),
        (header(2, 0, info(b"a", 16) + info(b"b", 16, offset=32)), "cannot lie"),
        (header(1, 0, info(b"\xff\xfe", 4)), "not a whole GGUF"),
        (header(0, 1, text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 50)), "strings"),
        (header(0, 1, text(b"k") + struct.pack("<IIQ", 9, 0, 1 << 50)), "ends in its header"),
        (header(0, 1, text(b"k") + struct.pack("<IIQ", 9, 9, 1)), "a list of type 9"),
        (header(0, 1, text(b"k") + struct.pack("<IQ", 8, 1 << 62)), "ends in its header"),
        (header(0, 2, 2 * (text(b"k") + struct.pack("<II", 4, 1))), "appears twice"),
        (header(0, 1, text(b"general.alignment") + struct.pack("<II", 4, 0)), "alignment"),
        (header(0, 1, text(b"general.architecture") + struct.pack("<I", 8) + text(b"gemma2")), "'gemma2' cannot"),
    ],
)
def test_what_a_stranger_may_write_is_refused(small: Path, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "out.gguf").write_bytes(content + b"\0" * 128)
    with pytest.raises(CheckpointError, match=message):
        open_quantised(tmp_path / "out.gguf", Checkpoint(small / "base"))


def test_without_the_library_the_way_out_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"pip install 'gguf"):
        open_quantised(small / "merged.gguf", Checkpoint(small / "base"))
