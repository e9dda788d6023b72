"""What is trained of models that are not plain decoders, and in bfloat16 on CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from architectures.zoo import tiny
from crossmatch import Checkpoint
from crossmatch.cli import run
from crossmatch.data.responses import read_as
from crossmatch.data.training_sets import Dialogue, load_examples
from crossmatch.training import read_settings, train_stage
from crossmatch.training.trainer import build_trainer
from helpers import make_chat_model, make_tokenizer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"prompt": "what is blood ?", "completion": "the old heart cell"}] * 6
    file = tmp_path / "sft.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def trained(base: Path, data: Path, out: Path, *settings: str) -> int:
    pairs = [
        text for pair in ("max_steps=2", "max_length=64", "learning_rate=1e-2", *settings) for text in ("--set", pair)
    ]
    return run(["train", str(base), "--stage", "sft", "--data", str(data), "-o", str(out), *pairs])


def adapted(out: Path) -> dict[str, torch.Tensor]:
    """Module -> its B."""
    tensors = load_file(out / "adapter_model.safetensors")
    return {name.split(".lora_B")[0]: tensor for name, tensor in tensors.items() if ".lora_B" in name}


def test_a_bfloat16_base_is_trained_on_cpu(tmp_path: Path, data: Path) -> None:
    """The base is frozen in bfloat16; the adapter learns, in float32."""
    make_chat_model(tmp_path / "base")
    assert trained(tmp_path / "base", data, tmp_path / "out", "dtype=bfloat16") == 0
    found = adapted(tmp_path / "out")
    assert all(tensor.dtype == torch.float32 and tensor.any() for tensor in found.values())


@pytest.mark.parametrize(
    ("kind", "left_out", "note"),
    [
        ("phimoe", "router", "no adapter on router"),
        ("llava", "vision", "no adapter on towers that read no text"),
        ("mamba", "out_proj", "no adapter on dt_proj, out_proj"),
        ("jamba", "dt_proj", "no adapter on dt_proj"),
    ],
)
def test_all_linear_is_what_text_can_train(
    kind: str, left_out: str, note: str, tmp_path: Path, data: Path, capsys: Any
) -> None:
    tiny(kind).build().save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    assert trained(tmp_path / "base", data, tmp_path / "out") == 0
    assert note in capsys.readouterr().err
    found = adapted(tmp_path / "out")
    assert not [name for name in found if left_out in name]
    assert all(tensor.any() for tensor in found.values())


def test_a_module_that_cannot_carry_an_adapter_is_refused(tmp_path: Path, data: Path, capsys: Any) -> None:
    tiny("mamba").build().save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    assert trained(tmp_path / "base", data, tmp_path / "out", "targets=in_proj,out_proj") == 2
    assert "targets: out_proj of a mamba model cannot use an adapter" in capsys.readouterr().err


def test_experts_that_go_by_another_name_are_balanced(tmp_path: Path, data: Path) -> None:
    """TRL's load-balancing loss knows the number of experts by one name alone."""
    tiny("granitemoe").build().save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    assert trained(tmp_path / "base", data, tmp_path / "out") == 0
    assert all(tensor.any() for tensor in adapted(tmp_path / "out").values())


@pytest.mark.parametrize("kind", ["recurrent_gemma", "xlstm", "gemma2", "granite", "cohere"])
def test_the_loss_is_the_models_own(kind: str, tmp_path: Path) -> None:
    """Logits that are scaled or capped, and so large that it matters."""
    model = tiny(kind).build()
    model.get_output_embeddings().weight.data *= 40
    model.save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": "what is blood ?", "completion": "the old heart cell"}))
    settings = read_settings(["max_steps=1", "max_length=64", "batch_size=1"])
    result = train_stage(
        Checkpoint(tmp_path / "base"), "sft", tmp_path / "x.jsonl", tmp_path / "out", settings=settings
    )
    reading, _ = read_as(AutoTokenizer.from_pretrained(tmp_path / "base"), None, None, "auto")
    [example] = load_examples(tmp_path / "x.jsonl")
    assert isinstance(example, Dialogue)
    found = reading.read(example.messages())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = plain(input_ids=torch.tensor([found.ids]), use_cache=False).logits[0].double().log_softmax(-1)
    own = -sum(float(logits[i - 1, found.ids[i]]) for i in range(found.first, len(found.ids))) / (
        len(found.ids) - found.first
    )
    assert result["loss"][0][1] == pytest.approx(own, rel=1e-4)


# Experts, latent attention; states, both, linear attention, convolutions; windows, caps on logits; learned positions;
# ALiBi; text parts of multimodal models.
STEPPED = (
    *("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss"),
    *("mamba", "jamba", "qwen3_next", "lfm2"),
    *("mistral", "gemma3_text", "gpt2", "opt", "bloom", "gemma3", "qwen2_vl"),
)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", STEPPED)
def test_a_step_is_that_of_plain_transformers(kind: str, dtype: str, tmp_path: Path) -> None:
    """The loss of two rows of different lengths, and the gradient of every B, which at 0 is the base's alone."""
    # Without what balances experts, which TRL puts on top.
    tiny(kind, router_aux_loss_coef=0.0).build().save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    rows = [("what is blood ?", "the old heart cell"), ("define term", "bone")]
    examples = [Dialogue((("user", asked), ("assistant", answer))) for asked, answer in rows]
    settings = read_settings(["max_steps=1", "max_length=64", "batch_size=2", "rank=2", f"dtype={dtype}"])
    trainer: Any = build_trainer(tmp_path / "base", "sft", examples, settings, tmp_path / "work")
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    # Dropout of the base (GPT-2, OPT) would make two passes differ.
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    reading, _ = read_as(AutoTokenizer.from_pretrained(tmp_path / "base"), None, None, "auto")
    named = [(name, tensor) for name, tensor in trainer.model.named_parameters() if ".lora_B." in name]
    ours = {name: tensor.grad.clone() for name, tensor in named if tensor.grad is not None}
    assert ours
    trainer.model.zero_grad()
    # One row at a time, without padding, by the model's own logits.
    found = [reading.read(example.messages()) for example in examples]
    count = sum(len(one.ids) - one.first for one in found)
    plain = torch.zeros(())
    for one in found:
        ids = torch.tensor([one.ids])
        log_p = trainer.model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        chosen = log_p.gather(1, ids[0, 1:, None])[one.first - 1 :]
        plain = plain - chosen.sum() / count
    plain.backward()
    # Of bfloat16 as far as its roundings go: 2.4e-4 of a loss and 1.4% of a gradient were seen, 1.3e-6 in float32.
    of_loss, of_gradient = {"float32": (1e-6, 1e-5), "bfloat16": (1e-3, 3e-2)}[dtype]
    assert loss.item() == pytest.approx(plain.item(), rel=of_loss)
    assert len(ours) == len(named)
    for name, tensor in named:
        assert float((ours[name] - tensor.grad).norm()) <= of_gradient * float(tensor.grad.norm()), name


def test_another_loss_than_the_models_own_is_refused(tmp_path: Path, data: Path, monkeypatch: Any, capsys: Any) -> None:
    model = tiny("recurrent_gemma").build()
    model.get_output_embeddings().weight.data *= 40
    model.save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    monkeypatch.setattr("crossmatch.training.trainer._CAPS", ())
    assert trained(tmp_path / "base", data, tmp_path / "out") == 2
    assert "the loss that TRL computes is not that of a recurrent_gemma model" in capsys.readouterr().err
