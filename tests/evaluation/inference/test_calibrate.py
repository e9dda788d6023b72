"""Recording of inputs and gradients: against plain autograd, by position, through the command."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossmatch import cli
from crossmatch.adapter import Adapter
from crossmatch.cli.calibrate import calibrate_command
from crossmatch.data.passages import Passage, read_dialogue, read_text
from crossmatch.errors import DataError, InputError
from crossmatch.evaluation.inference.module_inputs import Calibration, linear_modules, record, sample
from crossmatch.vectors import add
from helpers import make_adapter, make_chat_model, make_gpt2

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
DIALOGUE = [{"role": "user", "content": "what is anaemia ?"}, {"role": "assistant", "content": "low blood cell level"}]
ROWS = [
    {"prompt": "what is bone ?", "completion": "old bone"},
    {"messages": DIALOGUE},
    {"instruction": "define", "input": "heart", "output": "the high pressure ."},
]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model, adapters `pt` and `sft`, a file of dialogues and one of texts."""
    root = tmp_path_factory.mktemp("chat")
    make_chat_model(root / "base")
    make_adapter(root / "base", root / "pt", seed=1, target_modules=["q_proj", "down_proj"])
    make_adapter(root / "base", root / "sft", seed=2, size=0.5)
    (root / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (root / "pt.jsonl").write_text("".join(json.dumps({"text": f"the {w} is {w} ."}) + "\n" for w in ("lung", "blood")))
    return root


@pytest.fixture(scope="module")
def model(chat: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(chat / "base", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(chat: Path) -> Any:
    return AutoTokenizer.from_pretrained(chat / "base")


PASSAGES = [Passage((5, 9, 21, 13, 40)), Passage(tuple(range(8, 20)), prompt=7), Passage((11, 12, 30))]
EVERY = [list(range(len(p.ids))) for p in PASSAGES]


def plain_inputs(model: Any, ids: tuple[int, ...], name: str) -> torch.Tensor:
    """Inputs of a module, by a hook of its own, on the whole sequence."""
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0][0].detach()))
    model(torch.tensor([ids]))
    handle.remove()
    return seen[0]


def plain_loss(model: Any, passage: Passage) -> torch.Tensor:
    """The negative log-likelihood of what is learnt, token by token."""
    log_p = model(torch.tensor([passage.ids])).logits[0].log_softmax(-1)
    return -torch.stack([log_p[t - 1, passage.ids[t]] for t in range(passage.prompt or 1, len(passage.ids))]).sum()


@pytest.mark.parametrize("gradients", [False, True])
def test_inputs_are_those_of_a_plain_forward(model: Any, gradients: bool) -> None:
    positions = [[0, 3], [], [1]]
    found = record(model, PASSAGES, [Q, DOWN, "lm_head"], positions=positions, gradients=gradients)
    for name in (Q, DOWN, "lm_head"):
        expected = torch.cat(
            [plain_inputs(model, p.ids, name)[rows] for p, rows in zip(PASSAGES, positions, strict=True)]
        )
        torch.testing.assert_close(found[f"{name}.inputs"], expected, rtol=1e-5, atol=1e-6)
        assert found[f"{name}.inputs"].shape == (3, model.get_submodule(name).in_features)
    assert len(found) == (6 if gradients else 3)


def test_gradients_are_those_of_autograd(model: Any) -> None:
    found = record(model, PASSAGES, [Q], positions=EVERY, gradients=True)[f"{Q}.gradients"]
    expected = []
    for passage in PASSAGES:
        outputs: list[torch.Tensor] = []
        handle = model.get_submodule(Q).register_forward_hook(lambda _, args, out, to=outputs: to.append(out))
        loss = plain_loss(model, passage)
        handle.remove()
        expected.append(torch.autograd.grad(loss, outputs)[0][0])
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-6)


def test_rows_add_up_to_the_gradients_of_the_weights(model: Any) -> None:
    modules = linear_modules(model)
    found = record(model, PASSAGES, modules, positions=EVERY, gradients=True)
    torch.stack([plain_loss(model, passage) for passage in PASSAGES]).sum().backward()
    for name in modules:
        product = found[f"{name}.gradients"].T @ found[f"{name}.inputs"]
        weight = model.get_submodule(name).weight
        torch.testing.assert_close(product, weight.grad, rtol=1e-4, atol=1e-5)
    model.zero_grad()


def test_recording_leaves_the_model_as_it_was(model: Any) -> None:
    before = [p.requires_grad for p in model.parameters()]
    record(model, PASSAGES, [Q], positions=EVERY, gradients=True)
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_row_does_not_depend_on_its_company(model: Any) -> None:
    together = record(model, PASSAGES, [Q, DOWN], positions=EVERY, gradients=True)
    alone = [
        record(model, [p], [Q, DOWN], positions=[rows], gradients=True) for p, rows in zip(PASSAGES, EVERY, strict=True)
    ]
    for key, rows in together.items():
        assert torch.equal(rows, torch.cat([one[key] for one in alone]))


def test_sample() -> None:
    everything = [(n, row) for n, rows in enumerate(EVERY) for row in rows]
    drawn = sample(PASSAGES, "all", 6, seed=0)
    assert drawn == sample(PASSAGES, "all", 6, seed=0) != sample(PASSAGES, "all", 6, seed=1)
    flat = [(n, row) for n, rows in enumerate(drawn) for row in rows]
    assert len(set(flat)) == 6
    assert flat == sorted(flat)
    assert set(flat) <= set(everything)
    assert sample(PASSAGES, "all", 1000, seed=3) == EVERY
    # Every position is as likely as any other.
    counts = dict.fromkeys(everything, 0)
    for seed in range(400):
        for n, rows in enumerate(sample(PASSAGES, "all", 5, seed)):
            for row in rows:
                counts[n, row] += 1
    assert 60 < min(counts.values()) <= max(counts.values()) < 145  # mean 100, deviation 8.7
    with pytest.raises(DataError, match="holds no position"):
        sample([Passage((1, 2), prompt=2)], "response", 5, 0)


def test_positions_of_a_dialogue(tokenizer: Any) -> None:
    passage = read_dialogue(tokenizer, DIALOGUE, None, 64)
    words = tokenizer.convert_ids_to_tokens(list(passage.ids))
    assert words[: passage.prompt] == ["<|user|>", "what", "is", "anaemia", "?", "<|end|>", "<|assistant|>"]
    assert words[passage.positions("prompt-end")[0]] == "<|assistant|>"
    assert [words[i] for i in passage.positions("response")] == ["low", "blood", "cell", "level", "<|end|>"]
    assert len(passage.positions("prompt-end")) == 1
    assert passage.positions("all") == range(12)
    with pytest.raises(DataError, match="12 tokens with the template, more than 11"):
        read_dialogue(tokenizer, DIALOGUE, None, 11)
    # This template opens and closes a trace only in the generation prompt: what training sees is read, without it.
    silent = read_dialogue(tokenizer, DIALOGUE, False, 64)
    assert (silent.ids, silent.prompt) == (passage.ids, passage.prompt)
    # What training puts after a response that ends without it.
    assert read_dialogue(tokenizer, DIALOGUE, None, 64, (7, 9)).ids == (*passage.ids, 7, 9)
    assert read_dialogue(tokenizer, DIALOGUE, None, 64, passage.ids[-1:]) == passage


def test_prompt_and_response_that_would_grow_together_stay_apart() -> None:
    class Greedy:
        """A tokenizer that takes `ab` for one token wherever it can."""

        chat_template, bos_token_id = "as below", None

        def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
            return "".join(m["content"] for m in messages)

        def __call__(self, text: str | list[str], **_: Any) -> dict[str, Any]:
            if isinstance(text, list):
                return {"input_ids": [self(one)["input_ids"] for one in text]}
            return {"input_ids": [ord(c) for c in text.replace("ab", "X")]}

    turns = [{"role": "user", "content": "ca"}, {"role": "assistant", "content": "bd"}]
    assert read_dialogue(Greedy(), turns, None, 64) == Passage(tuple(map(ord, "cabd")), 2)


def test_a_text_is_read_with_its_end_and_in_blocks(tokenizer: Any) -> None:
    blocks = read_text(tokenizer, "the heart is old", 3)
    assert [tokenizer.convert_ids_to_tokens(list(b.ids)) for b in blocks] == [
        ["the", "heart", "is"],
        ["old", "<|end|>"],
    ]
    with pytest.raises(DataError, match="need dialogues"):
        blocks[0].positions("prompt-end")
    with pytest.raises(InputError, match="give one of all"):
        Calibration("everywhere")


def test_a_module_that_misses_tokens_is_refused(tmp_path: Path) -> None:
    gpt2: Any = AutoModelForCausalLM.from_pretrained(make_gpt2(tmp_path / "gpt2")).eval()
    block = gpt2.transformer.h[0].mlp
    assert "transformer.h.0.mlp.c_fc" in linear_modules(gpt2)
    fine = record(gpt2, PASSAGES, ["transformer.h.0.mlp.c_fc"], positions=EVERY, gradients=True)
    assert {k.rsplit(".", 1)[1]: v.shape[1] for k, v in fine.items()} == {"inputs": 64, "gradients": 256}
    block.extra = nn.Linear(64, 64)
    for calls in ([slice(2)], [slice(None)] * 2, []):  # some tokens, all twice, none

        def pass_on(module: Any, args: tuple[torch.Tensor, ...], calls: list[slice] = calls) -> None:
            for part in calls:
                module.extra(args[0][:, part])

        handle = block.register_forward_pre_hook(pass_on)
        with pytest.raises(InputError, match="does not see every token once"):
            record(gpt2, PASSAGES, ["transformer.h.0.mlp.extra"], positions=EVERY)
        handle.remove()
    gpt2.transformer.wpe.weight.data[0] = float("nan")
    with pytest.raises(InputError, match="NaN or infinite"):
        record(gpt2, PASSAGES, ["transformer.h.0.mlp.c_fc"], positions=EVERY)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`crossmatch calibrate ...`, on an application of its own: exit code, stdout, stderr."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("calibrate")(calibrate_command)
    monkeypatch.setattr(cli, "app", app)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run(["calibrate", *map(str, arguments)])
        text, error = capsys.readouterr()
        return code, text, error

    return run


def test_command_with_adapters(chat: Path, tmp_path: Path, call: Any, tokenizer: Any) -> None:
    out = tmp_path / "new" / "x.safetensors"
    both = ["-a", f"pt={chat / 'pt'}", "-a", f"sft={chat / 'sft'}"]
    data = ["--data", f"sft={chat / 'sft.jsonl'}", "--data", f"pt={chat / 'pt.jsonl'}"]
    arguments = [chat / "base", *both, *data, "-o", out, "--max-positions", 9, "--gradients", "--json"]
    code, text, _ = call(*arguments)
    facts = json.loads(text)
    assert code == 0
    assert [(s["adapter"], s["modules"], s["rows"], s["of"]) for s in facts["sets"]] == [
        ("pt", 4, 9, 12),
        ("sft", 14, 9, 32),
    ]
    tensors = load_file(out)
    assert len(tensors) == 2 * (4 + 14)
    assert tensors[f"pt/{DOWN}.inputs"].shape == (9, 176)
    assert tensors[f"sft/{DOWN}.gradients"].shape == (9, 64)
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    with safe_open(out, "pt") as file:
        kept = json.loads(file.metadata()["crossmatch"])
    assert facts == {**kept, "output": str(out)}
    digests = [*kept["adapters"].values(), *(s["data"] for s in kept["sets"]), kept["base"], kept["text"]]
    assert len(set(digests)) == 6
    assert kept["template"] is None
    # The rows are those of base + adapter, as PEFT makes it.
    base: Any = AutoModelForCausalLM.from_pretrained(chat / "base", dtype=torch.float32)
    merged: Any = PeftModel.from_pretrained(base, chat / "pt").merge_and_unload().eval()
    passages = [p for w in ("lung", "blood") for p in read_text(tokenizer, f"the {w} is {w} .", 64)]
    chosen = sample(passages, "all", 9, 0)
    expected = torch.cat([plain_inputs(merged, p.ids, DOWN)[rows] for p, rows in zip(passages, chosen, strict=True)])
    torch.testing.assert_close(tensors[f"pt/{DOWN}.inputs"], expected, rtol=1e-4, atol=1e-5)
    # Again: refused, then the same bytes.
    before = out.read_bytes()
    assert call(*arguments)[0] == 2
    assert call(*arguments, "--overwrite")[0] == 0
    assert out.read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_a_stored_vector_is_recorded_like_its_adapter(chat: Path, tmp_path: Path, call: Any) -> None:
    add({"pt": (Adapter(chat / "pt"), 1.0)}, tmp_path / "vector")
    for name, path in (("adapter", chat / "pt"), ("vector", tmp_path / "vector")):
        arguments = ["-a", f"pt={path}", "--data", chat / "pt.jsonl", "-o", tmp_path / f"{name}.safetensors"]
        code, _, error = call(chat / "base", *arguments, "--max-positions", 5)
        assert code == 0, error
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("adapter", "vector"))
    assert set(one) == set(other)
    for key, rows in one.items():
        torch.testing.assert_close(other[key], rows, rtol=1e-5, atol=1e-6)


def test_command_on_the_base_alone(chat: Path, tmp_path: Path, call: Any, tokenizer: Any, model: Any) -> None:
    out = tmp_path / "x.safetensors"
    code, text, _ = call(chat / "base", "--data", chat / "sft.jsonl", "-o", out, "--positions", "prompt-end")
    assert (code, text) == (0, "base: 14 modules at 3 of 3 positions\n")
    tensors = load_file(out)
    assert len(tensors) == 14
    assert "lm_head.inputs" not in tensors
    passage = read_dialogue(tokenizer, DIALOGUE, None, 64)
    torch.testing.assert_close(tensors[f"{DOWN}.inputs"][1], plain_inputs(model, passage.ids, DOWN)[passage.prompt - 1])


def test_fields_that_are_not_used_are_said(chat: Path, tmp_path: Path, call: Any) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text(json.dumps({"prompt": "what is bone ?", "completion": "old bone", "source": "x"}) + "\n")
    code, _, said = call(chat / "base", "--data", data, "-o", tmp_path / "x.safetensors")
    assert code == 0
    assert "note: fields that are not used: source (1 rows)" in said


def test_bad_input_is_one_line_and_exit_2(chat: Path, models: Path, tmp_path: Path, call: Any) -> None:
    bad, long, other = tmp_path / "bad.jsonl", tmp_path / "long.jsonl", tmp_path / "other.safetensors"
    bad.write_text('{"text": "the heart"}\n{"text": 3}\n')
    long.write_text(json.dumps({"prompt": "what", "completion": "old " * 50}) + "\n")
    save_file({"x": torch.zeros(1)}, other)
    base, out, pt, sft = chat / "base", tmp_path / "out.safetensors", chat / "pt.jsonl", chat / "sft.jsonl"
    before = sorted(p.name for p in tmp_path.iterdir())
    cases: list[tuple[list[object], str]] = [
        ([base, "--data", bad, "-o", out], "bad.jsonl, line 2: field 'text' must be a text"),
        ([base, "--data", tmp_path / "none.jsonl", "-o", out], "does not exist"),
        ([base, "--data", pt, "-o", out, "--positions", "start"], "give one of all, prompt-end, response"),
        ([base, "--data", pt, "-o", out, "--positions", "response"], "pt.jsonl, example 1: a plain text has no prompt"),
        ([base, "--data", long, "-o", out, "--max-length", 20], "long.jsonl, example 1: 55 tokens with the template"),
        ([base, "--data", sft, "-o", out, "--template", tmp_path / "none"], "does not exist; give a Jinja file"),
        ([base, "--data", pt, "--data", sft, "-o", out], "write it as NAME=VALUE"),
        (
            [base, "-a", f"pt={chat / 'pt'}", "--data", f"pt={pt}", "--data", f"sft={sft}", "-o", out],
            "sft has no adapter",
        ),
        (
            [base, "-a", f"pt={chat / 'pt'}", "-a", f"sft={chat / 'sft'}", "--data", f"pt={pt}", "-o", out],
            "adapter sft has no data",
        ),
        ([base, "-a", f"pt={models / 'none'}", "--data", pt, "-o", out], "does not exist"),
        ([base, "--data", pt, "-o", other], "exists; choose another output"),
        ([base, "--data", pt, "-o", other, "--overwrite"], "no earlier recording"),
        ([base, "--data", pt, "-o", tmp_path, "--overwrite"], "exists; choose another output"),
        ([base, "--data", pt, "-o", base / "x.safetensors"], "one lies in the other"),
        ([base, "--data", pt, "-o", long / "x.safetensors"], "cannot be written"),
    ]
    for arguments, message in cases:
        code, text, error = call(*arguments)
        assert (code, text, error.count("\n")) == (2, "", 1), (arguments, error)
        assert message in error, error
    assert call(base, "--data", pt, "-o", out, "--max-positions", 0)[0] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert not (base / "x.safetensors").exists()
