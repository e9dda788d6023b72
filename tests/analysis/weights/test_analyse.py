"""The command: adapters and tuned checkpoints to one result; the cache of directions; what is refused, and how."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossmatch import Adapter, Checkpoint
from crossmatch.analysis import Difference, Subspaces, Wanted, analyse, assemble, open_vectors
from crossmatch.cli import run
from crossmatch.delta import dense, norm, singular_values
from crossmatch.errors import InputError
from crossmatch.results.analysis import ANALYSIS_VERSION
from helpers import copy, make_adapter, make_gpt2, make_llama, peft_merge


@pytest.fixture(scope="module")
def tuned(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with an adapter merged into it in float32, its embedding and a norm moved: a change that is known."""
    out = tmp_path_factory.mktemp("tuned") / "tuned"
    peft_merge(models / "base", [models / "pt"], out, dtype=torch.float32)
    tensors = load_file(out / "model.safetensors")
    tensors["model.norm.weight"] += 0.5
    tensors["model.embed_tokens.weight"] *= 1.1
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


def analysed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert run(["--quiet", "analyse", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def module_rows(rows: list[dict]) -> dict[str, dict]:
    return {row["name"]: row for row in rows if row["level"] == "module"}


def test_the_result_of_two_adapters(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ["--cache", tmp_path / "cache"]
    facts = analysed(capsys, models / "base", models / "pt", f"other={models / 'sft'}", *cache, "-o", tmp_path / "out")
    assert list(facts) == [
        "schema_version", "base", "vectors", "size", "heads", "subspaces", "alignment", "readings", "overlap",
        "claims", "left_out", "seconds", "answers",
    ]  # fmt: skip
    assert facts["schema_version"] == ANALYSIS_VERSION
    assert facts["base"]["digest"] == Checkpoint(models / "base").digest
    assert list(facts["vectors"]) == ["pt", "other"]
    assert facts["vectors"]["pt"]["digest"] == Adapter(models / "pt").digest
    written = json.loads((tmp_path / "out/analysis.json").read_text())
    assert written == facts
    adapter, base = Adapter(models / "pt"), Checkpoint(models / "base")
    for name, row in module_rows(facts["size"]["pt"]).items():
        assert row["frobenius"] == pytest.approx(norm(adapter[name]), rel=1e-9)
        assert row["spectral"] == pytest.approx(float(singular_values(adapter[name])[0]), rel=1e-9)
        assert row["share"] == pytest.approx(norm(adapter[name]) / float(base[name].double().norm()), rel=1e-6)
    heads = [row for row in facts["heads"]["pt"] if row["name"] == "model.layers.1.self_attn.k_proj.weight"]
    assert [row["group"] for row in heads] == [0, 1]
    assert sum(row["energy"] for row in heads) == pytest.approx(1)
    labels = {row["k_label"] for row in facts["alignment"]["pt"]}
    # The model is 64 wide: 64 and 256 directions are all of them, or more.
    assert labels == {"r", "90%"}
    (pair,) = facts["overlap"]
    whole = pair["rows"][-1]
    assert whole["level"] == "all"
    assert whole["cosine"]["value"] == pytest.approx(adapter.cosine(Adapter(models / "sft")), abs=1e-9)
    assert {claim["verdict"] for claim in facts["claims"]} == {"not decided at this size"}
    again = analysed(capsys, models / "base", models / "pt", f"other={models / 'sft'}", *cache)
    assert again["subspaces"]["cached"] == again["subspaces"]["matrices"] == 14
    facts["subspaces"]["cached"] = 14
    assert {**again, "seconds": 0} == {**facts, "seconds": 0}


def test_a_checkpoint_gives_what_its_adapter_gives(
    models: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = analysed(capsys, models / "base", models / "pt", tuned, "--cache", tmp_path, "--sign-conflict")
    low, full = (module_rows(facts["size"][name]) for name in ("pt", "tuned"))
    assert set(low) < set(full)
    for name, row in low.items():
        assert full[name]["frobenius"] == pytest.approx(row["frobenius"], rel=1e-4)
        assert full[name]["effective_rank"] == pytest.approx(row["effective_rank"], rel=1e-3)
    one, other = (
        [row for row in facts["alignment"][name] if row["level"] == "module" and row["k_label"] == "90%"]
        for name in ("pt", "tuned")
    )
    for x, y in zip(one, [row for row in other if row["name"] in low], strict=True):
        assert x["write_new"]["value"] == pytest.approx(y["write_new"]["value"], abs=1e-4)
        assert x["diagonal"]["value"] == pytest.approx(y["diagonal"]["value"], abs=1e-4)
    assert set(full) - set(low) == {"model.norm.weight", "model.embed_tokens.weight"}
    assert full["model.norm.weight"]["method"] == "vector"
    assert full["model.norm.weight"]["frobenius"] == pytest.approx(0.5 * 8)
    assert full["model.embed_tokens.weight"]["share"] == pytest.approx(0.1, rel=1e-4)
    whole = facts["overlap"][0]["rows"][-1]
    assert whole["cosine"]["value"] == pytest.approx(1.0, abs=1e-4)
    assert whole["sign_conflict"]["value"] < 0.01
    assert whole["columns"]["overlap"]["value"] == pytest.approx(1.0, abs=0.01)
    assert any("5 tensors are equal to the base's" in item["why"] for item in facts["left_out"])
    x, y = (facts["readings"][name][-1] for name in ("pt", "tuned"))
    for name in ("intruders", "amplified", "spread", "turned", "coordination"):
        assert x[name]["value"] == pytest.approx(y[name]["value"], abs=0.02)
    assert any(item["measure"] == "alignment and overlap" and item["vector"] == "tuned" for item in facts["left_out"])
    assert any("outside the layers" in item["why"] for item in facts["left_out"])


def test_the_terminal_says_the_claims_first_in_eighty_columns(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["analyse", str(models / "base"), str(models / "pt"), str(models / "sft"), "--cache", str(tmp_path)]
    assert run(command) == 0
    first = capsys.readouterr().out.splitlines()
    assert len(first) <= 15
    assert max(map(len, first)) <= 80
    assert "pt and sft" in first[0]
    assert run([*command, "--detail"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pt: MLP modules write new directions, more than attention: NOT DECIDED AT")
    assert max(map(len, lines)) <= 80
    assert "pt and sft: cosine; overlap, times that of random spaces" in lines


def test_without_alignment_the_weights_of_the_base_are_not_read(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the base was read")

    base = copy(models / "base", tmp_path / "base")
    monkeypatch.setattr(Checkpoint, "raw", refuse)
    facts = analysed(capsys, base, models / "pt", models / "sft", "--no-alignment")
    assert facts["base"]["digest"] is None
    assert facts["subspaces"] is None
    assert facts["alignment"] == {}
    assert facts["size"]["pt"][0]["share"] is None
    assert facts["left_out"][-1]["why"].startswith("not asked for")


def test_a_cache_that_was_damaged_is_made_anew(models: Path, tmp_path: Path) -> None:
    opened = open_vectors(models / "base", {"pt": models / "pt"})
    wanted = Wanted(ks=("8",), cache=tmp_path)
    first = assemble(opened, wanted)
    files = sorted((tmp_path / "subspaces").iterdir())
    assert len(files) == 14
    good = files[0].read_bytes()
    files[0].write_bytes(good[:-40] + bytes(20) + good[-20:])
    files[1].write_bytes(b"")
    files[2].unlink()
    again = assemble(opened, wanted)
    assert again["subspaces"]["cached"] == 11
    assert again["alignment"] == first["alignment"]
    assert files[0].read_bytes() == good
    assert sorted((tmp_path / "subspaces").iterdir()) == files


def test_the_cache_lies_where_it_is_told(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROSSMATCH_CACHE", str(tmp_path / "named"))
    analysed(capsys, models / "base", models / "pt", "--k", "4")
    assert (tmp_path / "named/subspaces").is_dir()
    (tmp_path / "file").write_text("")
    assert run(["analyse", str(models / "base"), str(models / "pt"), "--cache", str(tmp_path / "file")]) == 2
    assert "--cache" in capsys.readouterr().err


def test_transposed_weights_are_turned_before_they_are_analysed(tmp_path: Path) -> None:
    base = make_gpt2(tmp_path / "gpt2")
    make_adapter(base, tmp_path / "lora", seed=1, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    facts = assemble(open_vectors(base, {"x": tmp_path / "lora"}), Wanted(ks=("16",), cache=tmp_path))
    weight = Checkpoint(base)["h.0.mlp.c_fc.weight" if "h.0.mlp.c_fc.weight" in Checkpoint(base) else
                              "transformer.h.0.mlp.c_fc.weight"].double().T  # fmt: skip
    (row,) = (r for r in facts["alignment"]["x"] if r["level"] == "module" and "h.0.mlp" in r["name"])
    adapter = Adapter(tmp_path / "lora")
    (name,) = (n for n in adapter if "h.0.mlp.c_fc" in n)
    delta = dense(adapter[name])
    delta = delta if delta.shape == weight.shape else delta.T
    u = torch.linalg.svd(weight).U[:, :16]
    expected = float((u.T @ delta).square().sum() / delta.square().sum())
    assert row["write_existing"]["value"] == pytest.approx(expected, abs=1e-4)
    assert any("several kinds of heads" in item["why"] for item in facts["left_out"])


def test_dora_and_saved_modules_are_formed_with_their_base(models: Path, tmp_path: Path) -> None:
    make_adapter(
        models / "base", tmp_path / "dora", seed=4, use_dora=True, target_modules=["q_proj", "up_proj"],
        modules_to_save=["lm_head"],
    )  # fmt: skip
    facts = assemble(open_vectors(models / "base", {"x": tmp_path / "dora"}), Wanted(ks=("16",), cache=tmp_path))
    rows = module_rows(facts["size"]["x"])
    assert {row["method"] for row in rows.values()} == {"exact"}
    name = "model.layers.0.self_attn.q_proj.weight"
    delta, base = Adapter(tmp_path / "dora")[name], Checkpoint(models / "base")
    whole = delta.rows(0, delta.height, torch.float64, base[name].double())
    assert rows[name]["frobenius"] == pytest.approx(float(whole.norm()), rel=1e-5)
    assert len(facts["readings"]["x"]) > 0


def test_a_checkpoint_that_is_its_base_is_said_to_be(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(models / "base", tmp_path / "same")
    assert run(["analyse", str(models / "base"), str(tmp_path / "same"), "--cache", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "is the base itself" in captured.err
    assert not captured.out


def test_what_cannot_be_compared_is_refused_in_one_line(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = models / "base"
    make_llama(tmp_path / "wide", hidden_size=96)
    make_llama(tmp_path / "words", vocab_size=300)
    make_llama(tmp_path / "deep", num_hidden_layers=3)
    nan = copy(models / "pt", tmp_path / "nan")
    tensors = load_file(nan / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = math.nan
    save_file(tensors, nan / "adapter_model.safetensors")
    broken = copy(base, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = math.nan
    save_file(tensors, broken / "model.safetensors")
    quantised = copy(base, tmp_path / "quantised")
    config = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    cases = [
        ([base, tmp_path / "wide"], "different architectures"),
        ([base, tmp_path / "deep"], "different architectures"),
        ([base, tmp_path / "words"], "two vocabularies"),
        ([base, nan], "NaN"),
        ([base, broken], "NaN"),
        ([quantised, models / "pt"], "quantised"),
        ([base, quantised], "quantised"),
        ([base, models / "pt", "--k", "0"], "--k 0"),
        ([base, models / "pt", models / "pt"], "two vectors are called pt"),
        ([base, tmp_path / "none"], "does not exist"),
        ([base, f"-x={models / 'pt'}"], "-x"),
    ]
    for arguments, expected in cases:
        assert run(["analyse", *map(str, arguments), "--cache", str(tmp_path / "cache")]) == 2, arguments
        captured = capsys.readouterr()
        assert expected in captured.err, captured.err
        assert "Traceback" not in captured.err
        assert not captured.out


def test_an_embedding_that_only_one_side_stores_is_left_out_by_name(models: Path, tmp_path: Path) -> None:
    make_llama(tmp_path / "tied", tied=True)
    tied = Checkpoint(tmp_path / "tied")
    vector = Difference(tied, Checkpoint(models / "base"))
    assert list(vector.left_out) == ["lm_head.weight"]
    assert "lm_head.weight" not in vector
    with pytest.raises(KeyError):
        vector["lm_head.weight"]
    assert vector["model.norm.weight"].shape == (64,)


def test_python_api(models: Path, tmp_path: Path) -> None:
    base, pt = Checkpoint(models / "base"), Adapter(models / "pt")
    facts = analyse(base, {"pt": pt, "half": 0.5 * pt}, Wanted(aligned=False))
    whole = facts["overlap"][0]["rows"][-1]
    assert whole["cosine"]["value"] == pytest.approx(1.0)
    assert whole["energy_ratio"] == pytest.approx(4.0)
    assert whole["interference"]["value"] == pytest.approx(2 * 0.5 / 1.25)
    with pytest.raises(InputError, match="changes a tensor"):
        analyse(base, {"pt": 0.0 * pt})
    with pytest.raises(InputError, match="--k 4097"):
        Wanted(ks=("4097",))
    assert Subspaces(base, tmp_path).directory.is_dir()


def test_a_stored_vector_is_analysed_like_what_it_was_made_of(models: Path, tuned: Path, tmp_path: Path) -> None:
    base = str(models / "base")
    assert run(["--quiet", "vectors", "extract", base, str(tuned), "-o", str(tmp_path / "stored")]) == 0
    assert (
        run(["--quiet", "vectors", "add", "-a", f"pt={models / 'pt'}", "-w", "pt=2", "-o", str(tmp_path / "sum")]) == 0
    )
    sources = {"stored": tmp_path / "stored", "tuned": tuned, "sum": tmp_path / "sum", "pt": models / "pt"}
    facts = assemble(open_vectors(base, sources), Wanted(aligned=False))
    assert [facts["vectors"][name]["kind"] for name in sources] == ["vector", "checkpoint", "vector", "adapter"]
    whole = {(p["first"], p["second"]): p["rows"][-1]["cosine"]["value"] for p in facts["overlap"]}
    assert whole["stored", "tuned"] == pytest.approx(1.0, abs=1e-6)
    assert whole["sum", "pt"] == pytest.approx(1.0, abs=1e-6)
    rows = {name: module_rows(facts["size"][name]) for name in sources}
    for name, row in rows["pt"].items():
        assert rows["sum"][name]["frobenius"] == pytest.approx(2 * row["frobenius"], rel=1e-6)
        assert rows["stored"][name]["frobenius"] == pytest.approx(rows["tuned"][name]["frobenius"], rel=1e-6)


def test_large_dense_changes_are_sketched(
    models: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = assemble(open_vectors(models / "base", {"x": tuned}), Wanted(ks=("12",), cache=tmp_path / "a"))
    for module in ("delta_matrix", "base_directions", "spectral_shifts"):
        monkeypatch.setattr(f"crossmatch.analysis.weights.{module}.EXACT", 16)
    monkeypatch.setattr("crossmatch.analysis.weights.delta_matrix.DENSE_TRIPLES", 10)
    monkeypatch.setattr("crossmatch.analysis.weights.base_directions.STEP", 4)
    sources = {"x": tuned, "y": tuned}
    found = assemble(open_vectors(models / "base", sources), Wanted(ks=("12", "90%"), cache=tmp_path / "b"))
    assert any("90% of the energy lies beyond" in item["why"] for item in found["left_out"])
    rows, known = module_rows(found["size"]["x"]), module_rows(exact["size"]["x"])
    for name, row in known.items():
        if row["method"] == "vector":
            continue
        assert rows[name]["method"] == "sketch"
        assert rows[name]["frobenius"] == pytest.approx(row["frobenius"], rel=1e-6)
        assert rows[name]["spectral"] == pytest.approx(row["spectral"], rel=1e-3)
        low, high = rows[name]["effective_rank_bounds"]
        assert low * 0.99 <= row["effective_rank"] <= high * 1.01
    for one, other in zip(exact["alignment"]["x"], found["alignment"]["x"], strict=False):
        assert one["write_new"]["value"] == pytest.approx(other["write_new"]["value"], abs=0.02)
    whole = found["overlap"][0]["rows"][-1]
    assert whole["cosine"]["value"] == pytest.approx(1.0, abs=1e-6)
    assert whole["second_in_columns"]["value"] > 0.95
    assert whole["columns"]["overlap"]["value"] == pytest.approx(1.0, abs=1e-3)
