"""What a merge can be written as: adapters, shards, roundings; and that nothing but a whole result is ever there."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from test_kinds import grow, tune
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint, merge, verify
from crossmatch.checkpoint import file_digest
from crossmatch.cli import run
from crossmatch.delta import dense, linear, norm
from crossmatch.errors import CheckpointError, CrossmatchError, OutputError, ProofError, RuleError
from crossmatch.merging import Output, Storage, estimate, execute, merge_factors, plan_merge
from crossmatch.rules import Recipe, Weights
from crossmatch.verification import SampledProof, WholeProof, claim_from_manifest, verify_claim
from helpers import LINEAR, copy, make_adapter, make_gpt2, make_llama

Pair = dict[str, tuple[Adapter, float]]


def pair(models: Path, pt: float = 0.3, sft: float = 0.7) -> Pair:
    return {"pt": (Adapter(models / "pt"), pt), "sft": (Adapter(models / "sft"), sft)}


def loaded(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """The parameters that PEFT makes of an adapter."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return dict(PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict())


# --- adapters --------------------------------------------------------------------------------------------------------


def test_an_exact_adapter_is_the_weighted_sum(models: Path, tmp_path: Path) -> None:
    base, parts = Checkpoint(models / "base"), pair(models)
    manifest = merge_factors(plan_merge(base, parts), tmp_path / "both")
    form = manifest["predicate"]["form"]
    assert form["exact"]
    assert form["rank"] == 16
    assert form["relative_error"] < 1e-7
    both = Adapter(tmp_path / "both")
    assert both.trained_on == base.digest
    for name in parts["pt"][0]:
        expected = linear([parts[k][0][name] for k in parts], [0.3, 0.7])
        assert norm(linear([both[name], expected], [1.0, -1.0])) <= 1e-6 * norm(expected)
    merged = loaded(models / "base", tmp_path / "both")
    merge(base, parts, tmp_path / "merged", storage=Storage(torch.float32))
    for name, tensor in load_file(tmp_path / "merged" / "model.safetensors").items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-7)
    config = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    # What servers without rank patterns need: one rank, scaling one.
    assert config["r"] == config["lora_alpha"] == 16
    assert "rank_pattern" not in config
    assert config["target_modules"] == sorted(LINEAR)
    assert "0.3 pt + 0.7 sft" in (tmp_path / "both" / "README.md").read_text()


def test_adapters_of_different_rank_and_targets_become_one(models: Path, tmp_path: Path) -> None:
    make_adapter(models / "base", tmp_path / "a", seed=1, r=4, target_modules=["q_proj"], layers_to_transform=[1])
    make_adapter(models / "base", tmp_path / "b", seed=2, r=2, target_modules=["q_proj", "up_proj"], use_rslora=True)
    base = Checkpoint(models / "base")
    parts = {"a": (Adapter(tmp_path / "a"), 2.0), "b": (Adapter(tmp_path / "b"), -0.5)}
    merge_factors(plan_merge(base, parts), tmp_path / "both")
    both = Adapter(tmp_path / "both")
    assert {d.rank for d in both.values()} == {6}  # type: ignore[union-attr]
    merge(base, parts, tmp_path / "one", storage=Storage(torch.float32))
    merge(base, {"both": (both, 1.0)}, tmp_path / "two", storage=Storage(torch.float32))
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-6, atol=1e-8)


def test_a_truncated_adapter_says_what_it_costs(models: Path, tmp_path: Path) -> None:
    base, parts = Checkpoint(models / "base"), pair(models)
    form = merge_factors(plan_merge(base, parts), tmp_path / "low", rank=4)["predicate"]["form"]
    low = Adapter(tmp_path / "low")
    lost = total = 0.0
    for name in low:
        full = dense(linear([parts[k][0][name] for k in parts], [0.3, 0.7]))
        values = torch.linalg.svdvals(full)
        error = torch.linalg.vector_norm(full - dense(low[name]))
        torch.testing.assert_close(error, torch.linalg.vector_norm(values[4:]), rtol=1e-5, atol=1e-7)
        lost, total = lost + float(error) ** 2, total + float(full.square().sum())
    assert form["relative_error"] == pytest.approx((lost / total) ** 0.5, rel=1e-5)
    assert not form["exact"]
    assert form["rank"] == 4
    assert form["worst"]["relative_error"] >= form["relative_error"]


def test_other_kinds_as_adapters(tmp_path: Path) -> None:
    """Conv1D with biases, embeddings, experts: through PEFT again, they are what a checkpoint would be."""
    from test_kinds import EXPERTS, SHAPE
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    make_gpt2(tmp_path / "gpt2")
    make_llama(tmp_path / "llama", dtype=torch.float32)
    moe = Qwen3MoeConfig(**SHAPE, num_experts=4, moe_intermediate_size=24, head_dim=8)
    Qwen3MoeForCausalLM(moe).save_pretrained(tmp_path / "moe")
    cases: dict[str, dict[str, Any]] = {
        "gpt2": {"target_modules": ["c_attn"], "fan_in_fan_out": True, "lora_bias": True},
        "llama": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
        "moe": {"target_parameters": EXPERTS},
    }
    for name, config in cases.items():
        for seed in (1, 2):
            tune(tmp_path / name, tmp_path / f"{name}{seed}", seed=seed, **config)
        base = Checkpoint(tmp_path / name)
        parts = {str(seed): (Adapter(tmp_path / f"{name}{seed}"), weight) for seed, weight in ((1, 0.5), (2, 2.0))}
        merge_factors(plan_merge(base, parts), tmp_path / f"{name}-both")
        merge(base, parts, tmp_path / f"{name}-merged")
        expected: Any = AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-merged", dtype=torch.float32)
        found = loaded(tmp_path / name, tmp_path / f"{name}-both")
        for key, tensor in expected.state_dict().items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-5)


def test_what_an_adapter_cannot_hold(models: Path, tmp_path: Path) -> None:
    base, parts = Checkpoint(models / "base"), pair(models)
    with pytest.raises(RuleError, match="not of low rank; write a checkpoint"):
        merge_factors(plan_merge(base, parts, recipe=Recipe("ties")), tmp_path / "x")
    tune(models / "base", tmp_path / "dora", use_dora=True)
    tune(models / "base", tmp_path / "saved", modules_to_save=["norm"])
    for name, weight in (("dora", 1.0), ("saved", 0.5)):
        with pytest.raises(RuleError, match="--to checkpoint"):
            merge_factors(plan_merge(base, {name: (Adapter(tmp_path / name), weight)}), tmp_path / "x")
    # Its first rows are the base's own: taken as unchanged, the layers would be left out with the rows that were added.
    for name, config in (("grown", {}), ("grown-saved", {"modules_to_save": ["lm_head", "embed_tokens"]})):
        tune(models / "base", tmp_path / name, grow, **config)
        with pytest.raises(RuleError, match=f"adapter {name} adds tokens to the vocabulary.*write a checkpoint"):
            merge_factors(plan_merge(base, {name: (Adapter(tmp_path / name), 1.0)}), tmp_path / "x")
    merge_factors(plan_merge(base, {"saved": (Adapter(tmp_path / "saved"), 1.0)}), tmp_path / "kept")
    kept = Adapter(tmp_path / "kept")["model.norm.weight"]
    saved = load_file(tmp_path / "saved" / "adapter_model.safetensors")["base_model.model.model.norm.weight"]
    zero = torch.zeros(1, 64, dtype=torch.float64)
    assert torch.equal(kept.rows(0, 1, torch.float64, zero)[0], saved.double())
    assert not (tmp_path / "x").exists()


# --- storage ---------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_streaming_is_in_memory_is_one_thread(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ranks, dtypes, shapes, shard sizes, blocks and threads drawn: the same bytes."""
    tmp_path = tmp_path_factory.mktemp("stream")
    draw = data.draw
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    size = {"hidden_size": 16 * draw(st.integers(1, 3)), "intermediate_size": draw(st.integers(8, 60))}
    make_llama(
        tmp_path / "base", dtype=dtype, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, **size
    )
    for seed, name in enumerate(("pt", "sft")):
        make_adapter(tmp_path / "base", tmp_path / name, seed=seed, r=draw(st.integers(1, 9)))
    base, parts = Checkpoint(tmp_path / "base"), pair(tmp_path, draw(st.floats(-1, 1)), draw(st.floats(-1, 1)))
    rule = draw(st.sampled_from(["linear", "ties", "dare-linear", "core-tsv"]))
    rounding = draw(st.sampled_from(["nearest", "stochastic"]))
    bytes_of: list[dict[str, torch.Tensor]] = []
    cores = [draw(st.integers(1, 4)), 1, 1]
    for number, (shards, block) in enumerate(((draw(st.integers(500, 20_000)), 700), (0, 100), (0, 1 << 20))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoint.blocks, "__defaults__", (None, block))
            patch.setattr("os.sched_getaffinity", lambda _, n=cores[number]: set(range(n)))
            storage = Storage(rounding=rounding, shard_bytes=shards)
            merge(base, parts, tmp_path / str(number), recipe=Recipe(rule, seed=3), storage=storage)
        written = Checkpoint(tmp_path / str(number))
        assert shards == 0 or all(
            sum(i.nbytes for i in written.tensors.values() if i.file == f) <= shards
            or sum(i.file == f for i in written.tensors.values()) == 1
            for f in written.layout.files
        )
        bytes_of.append({name: written[name] for name in sorted(written)})
    for other in bytes_of[1:]:
        assert list(other) == list(bytes_of[0])
        assert all(torch.equal(other[name], tensor) for name, tensor in bytes_of[0].items())


def test_stochastic_rounding_is_right_in_the_mean_and_seeded(models: Path, tmp_path: Path) -> None:
    base, parts = Checkpoint(models / "base"), pair(models, 0.01, 0.02)
    name = "model.layers.0.mlp.up_proj.weight"
    exact = base[name].double() + sum(w * dense(a[name]) for a, w in parts.values())
    outs = []
    for seed in range(40):
        out = tmp_path / str(seed)
        merge(base, parts, out, recipe=Recipe(seed=seed), storage=Storage(rounding="stochastic"))
        outs.append(Checkpoint(out)[name])
    nearest = exact.to(torch.bfloat16).double()
    mean = torch.stack(outs).double().mean(0)
    # To the nearest most of this delta is lost; at random it is there in the mean.
    assert torch.linalg.vector_norm(mean - exact) < 0.5 * torch.linalg.vector_norm(nearest - exact)
    ends = (torch.full_like(exact, sign * 9.0).bfloat16() for sign in (1, -1))
    step = torch.stack([(torch.nextafter(nearest.bfloat16(), end).double() - nearest).abs() for end in ends]).amax(0)
    assert bool(((outs[0].double() - exact).abs() <= step * 1.01).all())
    merge(base, parts, tmp_path / "again", storage=Storage(rounding="stochastic"))
    assert torch.equal(Checkpoint(tmp_path / "again")[name], outs[0])
    merge(base, pair(models), tmp_path / "proved", storage=Storage(rounding="stochastic"), proof=SampledProof())
    verdict = verify_claim(tmp_path / "proved", claim_from_manifest(Checkpoint(tmp_path / "proved"), None, {}))
    assert verdict.verified
    assert "rounded-stochastically" in verdict.notes


def test_weights_by_module_are_written_and_proved(models: Path, tmp_path: Path) -> None:
    base = Checkpoint(models / "base")
    weights = Weights.parse("0.3,mlp:0.2,layers[1:]:0.1,layers[1].q_proj:0")
    parts: Any = {"pt": (Adapter(models / "pt"), weights), "sft": (Adapter(models / "sft"), 0.7)}
    merge(base, parts, tmp_path / "out", storage=Storage(torch.float32), proof=SampledProof())
    written = Checkpoint(tmp_path / "out")
    for name, weight in (
        ("model.layers.0.self_attn.q_proj.weight", 0.3),
        ("model.layers.0.mlp.up_proj.weight", 0.2),
        ("model.layers.1.mlp.up_proj.weight", 0.1),
        ("model.layers.1.self_attn.q_proj.weight", 0.0),
    ):
        exact = base[name].double() + weight * dense(parts["pt"][0][name]) + 0.7 * dense(parts["sft"][0][name])
        torch.testing.assert_close(written[name], exact.float(), rtol=0, atol=0)
    assert written.manifest is not None
    assert written.manifest["predicate"]["adapters"]["pt"]["weight"] == str(weights)
    assert verify_claim(written, claim_from_manifest(written, None, {})).verified
    other: Any = {"pt": (parts["pt"][0], Weights.parse("0.3,mlp:0.2")), "sft": parts["sft"]}
    assert verify(written, base, other).verdict == "failed"
    with pytest.raises(RuleError, match="'lstm' applies to none"):
        plan_merge(base, {"pt": (parts["pt"][0], Weights.parse("1,lstm:0"))})


@pytest.mark.parametrize("rule", ["ties", "dare-ties", "breadcrumbs", "slerp", "core-iso", "project"])
def test_other_rules_are_proved_by_their_own_result(models: Path, tmp_path: Path, rule: str) -> None:
    base, parts = Checkpoint(models / "base"), pair(models)
    manifest = merge(base, parts, tmp_path / "out", recipe=Recipe(rule, seed=4), proof=SampledProof())
    assert manifest["predicate"]["verdict"]["verdict"] == "verified"
    assert manifest["predicate"]["rule"] == rule
    written = Checkpoint(tmp_path / "out")
    assert verify_claim(written, claim_from_manifest(written, None, {})).verified
    assert (
        verify(written, base, parts, recipe=Recipe(rule, {"density": 0.9}) if "es" in rule else Recipe()).verdict
        == "failed"
    )


def test_rules_leave_what_they_cannot_act_on_to_the_sum(models: Path, tmp_path: Path) -> None:
    tune(models / "base", tmp_path / "a", modules_to_save=["norm"], seed=1)
    tune(models / "base", tmp_path / "b", seed=2)
    parts = {"a": (Adapter(tmp_path / "a"), 0.5), "b": (Adapter(tmp_path / "b"), 0.5)}
    plan = plan_merge(Checkpoint(models / "base"), parts, recipe=Recipe("ties"))
    assert "model.norm.weight" in plan.summed
    assert not any("q_proj" in name for name in plan.summed)
    merge(Checkpoint(models / "base"), parts, tmp_path / "out", recipe=Recipe("ties"))
    wanted = load_file(tmp_path / "a" / "adapter_model.safetensors")["base_model.model.model.norm.weight"]
    assert torch.equal(Checkpoint(tmp_path / "out")["model.norm.weight"], (0.5 + 0.5 * wanted.double()).bfloat16())


def test_manifest_digests_and_card(models: Path, tmp_path: Path) -> None:
    import hashlib

    base = Checkpoint(models / "base")
    merge(base, pair(models), tmp_path / "out", output=Output(sha256=True, durable=True), proof=SampledProof())
    manifest = json.loads((tmp_path / "out" / "crossmatch.json").read_text())
    data = (tmp_path / "out" / "model.safetensors").read_bytes()
    (subject,) = manifest["subject"]
    assert subject["digest"] == {
        "blake3": file_digest(tmp_path / "out" / "model.safetensors"),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    # Taken in passing, and the same as from the file.
    assert manifest["predicate"]["base"]["files"] == {
        "model.safetensors": file_digest(models / "base" / "model.safetensors")
    }
    verdict = manifest["predicate"]["verdict"]
    assert verdict["scope"] == "sampled rows"
    assert set(verdict["swallowed_by_adapter"]) == {"pt", "sft"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| pt | 0.3 |" in card
    assert "**verified** (sampled rows): pt 0." in card
    merge(base, pair(models), tmp_path / "whole", proof=WholeProof())
    assert "**verified** (all rows): pt 0." in (tmp_path / "whole" / "README.md").read_text()
    merge(base, pair(models), tmp_path / "unproved")
    assert "verified" not in (tmp_path / "unproved" / "README.md").read_text()


def test_swallowed_energy_is_of_each_adapter(models: Path, tmp_path: Path) -> None:
    """At a weight of 1e-3, a delta of a tenth of the base is below most rounding steps of bfloat16."""
    base, parts = Checkpoint(models / "base"), pair(models, 0.001, 0.7)
    verdict = merge(base, parts, tmp_path / "out", proof=SampledProof())["predicate"]["verdict"]
    shares = verdict["swallowed_by_adapter"]
    name = "model.layers.0.mlp.up_proj.weight"
    exact = {}
    for label, (adapter, weight) in parts.items():
        lost = energy = 0.0
        for name in adapter:
            share = weight * dense(adapter[name])
            same = (base[name].double() + share).to(torch.bfloat16) == base[name]
            lost, energy = lost + float(share[same].square().sum()), energy + float(share.square().sum())
        exact[label] = lost / energy
    assert shares["pt"] > 0.5 > shares["sft"]
    assert shares["pt"] == pytest.approx(exact["pt"], abs=0.1)


# --- the command -----------------------------------------------------------------------------------------------------


def arguments(models: Path, out: Path | None, *more: str) -> list[str]:
    claim = ["-a", f"pt={models / 'pt'}", "-a", f"sft={models / 'sft'}", "-w", "pt=0.3", "-w", "sft=0.7"]
    return ["merge", str(models / "base"), *claim, *(["-o", str(out)] if out else []), *more]


def test_the_plan_of_a_dry_run(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(models, tmp_path / "out", "--dry-run", "--rule", "ties", "--set", "density=0.5")) == 0
    printed = capsys.readouterr().out
    assert "14 to merge, 7 to copy" in printed
    assert "of memory" in printed
    assert run(arguments(models, None, "--dry-run", "--json", "--dtype", "fp16")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["counts"] == {"merge": 14, "copy": 0, "cast": 7}
    assert plan["estimate"]["seconds"] >= 0
    assert plan["rule"] == "linear"
    assert list(tmp_path.iterdir()) == []
    assert estimate(plan_merge(Checkpoint(models / "base"), pair(models)))["memory_bytes"] > 1e8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rule", "tie"], "did you mean ties?"),
        (["--set", "density=0.5"], "linear has no parameter 'density'"),
        (["--rule", "ties", "--set", "density=2"], "density is a number above 0 to 1"),
        (["--rule", "ties", "--set", "election=both"], "election is one of"),
        (["--rule", "regmean"], "make a file with crossmatch calibrate"),
        (["--rule", "project", "--set", "of=ptt"], "ptt is none of the adapters"),
        (["--rounding", "up"], "give nearest or stochastic"),
        (["--shard-size", "many"], "write it as 5GB"),
        (["--to", "gguf"], "give one of checkpoint, adapter"),
        (["--rank", "4"], "--rank needs --to adapter"),
        (["--to", "adapter", "--rank", "0"], "a rank is at least 1"),
        (["--tied", "yes"], "give one of refuse, untie, keep"),
        (["-w", "pt=0.3,mlp"], "given twice"),
        (["--calibration", "nothing"], "nothing"),
    ],
)
def test_bad_options_get_one_line(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert run(arguments(models, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_what_rounding_loses_is_said(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(models, tmp_path / "usual")) == 0
    error = capsys.readouterr().err
    assert re.search(r"^energy lost in rounding: \d\.\d% of pt, \d\.\d% of sft$", error, re.MULTILINE)
    assert "warning" not in error
    tiny = [x.replace("pt=0.3", "pt=0.001") for x in arguments(models, tmp_path / "tiny")]
    assert run(tiny) == 0
    error = capsys.readouterr().err
    assert "warning: much of pt is lost in rounding" in error
    for name, *flags in (("unproved", "--no-verify"), ("stochastic", "--rounding", "stochastic")):
        assert run(arguments(models, tmp_path / name, *flags)) == 0
        assert "lost in rounding" not in capsys.readouterr().err


def test_an_adapter_from_the_command_line(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(models, tmp_path / "exact", "--to", "adapter")) == 0
    assert ": rank 16, exact" in capsys.readouterr().out
    assert run(arguments(models, tmp_path / "low", "--to", "adapter", "--rank", "2", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["form"]["rank"] == 2


# --- surviving -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_moment(models: Path, tmp_path: Path) -> None:
    """A child of this process merges in a loop of its own directory and is killed with SIGKILL: what is at the output is
    nothing, or whole."""
    base, parts = models / "base", pair(models)
    started = time.monotonic()
    merge(Checkpoint(base), parts, tmp_path / "warm", proof=SampledProof())
    usual = time.monotonic() - started
    script = tmp_path / "child.py"
    script.write_text(
        "import os, signal, sys\n"
        "from crossmatch import Adapter, Checkpoint, merge\n"
        "from crossmatch.verification import SampledProof\n"
        "base, pt, sft = sys.argv[1:4]\n"
        "merge(Checkpoint(base), {'pt': (Adapter(pt), 0.3)}, sys.argv[4] + '-warm', proof=SampledProof())\n"
        # One import for all: every line read is a merge in a fork, which may be killed.
        "for line in sys.stdin:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        parts = {'pt': (Adapter(pt), 0.3), 'sft': (Adapter(sft), 0.7)}\n"
        "        merge(Checkpoint(base), parts, line.strip(), proof=SampledProof())\n"
        "        os._exit(0)\n"
        "    print(child, flush=True)\n"
        "    os.waitpid(child, 0)\n"
        "    print('done', flush=True)\n"
    )
    command = [sys.executable, str(script), str(base), str(models / "pt"), str(models / "sft"), str(tmp_path / "out")]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    moments, killed, whole = random.Random(7), 0, 0
    out = tmp_path / "run" / "out"
    out.parent.mkdir()
    for _ in range(20):
        print(out, file=parent.stdin, flush=True)
        child = int(parent.stdout.readline())
        time.sleep(moments.uniform(0, 1.3 * usual))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        assert parent.stdout.readline() == "done\n"
        if out.exists():
            verdict = verify_claim(out, claim_from_manifest(Checkpoint(out), None, {}))
            assert verdict.verified
            whole += 1
            for file in out.iterdir():
                file.unlink()
            out.rmdir()
        else:
            killed += 1
            with pytest.raises(CrossmatchError):
                Checkpoint(out)
        assert {p.name for p in out.parent.iterdir()} <= {".out.crossmatch-partial"}
    parent.stdin.close()
    parent.stdout.close()
    assert parent.wait() == 0
    assert killed >= 4, (killed, whole)
    merge(Checkpoint(base), parts, out, proof=SampledProof())
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("bug", ["exchanged", "unwritten", "other rows"])
def test_the_sampled_proof_does_not_believe_the_maker(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    """Bugs of a writer: two tensors of one shape in each other's place, a block that is never written, wrong rows read."""
    from crossmatch.checkpoint import OutputFile
    from crossmatch.merging.writer import Stream

    one, two = (f"model.layers.0.mlp.{kind}_proj.weight" for kind in ("up", "gate"))
    if bug == "exchanged":
        plain = OutputFile.__init__

        def exchanged(self: OutputFile, *given: Any) -> None:
            plain(self, *given)
            self.offsets[one], self.offsets[two] = self.offsets[two], self.offsets[one]

        monkeypatch.setattr(OutputFile, "__init__", exchanged)
    elif bug == "unwritten":
        blocks = Stream._blocks

        def fewer(self: Stream, *given: Any) -> Any:
            yield from (b for b in blocks(self, *given) if b.tensor.name != "model.embed_tokens.weight" or b.start == 0)

        monkeypatch.setattr(Stream, "_blocks", fewer)
        monkeypatch.setattr(Checkpoint.blocks, "__defaults__", (None, 2000))
    else:
        work = Stream._work

        def confused(self: Stream, block: Any) -> Any:
            base, self.base = self.base, self.base.extended({}, {}, {})
            self.base.tensors[one] = self.base.tensors[two]
            try:
                return work(self, block)
            finally:
                self.base = base

        monkeypatch.setattr(Stream, "_work", confused)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    with pytest.raises(ProofError, match="failed its own proof"):
        merge(Checkpoint(models / "base"), pair(models), tmp_path / "out", proof=SampledProof())
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_names_other_files_is_refused(models: Path, tmp_path: Path) -> None:
    """Else the base's weights would be copied over the merged ones, as a file that belongs to the tokenizer."""
    base = copy(models / "base", tmp_path / "base")
    names = list(Checkpoint(base))
    (base / "model.safetensors").rename(base / "tokenizer.model")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "tokenizer.model")}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="is no .safetensors file"):
        Checkpoint(base)


def test_an_overwrite_that_is_killed_between_its_renames_is_undone(models: Path, tmp_path: Path) -> None:
    base, out = Checkpoint(models / "base"), tmp_path / "out"
    first = merge(base, pair(models), out)
    out.rename(tmp_path / ".out.crossmatch-old")
    with pytest.raises(OutputError, match="not empty"):
        merge(base, pair(models), out)
    assert Checkpoint(out).manifest == first
    second = merge(base, pair(models, 1.0, 1.0), out, output=Output(overwrite=True))
    assert Checkpoint(out).manifest == second
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_two_writers_of_one_output(models: Path, tmp_path: Path) -> None:
    """The one that comes second says so, and the first is not disturbed."""
    base = Checkpoint(models / "base")
    inside, go_on = threading.Event(), threading.Event()

    class Slow(SampledProof):
        def verdict(self, path: Path) -> Any:
            inside.set()
            assert go_on.wait(20)
            return super().verdict(path)

    first = threading.Thread(target=lambda: merge(base, pair(models), tmp_path / "out", proof=Slow()))
    first.start()
    assert inside.wait(20)
    with pytest.raises(OutputError, match="another process is writing"):
        merge(Checkpoint(models / "base"), pair(models), tmp_path / "out")
    go_on.set()
    first.join()
    assert verify_claim(tmp_path / "out", claim_from_manifest(Checkpoint(tmp_path / "out"), None, {})).verified


@pytest.mark.parametrize("which", ["base", "pt"])
def test_inputs_that_change_meanwhile_are_noticed(models: Path, tmp_path: Path, which: str) -> None:
    copy(models, tmp_path / "m")
    file = tmp_path / "m" / which / ("model.safetensors" if which == "base" else "adapter_model.safetensors")

    class Meddler(SampledProof):
        def watch(self, *claim: Any, **how: Any) -> Any:
            os.utime(file, ns=(1, 1))
            return super().watch(*claim, **how)

    with pytest.raises(CheckpointError, match=f"{file.name} was changed while it was being read"):
        merge(Checkpoint(tmp_path / "m" / "base"), pair(tmp_path / "m"), tmp_path / "out", proof=Meddler())
    assert not (tmp_path / "out").exists()


def test_a_base_that_ends_early_is_one_line(models: Path, tmp_path: Path) -> None:
    copy(models / "base", tmp_path / "base")
    base = Checkpoint(tmp_path / "base")
    plan = plan_merge(base, pair(models))
    with (tmp_path / "base" / "model.safetensors").open("r+b") as stream:
        stream.truncate(60_000)
    with pytest.raises(CheckpointError, match="ends .* bytes early"):
        execute(plan, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


# Merges once where it may, so that all code is loaded; then, as a user that may write nowhere, each given command line.
STRANGER = """
import json, os, sys
from crossmatch.cli import run

allowed, *commands = json.loads(sys.argv[1])
assert run(allowed) == 0
if os.geteuid() == 0:
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
print("as a stranger", file=sys.stderr)
for command in commands:
    print("exit", run(command), file=sys.stderr)
"""


@pytest.fixture
def public(models: Path) -> Iterator[Path]:
    """Copies of the models that any user may read, and `closed` and `closed/empty`, into which nobody may write."""
    # Not below tmp_path, into which other users may not look.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for model in ("base", "pt"):
            copy(models / model, root / model)
        (root / "closed" / "empty").mkdir(parents=True)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        for path in (root / "closed" / "empty", root / "closed"):
            path.chmod(0o555)
        yield root
        (root / "closed").chmod(0o755)


def test_no_permission_is_one_line(public: Path, tmp_path: Path) -> None:
    merge_it = ["merge", str(public / "base"), "-a", f"pt={public / 'pt'}", "-w", "pt=1", "-o"]
    outs = [public / "closed" / name for name in ("out", "empty", "new/out")]
    secret = copy(public / "base", public / "secret") / "model.safetensors"
    secret.chmod(0)
    unreadable = ["merge", str(secret.parent), *merge_it[2:], str(tmp_path / "other")]
    commands = [[*merge_it, str(tmp_path / "out")], *([*merge_it, str(out)] for out in outs), unreadable]
    before = sorted(public.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    said = done.stderr.partition("as a stranger\n")[2].splitlines()
    why = "permission denied; choose another output; nothing was left there"
    wanted = [f"error: {out} cannot be written: {why}" for out in outs]
    wanted.append(f"error: {secret} cannot be read: Permission denied")
    assert said == [line for text in wanted for line in (text, "exit 2")]
    assert sorted(public.rglob("*")) == before
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
