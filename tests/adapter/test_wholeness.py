"""Adapters that are whole are never found to lack anything; those that tools cut off are found, and named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint, verify
from crossmatch.adapter import examine
from crossmatch.adapter.shards import Run, longest_run, lost_shards
from crossmatch.cli import run
from crossmatch.errors import AdapterError
from crossmatch.merging import execute, plan_merge
from crossmatch.verification import Claim, identify, verify_claim
from helpers import copy
from whole_adapters import (
    State,
    configurations,
    flat,
    local_rows,
    local_shard,
    make_base,
    named_one_by_one,
    only_rank,
    rewrite,
    state,
    tensor_parallel,
    train,
    without_layers,
    zero_layers,
    zeroed,
)

WHOLE = {name: (base, options) for name, base, options in configurations()}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module")
def trained(bases: Path) -> Callable[..., Path]:
    """A whole adapter of a base, made once."""

    def make(base: str, **options: Any) -> Path:
        out = bases / f"{base}-{abs(hash(str(options)))}"
        return out if out.exists() else train(make_base(bases, base), out, seed=1, **options)

    return make


@pytest.mark.parametrize("name", WHOLE)
def test_whole_adapters_lack_nothing(bases: Path, tmp_path: Path, name: str) -> None:
    kind, options = WHOLE[name]
    base = make_base(bases, kind)
    adapter = Adapter(train(base, tmp_path / "a", seed=len(name), **options))
    assert examine(adapter).lacks == ()
    assert examine(adapter, Checkpoint(base)).lacks == ()


QV = {"target_modules": ["q_proj", "v_proj"]}
CUT: dict[str, tuple[str, dict[str, Any], Callable[[State], State], str]] = {
    "first of 2": ("llama2", {}, only_rank(2, range(1)), "shard 2 of 2 is lost"),
    "first of 4": ("llama2", {}, only_rank(4, range(1)), "shards 2 to 4 of 4 are lost"),
    "first of 8": (
        "llama2",
        {},
        only_rank(8, range(1)),
        "rows 8 to 63 of 64 are zero in .*shards 2 to 8 of 8 are lost",
    ),
    "first of 8, bf16": ("llama8", {"dtype": torch.bfloat16}, only_rank(8, range(1)), "shards 2 to 8 of 8 are lost"),
    "last of 2": ("llama2", {}, only_rank(2, range(1, 2)), "shard 1 of 2 is lost"),
    "all but the third of 4": ("llama8", {}, only_rank(4, (0, 1, 3)), "rows 32 to 47 of 64 .*: shard 3 of 4 is lost"),
    "q and v, first of 2": ("llama2", QV, only_rank(2, range(1)), "all 4 modules: shard 2 of 2 is lost"),
    "q and v, first of 8": ("llama8", QV, only_rank(8, range(1)), "all 16 modules: shards 2 to 8 of 8 are lost"),
    "dora, first of 4": ("llama2", {"use_dora": True}, only_rank(4, range(1)), "shards 2 to 4 of 4"),
    "relu, first of 4": (
        "opt",
        {"target_modules": ["fc1", "fc2", "q_proj"]},
        only_rank(4, range(1)),
        "shards 2 to 4 of 4",
    ),
    "gpt2, first of 4": ("gpt2", {"target_modules": ["c_attn", "c_fc"]}, only_rank(4, range(1)), "shards 2 to 4 of 4"),
    "experts, first of 8": (
        "moe",
        {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"], "target_modules": []},
        only_rank(8, range(1)),
        "shards 2 to 8 of 8",
    ),
    "tensor parallel": ("llama8", {}, tensor_parallel(4, range(1)), "rows or columns|rows .*shards 2 to 4 of 4"),
    "rank divided": ("llama2", {}, local_shard(2), "rank 4 in lora_A and 8 in lora_B, 8 by adapter_config.json"),
    "lora_B divided": ("llama2", {}, local_rows(2), "make 64 x 176, the base has 176 x 64|one shard was saved"),
    "two stages": ("llama8", {}, without_layers(range(4, 8)), "targets layers 4-7, too, its file has 0-3 alone"),
    "second stage": ("llama8", {}, without_layers(range(4)), "targets layers 0-3, too, its file has 4-7 alone"),
    "four stages": ("llama8", {}, without_layers(range(2, 8)), "targets layers 2-7, too, its file has 0, 1 alone"),
    "other stages at their start": ("llama8", {}, zero_layers(range(4, 8)), "4 of 8 layers are lost"),
    "first stage at its start": ("llama8", {}, zero_layers(range(6)), "in all modules of model.layers.0-5"),
    "lora_A lost": (
        "llama2",
        {},
        zeroed("q_proj.lora_A"),
        "lora_A, which starts at random, is zero in 2 of 14 modules",
    ),
}


@pytest.mark.parametrize("name", CUT)
def test_truncated_adapters_are_found(bases: Path, trained: Callable[..., Path], tmp_path: Path, name: str) -> None:
    kind, options, cut, sentence = CUT[name]
    adapter = rewrite(copy(trained(kind, **options), tmp_path / "a"), cut)
    base = Checkpoint(make_base(bases, kind))
    found = examine(Adapter(adapter), base).lacks
    assert {lack.fault for lack in found} == {"adapter-truncated"}
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(found[0].evidence)
    assert found[0].where
    with pytest.raises(AdapterError, match="adapter a is not whole: .*; save it again, all of it") as caught:
        plan_merge(base, {"a": (Adapter(adapter), 1.0)})
    assert caught.value.fault == "adapter-truncated"


def test_the_size_of_the_world_is_read_off(trained: Callable[..., Path], tmp_path: Path) -> None:
    for size in (2, 3, 4, 6, 8, 16):
        out = rewrite(copy(trained("llama8"), tmp_path / str(size)), only_rank(size, range(1)))
        (found,) = examine(Adapter(out)).lacks
        last = f"shards 2 to {size} of {size} are lost" if size > 2 else "shard 2 of 2 is lost"
        assert found.evidence.endswith(last), found.evidence


def test_flat_and_empty_factors(trained: Callable[..., Path], tmp_path: Path) -> None:
    for change, shape in ((flat, r"\[704\]"), (lambda t: {k: v[:0].flatten() for k, v in t.items()}, r"\[0\]")):
        adapter = rewrite(copy(trained("llama2"), tmp_path / shape.strip("\\[]")), change)
        with pytest.raises(AdapterError, match=f"has shape {shape}.*gather the parts") as caught:
            Adapter(adapter)
        assert caught.value.fault == "adapter-truncated"
    adapter = rewrite(copy(trained("llama2"), tmp_path / "rows"), lambda t: {k: v[:0] for k, v in t.items()})
    assert "all 28 tensors are empty" in examine(Adapter(adapter)).lacks[0].evidence


def test_a_config_that_lists_one_stage(trained: Callable[..., Path], bases: Path, tmp_path: Path) -> None:
    adapter = rewrite(copy(trained("llama8"), tmp_path / "a"), without_layers(range(4, 8)))
    base = Checkpoint(make_base(bases, "llama8"))
    named = named_one_by_one(adapter)
    minimal = dict.fromkeys(json.loads((adapter / "adapter_config.json").read_text()))
    kept = {"task_type": "CAUSAL_LM", "peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none"}
    rewrite(adapter, dict, **{**minimal, **kept, "target_modules": named, "base_model_name_or_path": "x"})
    (found,) = examine(Adapter(adapter), base).lacks
    assert (found.fault, found.where) == ("adapter-truncated", ("adapter_config.json",))
    assert "names the modules of model.layers.0-3 one by one" in found.evidence
    # All layers, written so, are whole.
    whole = copy(trained("llama8"), tmp_path / "b")
    rewrite(whole, dict, **{**minimal, **kept, "target_modules": named_one_by_one(whole)})
    assert examine(Adapter(whole), base).lacks == ()


def test_parts_that_are_missing_within_layers_keep_their_name(
    trained: Callable[..., Path], bases: Path, tmp_path: Path
) -> None:
    def uneven(t: State) -> State:
        return {k: v for k, v in t.items() if not ("q_proj" in k and any(f"layers.{n}." in k for n in range(4, 8)))}

    adapter = rewrite(copy(trained("llama8"), tmp_path / "a"), uneven)
    (found,) = examine(Adapter(adapter), Checkpoint(make_base(bases, "llama8"))).lacks
    assert found.fault == "adapter-incomplete"
    assert "targets model.layers.4.self_attn.q_proj" in found.evidence


def test_untrained_and_unusable(trained: Callable[..., Path], bases: Path, tmp_path: Path) -> None:
    base = Checkpoint(make_base(bases, "llama2"))
    untrained = train(base.path, tmp_path / "u", seed=1, steps=0)
    (found,) = examine(Adapter(untrained), base).lacks
    assert found.fault == "adapter-untrained"
    assert "lora_B is zero, its starting value, in all 14 modules" in found.evidence
    tokens = train(base.path, tmp_path / "e", seed=1, steps=0, target_modules=["embed_tokens"])
    assert "lora_embedding_A is zero" in examine(Adapter(tokens), base).lacks[0].evidence
    nan = rewrite(copy(trained("llama2"), tmp_path / "n"), lambda t: {k: v * float("nan") for k, v in t.items()})
    assert examine(Adapter(nan)).lacks[0].fault == "adapter-nonfinite"
    with pytest.raises(AdapterError, match="cannot be used: all 14 modules hold NaN or infinite values"):
        plan_merge(base, {"n": (Adapter(nan), 1.0)}, allow_partial=True)


def test_experts_never_chosen_and_frozen_towers_are_remarks(trained: Callable[..., Path], tmp_path: Path) -> None:
    encoder = trained("t5", target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    frozen = rewrite(copy(encoder, tmp_path / "t5"), lambda t: zeroed("encoder.block")(t))
    lora_a = {k: v for k, v in state(encoder).items() if "lora_A" in k}
    frozen = rewrite(frozen, lambda t: {**t, **lora_a})
    found = examine(Adapter(frozen))
    assert found.lacks == ()
    assert "modules hold no update, first encoder.block.0" in found.remarks[0]


def test_shards_are_told_from_zeros_that_say_nothing() -> None:
    generator = torch.Generator().manual_seed(0)

    def runs(dead: float, *, length: int = 512, layers: int = 24) -> list[Run]:
        zeros = [torch.rand(length, generator=generator) < dead for _ in range(layers)]
        return [Run(f"b{i}", "up_proj", i, length, *longest_run(zero)) for i, zero in enumerate(zeros)]

    for dead in (0.0, 0.1, 0.5, 0.9):
        assert lost_shards(runs(dead)) == []
    # Inner width filled up with zeros, in every layer.
    padded = [Run(f"b{i}", "up_proj", i, 11264, 11008, 11264) for i in range(32)]
    assert lost_shards(padded) == []
    # One dead head in one of many layers.
    one = [Run("b0", "q_proj", 0, 512, 0, 64, by_head=True), *runs(0.0)]
    assert lost_shards(one) == []
    # The same shard everywhere.
    (found,) = lost_shards([Run(f"b{i}", "q_proj", i, 512, 64, 512, by_head=True) for i in range(24)])
    assert (found.size, found.first, found.last) == (8, 1, 7)
    assert found.chance < 1e-6
    assert longest_run(torch.zeros(4, dtype=torch.bool)) == (0, 0)


@pytest.fixture(scope="module")
def half(bases: Path, trained: Callable[..., Path]) -> Path:
    """A directory with a base, an adapter of which half is zero, and PEFT's own merge of it."""
    root = bases / "half"
    base = make_base(bases, "llama2")
    adapter = rewrite(copy(trained("llama2", rate=1e-2, steps=4), root), only_rank(2, range(1)))
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(root / "merged")
    return root


def test_a_true_merge_of_half_an_adapter_fails(bases: Path, half: Path) -> None:
    base, parts = Checkpoint(make_base(bases, "llama2")), {"half": (Adapter(half), 1.0)}
    verdict = verify(half / "merged", base, parts)
    assert (verdict.verdict, verdict.faults) == ("failed", ("adapter-truncated",))
    assert verdict.modules["agree"] == 14
    assert "adapter half: rows" in verdict.findings[0].evidence
    assert len(verdict.findings[0].where) == 14
    allowed = verify_claim(half / "merged", Claim(base, parts, partial=("half",)))
    assert allowed.verified
    assert "partial-adapter-allowed" in allowed.notes
    quick = verify(half / "merged", base, parts, quick=True)
    assert quick.faults == ("adapter-truncated",)
    found = identify(half / "merged", base, {"half": Adapter(half)})
    assert (found.verdict, "adapter-partial" in found.notes) == ("identified", True)
    # Of weight zero, nothing of it is claimed to be there.
    assert verify(base.path, base, {"half": (Adapter(half), 0.0)}).verified


def test_merge_refuses_and_can_be_told_not_to(
    bases: Path, half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = make_base(bases, "llama2"), tmp_path / "out"
    arguments = ["merge", str(base), "-a", f"half={half}", "-w", "half=1", "-o", str(out)]
    assert run(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert "adapter half is not whole: rows" in said
    assert "--allow-partial-adapter" in said
    assert not out.exists()
    assert run([*arguments, "--allow-partial-adapter"]) == 0
    assert "warning: adapter half is partial, as allowed" in capsys.readouterr().err
    recorded = json.loads((out / "crossmatch.json").read_text())["predicate"]["partial_adapters"]
    assert list(recorded) == ["half"]
    assert "shard 2 of 2 is lost" in recorded["half"][0]
    assert run(["verify", str(out), "--json"]) == 0
    assert "partial-adapter-allowed" in json.loads(capsys.readouterr().out)["notes"]
    claim = ["verify", str(out), "--base", str(base), "-a", f"half={half}", "-w", "half=1", "--json"]
    assert run(claim) == 1
    assert json.loads(capsys.readouterr().out)["faults"] == ["adapter-truncated"]
    assert run([*claim, "--allow-partial-adapter"]) == 0


def test_inspect_says_what_is_lacking(
    half: Path, trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(half)]) == 0
    assert "whole: adapter-truncated" in capsys.readouterr().out
    assert run(["inspect", str(trained("llama2"))]) == 0
    assert "yes, as far as the file alone tells" in capsys.readouterr().out


def test_holes_are_merged_where_that_is_allowed(trained: Callable[..., Path], bases: Path, tmp_path: Path) -> None:
    adapter = Adapter(rewrite(copy(trained("llama8"), tmp_path / "a"), without_layers(range(4, 8))))
    base = Checkpoint(make_base(bases, "llama8"))
    plan = plan_merge(base, {"a": (adapter, 1.0)}, allow_partial=True)
    manifest = execute(plan, tmp_path / "out")
    assert "one pipeline stage" in manifest["predicate"]["partial_adapters"]["a"][0]
    assert verify(tmp_path / "out", base, {"a": (adapter, 1.0)}).faults == ("adapter-truncated",)
    assert verify_claim(tmp_path / "out", Claim(base, {"a": (adapter, 1.0)}, partial=("a",))).verified


def test_what_names_the_flag_has_it(
    bases: Path, half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """vectors apply and calibrate refuse half an adapter, too, and name the option that takes it."""
    base, text = make_base(bases, "llama2"), tmp_path / "text.jsonl"
    text.write_text('{"text": "one two three four five six"}\n')
    arguments = ["vectors", "apply", str(base), str(half), "-o", str(tmp_path / "applied")]
    assert run(arguments) == 2
    assert "--allow-partial-adapter" in capsys.readouterr().err
    assert run([*arguments, "--allow-partial-adapter"]) == 0
    output = str(tmp_path / "c.safetensors")
    arguments = ["calibrate", str(base), "-a", f"half={half}", "--data", str(text), "-o", output]
    assert run(arguments) == 2
    assert "--allow-partial-adapter" in capsys.readouterr().err
    # This base has no tokenizer: what comes next is refused for that.
    run([*arguments, "--allow-partial-adapter"])
    assert "whole" not in capsys.readouterr().err
