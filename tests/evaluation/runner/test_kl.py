"""How far next tokens are from those of another variant: exact, in one direction, resumable, and of written
checkpoints too."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from crossmatch import Adapter, Checkpoint, merge
from crossmatch.cli import run
from crossmatch.errors import InputError, RuleError
from crossmatch.evaluation import Variant, load_suite, standard_variants
from crossmatch.evaluation.comparison.summary import summarise
from crossmatch.evaluation.conditions import Condition, Plan, conditions_of
from crossmatch.evaluation.inference.batch_memory import Memory
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.runner.answer_log import Sheet
from crossmatch.evaluation.runner.kl import Answered, Divergences, kl_divergence
from crossmatch.evaluation.runner.model_slot import Held
from crossmatch.evaluation.runner.runner import evaluate
from crossmatch.evaluation.variants.checkpoints import checkpoint_variants
from crossmatch.merging import Storage
from helpers import LINEAR, make_adapter, make_chat_model, make_tokenizer

HALF = {"pt": 0.5, "sft": 0.5}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pt changes the output embedding too."""
    root = tmp_path_factory.mktemp("kl")
    make_chat_model(root / "base")
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        make_adapter(root / "base", root / "pt", seed=1, size=0.5, target_modules=[*LINEAR, "lm_head"])
    make_adapter(root / "base", root / "sft", seed=2, size=0.5)
    rows = [
        {"id": str(i), "question": f"what is {'very ' * i}old blood", "reference": f"a disease of {'the ' * i}heart"}
        for i in range(6)
    ]
    (root / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "ask.yaml").write_text("name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 2\n")
    return root


def subject(room: Path) -> tuple[Checkpoint, dict[str, Adapter], list[Variant]]:
    adapters = {"pt": Adapter(room / "pt"), "sft": Adapter(room / "sft")}
    return Checkpoint(room / "base"), adapters, standard_variants(adapters, [HALF], "sft")


def asked(room: Path, out: Path, **options: Any) -> Any:
    base, adapters, variants = subject(room)
    variants = variants[:4]
    plan = Plan(**{"kl": 4, "kl_to": "sft", **options})
    return evaluate(base, adapters, variants, [load_suite(room / "ask.yaml")], out, plan=plan)


def figures(room: Path, records: Any, *decodings: str) -> Any:
    conditions = conditions_of((), decodings)
    suites = [load_suite(room / "ask.yaml")]
    variants = [v for v in subject(room)[2] if v.name in ("base", "pt", "sft")]
    summary = summarise(records, variants, suites, "sft", conditions=conditions)
    json.dumps(summary, allow_nan=False)
    return [summary["conditions"][c.name]["suites"]["ask"]["metrics"] for c in conditions]


def distributions(room: Path, variant: Variant) -> list[torch.Tensor]:
    """ln p of a variant at every token of the reference answers, by a model of its own and one prompt at a time."""
    base, adapters, _ = subject(room)
    engine = Engine(base)
    engine.become(variant.parts(adapters))
    suite, found = load_suite(room / "ask.yaml"), []
    for item in suite.items:
        prompt = Condition().template.prompt(engine.tokenizer, suite.messages(item))
        before, after = engine.token_ids(prompt, item.reference)
        with torch.inference_mode():
            logits = engine.model(torch.tensor([before + after])).logits[0].double()
        found.append(torch.log_softmax(logits, -1)[len(before) - 1 : -1])
    return found


def test_divergence_is_that_of_the_variant_from_the_other() -> None:
    torch.manual_seed(0)
    mine, other = 4 * torch.randn(7, 1000), 4 * torch.randn(7, 1000)
    p, q = (torch.log_softmax(x.double(), -1) for x in (mine, other))
    torch.testing.assert_close(kl_divergence(mine, other), (p.exp() * (p - q)).sum(-1), rtol=1e-6, atol=0.0)
    assert not torch.allclose(kl_divergence(mine, other), kl_divergence(other, mine))
    # A constant changes no distribution; what is nearly alike is nearly zero.
    assert float(kl_divergence(mine, mine + 7).max()) < 1e-6
    near = mine + 1e-3 * torch.randn(7, 1000)
    q = torch.log_softmax(near.double(), -1)
    torch.testing.assert_close(kl_divergence(mine, near), (p.exp() * (p - q)).sum(-1), rtol=0.0, atol=1e-7)
    far = torch.tensor([[0.0, -1e4]]), torch.tensor([[-1e4, 0.0]])
    assert float(kl_divergence(*far)[0]) == pytest.approx(1e4)


@pytest.mark.parametrize("nbytes", [1, 1 << 26])
def test_figures_are_those_of_whole_models(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nbytes: int
) -> None:
    monkeypatch.setattr(Memory, "of", classmethod(lambda cls, *_: cls(nbytes)))
    records, variants = asked(room, tmp_path), subject(room)[2][:4]
    expected = {variant.name: distributions(room, variant) for variant in variants}
    for variant in variants:
        rows = records[variant.name, "ask", "own.greedy"]
        assert ["kl" in row for row in rows] == [True] * 4 + [False] * 2
        for role, other in (("reference", "sft"), ("base", "base")):
            if other == variant.name:
                assert role not in rows[0]["kl"]
                continue
            for place, row in enumerate(rows[:4]):
                p, q = expected[variant.name][place], expected[other][place]
                values = (p.exp() * (p - q)).sum(-1)
                found = row["kl"][role]
                assert found["first"] == pytest.approx(float(values[0]), rel=1e-4, abs=1e-6)
                assert found["nats"] == pytest.approx(float(values.sum()), rel=1e-4, abs=1e-6)
                assert found["tokens"] == len(values)
    if nbytes == 1:
        return
    (metrics,) = figures(room, records)
    rows = records["pt", "ask", "own.greedy"][:4]
    entry = metrics["kl_answer"]["pt"]
    assert entry["n"] == 4
    sums = [sum(row["kl"]["reference"][key] for row in rows) for key in ("nats", "tokens")]
    assert entry["value"] == pytest.approx(sums[0] / sums[1])
    assert entry["low"] <= entry["value"] <= entry["high"]
    # None is compared with what it is measured from: there a difference says nothing.
    assert metrics["kl_first"]["sft"]["value"] is None
    assert metrics["kl_first"]["pt"]["difference"] is None
    assert metrics["kl_first"]["pt"]["difference_base"]["test"] == "randomisation"
    assert metrics["kl_first_base"]["pt"]["difference"]["n"] == 4
    assert metrics["kl_first_base"]["base"]["value"] is None


def test_without_being_asked_nothing_is_compared(room: Path, tmp_path: Path) -> None:
    records = asked(room, tmp_path, kl=0)
    assert not any("kl" in row for rows in records.values() for row in rows)
    assert not any(metric.startswith("kl") for metric in figures(room, records)[0])


def test_sampled_answers_share_one_comparison(room: Path, tmp_path: Path) -> None:
    records = asked(room, tmp_path, conditions=conditions_of((), ["T1x2", "greedy"]))
    sampled, greedy = figures(room, records, "T1x2", "greedy")
    first = records["pt", "ask", "own.T1"]
    assert first[0]["kl"] == first[1]["kl"]
    assert sampled["kl_first"]["pt"]["n"] == 4
    assert "kl_first" not in greedy


def test_a_killed_comparison_goes_on(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = asked(room, tmp_path / "whole")
    add, count = Sheet.add, 0

    def killed(self: Sheet, part: str, *given: Any) -> None:
        nonlocal count
        count += part == "kl"
        if count == 14:
            raise KeyboardInterrupt
        add(self, part, *given)

    monkeypatch.setattr(Sheet, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        asked(room, tmp_path / "cut")
    again: list[str] = []
    monkeypatch.setattr(Sheet, "add", lambda self, part, *given: (again.append(part), add(self, part, *given))[1])
    resumed = asked(room, tmp_path / "cut")
    assert again.count("kl") == len(whole) * 4 - 13
    for key, rows in whole.items():
        for one, other in zip(rows, resumed[key], strict=True):
            for role, found in one.get("kl", {}).items():
                assert other["kl"][role] == pytest.approx(found, rel=1e-4, abs=1e-6)
    # Another reference, other figures: nothing of the old ones is taken.
    assert (
        asked(room, tmp_path / "cut", kl_to="pt")["base", "ask", "own.greedy"][0]["kl"]
        != (whole["base", "ask", "own.greedy"][0]["kl"])
    )


def test_states_are_made_once(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapters, variants = subject(room)
    held = Held(base, adapters, Plan())
    became: list[str] = []
    become = Engine.become
    monkeypatch.setattr(
        Engine, "become", lambda self, parts, *rule: (became.append("+".join(parts)), become(self, parts, *rule))[1]
    )
    divergences = Divergences(held, {"reference": variants[2], "base": variants[0]})
    items = [Answered("1", "what is blood", " a disease"), Answered("2", "what is the heart", " the old cell of blood")]
    found: dict[str, Any] = {}
    for variant in variants:
        divergences.ask(variant, "g", items, lambda i, value, name=variant.name: found.update({(name, i): value}))
    # sft is asked when base needs it; after that each variant once.
    assert became == ["sft", "", "pt", "sft", "pt+sft", "sft"]
    assert set(found["base", 0]) == {"reference"}
    assert set(found["pt", 1]) == {"reference", "base"}


def written(room: Path, out: Path) -> Path:
    """The merge as a checkpoint in bfloat16, with tokenizer."""
    base, adapters, _ = subject(room)
    merge(base, {n: (a, HALF[n]) for n, a in adapters.items()}, out, storage=Storage(torch.bfloat16))
    return out


def test_a_written_merge_answers_as_the_merge_in_place(room: Path, tmp_path: Path) -> None:
    base, adapters, variants = subject(room)
    variants += checkpoint_variants(base, {"file": str(written(room, tmp_path / "merged"))}, variants)
    assert (variants[-1].kind, variants[-1].note) == ("checkpoint", "")
    suites, plan = [load_suite(room / "ask.yaml")], Plan(dtype="bfloat16", kl=6, kl_to="sft")
    records = evaluate(base, adapters, variants, suites, tmp_path / "out", plan=plan)
    own = {"variant", "model_digest"}
    pairs = zip(records["pt0.5+sft0.5", "ask", "own.greedy"], records["file", "ask", "own.greedy"], strict=True)
    for one, other in pairs:
        assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in other.items() if k not in own}
        assert other["model_digest"] == variants[-1].digest(base, adapters)
    summary = summarise(records, [variants[2], variants[-1]], suites, "sft")
    assert summary["variants"]["file"]["kind"] == "checkpoint"
    entries = summary["conditions"]["own.greedy"]["suites"]["ask"]["metrics"]["kl_answer"]
    assert (entries["file"]["n"], entries["sft"]["value"]) == (6, None)
    # Only the checkpoint is left to be asked: the base comes and goes for what it is compared with.
    (tmp_path / "out/file/ask.own.greedy.jsonl").unlink()
    assert evaluate(base, adapters, variants, suites, tmp_path / "out", plan=plan) == records


def test_other_weights_in_the_same_directory_are_noticed(room: Path, tmp_path: Path) -> None:
    base, adapters, _ = subject(room)
    path = written(room, tmp_path / "merged")
    (first,) = checkpoint_variants(base, {"file": str(path)})
    digest = first.digest(base, adapters)
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.add_(1.0)
    model.save_pretrained(path)
    (second,) = checkpoint_variants(base, {"file": str(path)})
    assert second.digest(base, adapters) != digest


def test_another_vocabulary_is_refused_and_another_template_noted(room: Path, tmp_path: Path) -> None:
    base = Checkpoint(room / "base")
    for name in ("template", "words", "few", "rules"):
        shutil.copytree(room / "base", tmp_path / name)
    (tmp_path / "template/chat_template.jinja").write_text("{{ messages[0].content }}")
    (variant,) = checkpoint_variants(base, {"other": str(tmp_path / "template")})
    assert variant.note == "its chat template is another: the base's was used"
    file = tmp_path / "rules/tokenizer.json"
    raw = json.loads(file.read_text())
    file.write_text(json.dumps({**raw, "pre_tokenizer": {"type": "Whitespace"}}))
    (variant,) = checkpoint_variants(base, {"other": str(tmp_path / "rules")})
    assert "splits text by other rules" in variant.note
    raw["model"]["vocab"]["blood"], raw["model"]["vocab"]["heart"] = 17, 16
    raw["model"]["vocab"] = dict(sorted(raw["model"]["vocab"].items(), key=lambda pair: pair[1]))
    (tmp_path / "words/tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="checkpoint other: its vocabulary is not the base's"):
        checkpoint_variants(base, {"other": str(tmp_path / "words")})
    config = tmp_path / "few/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": 20}))
    with pytest.raises(InputError, match="it has 20 embeddings, fewer than"):
        checkpoint_variants(base, {"other": str(tmp_path / "few")})
    with pytest.raises(RuleError, match="two variants would both be called 'base'"):
        checkpoint_variants(base, {"base": str(room / "base")}, subject(room)[2])


def test_another_architecture_answers_and_has_no_divergence(room: Path, tmp_path: Path) -> None:
    config = MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path / "other")
    make_tokenizer(tmp_path / "other")
    base, adapters, variants = subject(room)
    variants = [variants[0], variants[2], *checkpoint_variants(base, {"other": str(tmp_path / "other")})]
    suites, plan = [load_suite(room / "ask.yaml")], Plan(kl=2, kl_to="sft")
    records = evaluate(base, adapters, variants, suites, tmp_path / "out", plan=plan)
    assert records["other", "ask", "own.greedy"][0]["kl"] == {"reference": None, "base": None}
    found = summarise(records, variants[1:], suites, "sft")["conditions"]["own.greedy"]["suites"]["ask"]["metrics"]
    assert "kl_first" not in found
    assert found["kl_first_base"]["sft"]["value"] is not None
    assert found["kl_first_base"]["other"]["value"] is None
    assert found["bleu"]["other"]["value"] is not None


def test_the_command_takes_checkpoints(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(room, tmp_path / "merged")
    (path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    command = ["evaluate", str(room / "base"), "--suite", str(room / "ask.yaml"), "--checkpoint", f"file={path}"]
    assert run([*command, "-o", str(tmp_path / "a"), "--kl", "3"]) == 0
    said = capsys.readouterr()
    assert "less base " in said.out
    assert "kl_answer (n = 3)" in said.out
    assert "note: checkpoint file: its chat template is another" in said.err
    facts = json.loads((tmp_path / "a/summary.json").read_text())
    assert set(facts["variants"]) == {"base", "file"}
    assert "chat template is another" in facts["variants"]["file"]["note"]
    assert run([*command, "-o", str(tmp_path / "b"), "--reference", "nobody"]) == 2
    assert "--reference nobody: give one of base, file" in capsys.readouterr().err
    assert run([*command, "-o", str(tmp_path / "b"), "--server", "http://127.0.0.1:9", "--model", "m"]) == 2
    assert run(["evaluate", str(room / "base"), "--suite", str(room / "ask.yaml"), "-o", str(tmp_path / "c")]) == 2


def test_held_variants_are_one_at_a_time(room: Path, tmp_path: Path) -> None:
    base, adapters, variants = subject(room)
    (other,) = checkpoint_variants(base, {"file": str(written(room, tmp_path / "merged"))})
    held = Held(base, adapters, Plan())
    first = held.become(variants[1])
    assert held.become(variants[1]) is first
    assert held.become(other) is not first
    assert held.become(replace(other)) is not first
    back = held.become(variants[1])
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor)
    assert math.isfinite(float(back.model.state_dict()["lm_head.weight"].sum()))
