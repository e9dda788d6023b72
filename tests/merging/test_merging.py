"""The merge: laws, exactness against PEFT and against rational arithmetic, manifest, refusals, no leftovers."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint, merge, write
from crossmatch.checkpoint import file_digest
from crossmatch.delta import dense
from crossmatch.errors import AdapterError, CheckpointError, OutputError, ProofError, RuleError
from crossmatch.merging import Output, Storage, plan_merge
from crossmatch.rules import Recipe
from crossmatch.verification import SampledProof, WholeProof, verify
from helpers import copy, make_adapter, make_gpt2, make_llama, peft_merge


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        found |= load_file(file)
    return found


def files(directory: Path) -> dict[str, str]:
    return {p.name: file_digest(p) for p in directory.iterdir()}


def test_the_ten_lines_of_the_readme(models: Path, tmp_path: Path) -> None:
    base = Checkpoint(models / "base")
    pt, sft = Adapter(models / "pt"), Adapter(models / "sft")
    merged = 0.3 * pt + 0.7 * sft
    write(base, merged, tmp_path / "merged")
    verdict = verify(tmp_path / "merged", base, {"pt": (pt, 0.3), "sft": (sft, 0.7)})
    assert verdict.verified


def test_weight_zero_is_the_base_bit_for_bit(models: Path, tmp_path: Path) -> None:
    base, pt = Checkpoint(models / "base"), Adapter(models / "pt")
    write(base, 0.0 * pt, tmp_path / "by-vector")
    merge(base, {"pt": (pt, 0.0)}, tmp_path / "by-parts")
    for out in ("by-vector", "by-parts"):
        assert file_digest(tmp_path / out / "model.safetensors") == file_digest(models / "base" / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_one_is_what_peft_merges(tmp_path: Path, dtype: torch.dtype) -> None:
    make_llama(tmp_path / "base", dtype=dtype)
    make_adapter(tmp_path / "base", tmp_path / "a", seed=4, use_rslora=True, rank_pattern={"q_proj": 4})
    peft_merge(tmp_path / "base", [tmp_path / "a"], tmp_path / "peft", dtype=dtype)
    write(Checkpoint(tmp_path / "base"), 1.0 * Adapter(tmp_path / "a"), tmp_path / "ours")
    ours, peft = tensors(tmp_path / "ours"), tensors(tmp_path / "peft")
    assert set(ours) == set(peft)
    different = sum(int((ours[n] != peft[n]).sum()) for n in ours)
    total = sum(t.numel() for t in ours.values())
    # PEFT forms the delta and the sum in float32: in float32 storage its last bit is off in some elements.
    assert different <= total * (1e-4 if dtype == torch.bfloat16 else 0.2)
    for name in ours:
        torch.testing.assert_close(ours[name], peft[name], rtol=2**-7 if dtype == torch.bfloat16 else 1e-6, atol=1e-8)


@settings(max_examples=8, deadline=None)
@given(
    stored=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    w1=st.floats(-1.5, 1.5).map(lambda x: round(x, 2)),
    w2=st.floats(-1.5, 1.5).map(lambda x: round(x, 2)),
)
def test_every_element_is_the_correctly_rounded_one(
    models: Path, tmp_path_factory: pytest.TempPathFactory, stored: torch.dtype, w1: float, w2: float
) -> None:
    out = tmp_path_factory.mktemp("merge") / "out"
    base, pt, sft = Checkpoint(models / "base"), Adapter(models / "pt"), Adapter(models / "sft")
    merge(base, {"pt": (pt, w1), "sft": (sft, w2)}, out, storage=Storage(stored))
    written = Checkpoint(out)
    wrong = total = 0
    for name in pt:
        exact = base[name].double() + w1 * dense(pt[name]) + w2 * dense(sft[name])
        value = written[name]
        assert value.dtype == stored
        infinity = torch.tensor(float("inf"), dtype=stored)
        error = (value.double() - exact).abs()
        for neighbour in (torch.nextafter(value, infinity), torch.nextafter(value, -infinity)):
            wrong += int(((neighbour.double() - exact).abs() < error).sum())
        total += value.numel()
    assert wrong <= 1e-5 * total


def test_order_does_not_matter(models: Path, tmp_path: Path) -> None:
    base, pt, sft = Checkpoint(models / "base"), Adapter(models / "pt"), Adapter(models / "sft")
    write(base, 0.3 * pt + 0.7 * sft, tmp_path / "a")
    write(base, 0.7 * sft + 0.3 * pt, tmp_path / "b")
    assert file_digest(tmp_path / "a" / "model.safetensors") == file_digest(tmp_path / "b" / "model.safetensors")


def test_many_shards_and_one_file_hold_the_same(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_llama(tmp_path / "sharded", shard="100KB")
    pt = Adapter(models / "pt")
    write(Checkpoint(models / "base"), 0.5 * pt, tmp_path / "one")
    write(Checkpoint(tmp_path / "sharded"), 0.5 * pt, tmp_path / "many")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) == 3
    one, many = tensors(tmp_path / "one"), tensors(tmp_path / "many")
    assert set(one) == set(many)
    assert all(torch.equal(one[n], many[n]) for n in one)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(many)
    # Streaming in blocks of a few rows gives the same bytes as whole tensors, two threads the same as one.
    monkeypatch.setattr(Checkpoint.blocks, "__defaults__", (None, 300))
    write(Checkpoint(models / "base"), 0.5 * pt, tmp_path / "blocks")
    torch.set_num_threads(2)
    write(Checkpoint(models / "base"), 0.5 * pt, tmp_path / "thread")
    torch.set_num_threads(1)
    whole = file_digest(tmp_path / "one" / "model.safetensors")
    assert file_digest(tmp_path / "blocks" / "model.safetensors") == whole
    assert file_digest(tmp_path / "thread" / "model.safetensors") == whole


def test_same_inputs_same_bytes(models: Path, tmp_path: Path) -> None:
    parts = {"pt": (Adapter(models / "pt"), 0.3), "sft": (Adapter(models / "sft"), 0.7)}
    for out in ("a", "b"):
        merge(Checkpoint(models / "base"), parts, tmp_path / out)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_untouched_tensors_and_small_files(models: Path, tmp_path: Path) -> None:
    copy(models / "base", tmp_path / "base")
    for name in ("tokenizer.json", "README.md", "pytorch_model.bin", ".hidden", "code.py"):
        (tmp_path / "base" / name).write_text("{}")
    base = Checkpoint(tmp_path / "base")
    pt = Adapter(models / "pt")
    write(base, 1.0 * pt, tmp_path / "out")
    out = Checkpoint(tmp_path / "out")
    for name in set(base) - set(pt):
        assert out.raw(name, 0, out.tensors[name].nbytes) == base.raw(name, 0, base.tensors[name].nbytes)
    kept = {p.name for p in (tmp_path / "out").iterdir()}
    assert kept == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "code.py",
        "crossmatch.json",
        "README.md",
    }
    assert out.config == base.config


def test_another_dtype(models: Path, tmp_path: Path) -> None:
    merge(
        Checkpoint(models / "base"),
        {"pt": (Adapter(models / "pt"), 1.0)},
        tmp_path / "out",
        storage=Storage(torch.float16),
    )
    out = Checkpoint(tmp_path / "out")
    assert {info.dtype for info in out.tensors.values()} == {torch.float16}
    assert out.config["dtype"] == "float16"


def test_template_of_the_adapter_that_was_trained_with_one(models: Path, tmp_path: Path) -> None:
    base = copy(models / "base", tmp_path / "base")
    (base / "tokenizer.json").write_text('{"of": "base"}')
    (base / "chat_template.jinja").write_text("base")
    for name, template in (("pt", "base"), ("sft", "sft"), ("foreign", "other")):
        copy(models / name, tmp_path / name)
        (tmp_path / name / "chat_template.jinja").write_text(template)
        (tmp_path / name / "tokenizer.json").write_text(f'{{"of": "{name}"}}')
    adapters = {name: (Adapter(tmp_path / name), 0.5) for name in ("pt", "sft", "foreign")}
    pair = {name: adapters[name] for name in ("pt", "sft")}
    manifest = merge(Checkpoint(base), pair, tmp_path / "out")
    assert manifest["predicate"]["tokenizer_from"] == "sft"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "sft"
    assert "sft" in (tmp_path / "out" / "tokenizer.json").read_text()
    with pytest.raises(AdapterError, match="different chat templates; choose one with --tokenizer"):
        merge(Checkpoint(base), adapters, tmp_path / "three")
    merge(Checkpoint(base), adapters, tmp_path / "three", output=Output(tokenizer="base"))
    assert (tmp_path / "three" / "chat_template.jinja").read_text() == "base"
    with pytest.raises(AdapterError, match="give base or one of"):
        merge(Checkpoint(base), pair, tmp_path / "x", output=Output(tokenizer="nobody"))


def test_manifest(models: Path, tmp_path: Path) -> None:
    base, parts = (
        Checkpoint(models / "base"),
        {"pt": (Adapter(models / "pt"), 0.3), "sft": (Adapter(models / "sft"), 0.7)},
    )
    merge(base, parts, tmp_path / "out", proof=WholeProof())
    manifest = json.loads((tmp_path / "out" / "crossmatch.json").read_text())
    assert manifest["_type"] == "https://in-toto.io/Statement/v1"
    digest = file_digest(tmp_path / "out" / "model.safetensors")
    assert manifest["subject"] == [{"name": "model.safetensors", "digest": {"blake3": digest}}]
    predicate = manifest["predicate"]
    assert {name: a["weight"] for name, a in predicate["adapters"].items()} == {"pt": 0.3, "sft": 0.7}
    assert predicate["base"]["digest"] == base.digest
    assert (tmp_path / "out" / predicate["base"]["path"]).resolve() == (models / "base").resolve()
    assert predicate["verdict"]["verdict"] == "verified"
    assert predicate["tensors"] == {"merge": 14, "copy": 7, "cast": 0}


def test_loads_with_transformers_and_its_logits_are_base_plus_adapters(tmp_path: Path) -> None:
    make_llama(tmp_path / "base", dtype=torch.float32)
    for seed, name in enumerate(("pt", "sft"), 1):
        make_adapter(tmp_path / "base", tmp_path / name, seed=seed, use_rslora=name == "pt")
    write(
        Checkpoint(tmp_path / "base"),
        0.3 * Adapter(tmp_path / "pt") + 0.7 * Adapter(tmp_path / "sft"),
        tmp_path / "out",
    )
    ids = torch.arange(40)[None]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    for name, weight in (("pt", 0.3), ("sft", 0.7)):
        adapter = Adapter(tmp_path / name)
        for key, delta in adapter.items():
            # Adapters as layers apply them: a product of activations with factors, never a merged weight.
            module = plain.get_submodule(key.removesuffix(".weight"))
            b, a = (weight * delta.b.double() * delta.scale).float(), delta.a.float()  # type: ignore[union-attr]
            module.register_forward_hook(lambda m, x, y, a=a, b=b: y + x[0] @ a.T @ b.T)
    torch.testing.assert_close(merged, plain(ids).logits, rtol=1e-4, atol=1e-4)


def test_gpt2_is_merged_transposed(tmp_path: Path) -> None:
    make_gpt2(tmp_path / "base")
    make_adapter(tmp_path / "base", tmp_path / "a", seed=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    peft_merge(tmp_path / "base", [tmp_path / "a"], tmp_path / "peft")
    write(Checkpoint(tmp_path / "base"), 1.0 * Adapter(tmp_path / "a"), tmp_path / "ours")
    peft = tensors(tmp_path / "peft")
    for name, tensor in tensors(tmp_path / "ours").items():
        torch.testing.assert_close(tensor, peft[name], rtol=1e-5, atol=1e-7)


def test_plan_accounts_for_every_tensor(models: Path) -> None:
    base, pt = Checkpoint(models / "base"), Adapter(models / "pt")
    plan = plan_merge(base, {"pt": (pt, 1.0)}, storage=Storage(torch.float32))
    assert [t.name for t in plan.tensors] == list(base.tensors)
    assert plan.count("merge") == len(pt)
    assert plan.count("cast") == len(base) - len(pt)
    assert json.loads(json.dumps(plan.to_dict()))["bytes"] == 2 * base.nbytes


def test_what_cannot_be_merged_is_refused_before_anything_is_written(models: Path, tmp_path: Path) -> None:
    base, pt = Checkpoint(models / "base"), Adapter(models / "pt")
    make_gpt2(tmp_path / "gpt2")
    make_llama(tmp_path / "wide", intermediate_size=192)
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "out"
    with pytest.raises(AdapterError, match="14 of 14 modules match nothing.*different architectures"):
        merge(Checkpoint(tmp_path / "gpt2"), {"pt": (pt, 1.0)}, out)
    with pytest.raises(AdapterError, match="trained on another base"):
        merge(Checkpoint(tmp_path / "wide"), {"pt": (pt, 1.0)}, out)
    with pytest.raises(RuleError, match="finite"):
        merge(base, {"pt": (pt, float("nan"))}, out)
    with pytest.raises(RuleError, match="did you mean linear"):
        merge(base, {"pt": (pt, 1.0)}, out, recipe=Recipe("lineer"))
    assert sorted(tmp_path.iterdir()) == before


# As the releases of these quantisers write them.
QUANTISED: dict[str, tuple[dict[str, Any], str]] = {
    "bitsandbytes 4 bit": (
        {
            "_load_in_4bit": True,
            "_load_in_8bit": False,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "llm_int8_threshold": 6.0,
            "load_in_4bit": True,
            "load_in_8bit": False,
            "quant_method": "bitsandbytes",
        },
        "4-bit bitsandbytes",
    ),
    "bitsandbytes 8 bit, without a method": (
        {"llm_int8_threshold": 6.0, "load_in_4bit": False, "load_in_8bit": True},
        "8-bit bitsandbytes",
    ),
    "gptq": (
        {"bits": 4, "desc_act": True, "group_size": 128, "quant_method": "gptq", "sym": True, "damp_percent": 0.1},
        "4-bit gptq",
    ),
    "awq": (
        {"bits": 4, "group_size": 128, "modules_to_not_convert": None, "quant_method": "awq", "version": "gemm"},
        "4-bit awq",
    ),
    "fp8": (
        {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
        "fp8",
    ),
    "mxfp4": (
        {"modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"], "quant_method": "mxfp4"},
        "mxfp4",
    ),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_base_is_named(models: Path, tmp_path: Path, kind: str, inside: bool) -> None:
    """inside: in the text part of a composed model's config."""
    block, name = QUANTISED[kind]
    base = copy(models / "base", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    declared = {"quantization_config": block}
    (base / "config.json").write_text(json.dumps(config | ({"text_config": declared} if inside else declared)))
    hint = {
        "fp8": r"FineGrainedFP8Config\(dequantize=True\) first$",
        "mxfp4": r"Mxfp4Config\(dequantize=True\) first$",
    }
    message = rf"quantised \({name}\).*merge into the 16- or 32-bit checkpoint.*{hint.get(kind, 'then quantise$')}"
    with pytest.raises(CheckpointError, match=message):
        merge(Checkpoint(base), {"pt": (Adapter(models / "pt"), 1.0)}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("model.layers.0.self_attn.q_proj.qweight", torch.int32, "packed integers, as GPTQ and AWQ store them"),
        ("model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4", torch.uint8, "4-bit nf4"),
        ("model.layers.0.self_attn.q_proj.weight", torch.float8_e4m3fn, "float8_e4m3fn"),
    ],
)
def test_a_quantised_base_that_does_not_say_so(
    models: Path, tmp_path: Path, name: str, dtype: torch.dtype, message: str
) -> None:
    base = copy(models / "base", tmp_path / "base")
    file = base / "model.safetensors"
    save_file({**load_file(file), name: torch.zeros(64, 64).to(dtype)}, file)
    with pytest.raises(CheckpointError, match=rf"quantised \({message}"):
        plan_merge(Checkpoint(base), {"pt": (Adapter(models / "pt"), 1.0)})


def test_output_is_never_mixed_with_what_lies_there(models: Path, tmp_path: Path) -> None:
    base, pt, out = Checkpoint(models / "base"), Adapter(models / "pt"), tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        merge(base, {"pt": (pt, 1.0)}, out)
    with pytest.raises(OutputError, match="no earlier output"):
        merge(base, {"pt": (pt, 1.0)}, out, output=Output(overwrite=True))
    assert (out / "precious").read_text() == "x"
    (out / "precious").unlink()
    first = merge(base, {"pt": (pt, 1.0)}, out)
    second = merge(base, {"pt": (pt, 0.5)}, out, output=Output(overwrite=True))
    assert first["subject"] != second["subject"]
    assert Checkpoint(out).manifest == second


def test_a_merge_that_fails_its_proof_is_not_published(models: Path, tmp_path: Path) -> None:
    base, pt, sft = Checkpoint(models / "base"), Adapter(models / "pt"), Adapter(models / "sft")

    class Wrong(SampledProof):
        """Believes that the weights were to be the other way round."""

        def watch(self, base: Any, claim: Any, **options: Any) -> SampledProof:
            return super().watch(base, {"pt": (claim["pt"][0], 0.7), "sft": (claim["sft"][0], 0.3)}, **options)

    with pytest.raises(ProofError, match="weights-swapped"):
        merge(
            base,
            {"pt": (pt, 0.3), "sft": (sft, 0.7)},
            tmp_path / "out",
            proof=Wrong(),
        )
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(models: Path, tmp_path: Path) -> None:
    """A real limit on the size of files, in a process of its own."""
    code = (
        "import resource, sys; from crossmatch.cli import run;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        f"sys.exit(run(['merge', {str(models / 'base')!r}, '-a', 'pt={models / 'pt'}', '-w', 'pt=1', '-o', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "file size limit" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A file system of 256 kB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_no_space_left(models: Path, tiny_disk: Path) -> None:
    with pytest.raises(OutputError, match="disk is full") as caught:
        merge(Checkpoint(models / "base"), {"pt": (Adapter(models / "pt"), 1.0)}, tiny_disk / "out")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert list(tiny_disk.iterdir()) == []


def test_overwrite_replaces_nothing_but_an_earlier_output(models: Path, tmp_path: Path) -> None:
    copy(models, tmp_path / "m")
    base, parts = Checkpoint(tmp_path / "m" / "base"), {"pt": (Adapter(tmp_path / "m" / "pt"), 1.0)}
    for out, message in (
        (tmp_path / "m" / "base", "one directory, or one lies in the other"),
        (tmp_path / "m", "one directory, or one lies in the other"),
        (tmp_path / "m" / "pt" / "inside", "one directory, or one lies in the other"),
        (tmp_path / "m" / "sft", "no earlier output of crossmatch"),
    ):
        before = files(tmp_path / "m" / "base") | files(tmp_path / "m" / "sft")
        with pytest.raises(OutputError, match=message):
            merge(base, parts, out, output=Output(overwrite=True))
        assert files(tmp_path / "m" / "base") | files(tmp_path / "m" / "sft") == before
    for name in ("out.old", "out.partial", "out.work"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("x")
    merge(base, parts, tmp_path / "out")
    merge(base, parts, tmp_path / "out", output=Output(overwrite=True))
    assert all((tmp_path / name / "mine").exists() for name in ("out.old", "out.partial", "out.work"))


def test_overflow_is_said(models: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    base = copy(models / "base", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][0, 0] = 1e6
    save_file(weights, base / "model.safetensors")
    parts = {"pt": (Adapter(models / "pt"), 1.0)}
    with pytest.raises(OutputError, match="overflows float16; store the merge in bfloat16"):
        merge(Checkpoint(base), parts, tmp_path / "out", storage=Storage(torch.float16))
    # No hint names the dtype that has just overflowed.
    for dtype, hint in ((torch.bfloat16, "store the merge in float32"), (torch.float32, "give smaller weights")):
        huge = {"pt": (Adapter(models / "pt"), 1e300)}
        with pytest.raises(OutputError, match=f"overflows {str(dtype)[6:]}; {hint}"):
            merge(Checkpoint(base), huge, tmp_path / "out", storage=Storage(dtype))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


def test_an_adapter_of_another_base_is_refused(models: Path, tmp_path: Path) -> None:
    copy(models / "pt", tmp_path / "pt")
    (tmp_path / "pt" / "crossmatch.json").write_text('{"base": {"digest": "another"}}')
    base, parts = Checkpoint(models / "base"), {"pt": (Adapter(tmp_path / "pt"), 1.0)}
    with pytest.raises(AdapterError, match="trained on another base"):
        merge(base, parts, tmp_path / "out")
    merge(base, parts, tmp_path / "out", output=Output(any_base=True))
    (tmp_path / "pt" / "crossmatch.json").write_text(json.dumps({"base": {"digest": base.digest}}))
    merge(base, {"pt": (Adapter(tmp_path / "pt"), 1.0)}, tmp_path / "right")
