"""A dozen telling architectures: evaluated and analysed rightly; `make models` runs every cell of all of them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from architectures.cells import Bench, outcomes
from architectures.zoo import tiny
from crossmatch import Checkpoint
from crossmatch.errors import InputError
from crossmatch.evaluation.inference.batch_memory import Memory
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.trial import find_ways
from crossmatch.rules import Heads, Weights
from crossmatch.rules.towers import labelled, tower_of
from helpers import make_tokenizer

# Transposed weights, ALiBi by mask and by column, a projection behind the decoder, fused experts with windows and
# without, recurrent states, both at once, windows in the class, a text part under another's name.
TELLING = "gpt2 bloom mpt opt mixtral gpt_oss mamba2 bamba gpt_neo gemma3 llava qwen2_vl openai-gpt".split()
CELLS = ("inspect", "merge", "verify", "analyse", "evaluate")
MEMORY = Memory(1 << 28)


@pytest.mark.parametrize("kind", TELLING)
def test_what_is_asked_of_it_is_right(kind: str, tmp_path: Path) -> None:
    found = outcomes(Bench(kind, "attention", tmp_path), CELLS)
    assert found == dict.fromkeys(CELLS, "")


def test_fused_experts_change_in_place(tmp_path: Path) -> None:
    """Experts that lie apart in the file are one parameter of the model."""
    assert outcomes(Bench("mixtral", "experts", tmp_path), ("merge", "evaluate")) == {"merge": "", "evaluate": ""}


def test_what_peft_makes_of_fused_experts_is_verified(tmp_path: Path) -> None:
    """It rounds the delta of a targeted parameter to the parameter's dtype, and that of a linear layer not at all."""
    assert outcomes(Bench("mixtral", "all-linear", tmp_path), ("PEFT bf16",)) == {"PEFT bf16": ""}


def test_ways_are_those_that_hold() -> None:
    found = {kind: find_ways(tiny(kind).build(), MEMORY) for kind in ("llama", "mpt", "bamba", "mamba", "openai-gpt")}
    assert (found["llama"].masks, found["llama"].right, found["llama"].note("llama")) == (True, True, None)
    # Positions come from the columns, or there is a state: no trees, no pools.
    assert not any(found[kind].masks for kind in ("mpt", "bamba", "mamba", "openai-gpt"))
    assert all(ways.right and ways.stem.module is not None for ways in found.values())
    # Left padding reaches the state of the one, not of the other; the third has no cache at all.
    assert (found["bamba"].left, found["mamba"].left, found["mamba"].cached) == (True, False, True)
    assert (found["openai-gpt"].left, found["openai-gpt"].cached) == (False, False)
    assert "answers are generated without a cache" in str(found["openai-gpt"].note("openai-gpt"))


def test_a_mask_that_is_not_heeded_is_noticed() -> None:
    """A Llama that drops the mask it is given: nothing fails, the figures are others."""
    model = tiny("llama").build()
    own = type(model).forward

    def deaf(*args: Any, **given: Any) -> Any:
        return own(model, *args, **{k: v for k, v in given.items() if k not in ("attention_mask", "position_ids")})

    model.forward = deaf
    ways = find_ways(model, MEMORY)
    assert (ways.masks, ways.left, ways.cached) == (False, False, True)


def test_what_reads_both_ways_is_refused(tmp_path: Path) -> None:
    tiny("cpmant").build().save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    engine = Engine(Checkpoint(tmp_path))
    with pytest.raises(InputError, match="cpmant lets a token of a text see those that come after it"):
        engine.generate(["what is blood"], 3, None, [0], lambda *_: None)  # type: ignore[arg-type]


def test_what_writes_no_text_is_refused(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    ViTModel(
        ViTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    with pytest.raises(InputError, match="is a vit model; only models that predict the next token"):
        Engine(Checkpoint(tmp_path))


def test_towers_are_told_by_names() -> None:
    names = {
        "model.layers.0.self_attn.q_proj.weight": None,
        "language_model.model.layers.1.self_attn.q_proj.weight": None,
        "vision_tower.encoder.layers.0.self_attn.q_proj.weight": "vision",
        "visual.blocks.3.attn.qkv.weight": "vision",
        "model.layers.2.vision_expert.up_proj.weight": None,
        "audio_tower.layers.0.fc1.weight": "audio",
        "model.visual.merger.linear.weight": None,
    }
    assert {name: tower_of(name) for name in names} == names
    assert labelled("vision_tower.encoder.layers.0.self_attn.q_proj.weight", "q_proj") == "q_proj of vision"


def test_a_tower_has_heads_of_its_own() -> None:
    vision = {"hidden_size": 48, "num_attention_heads": 6}
    config = {"text_config": {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}}
    assert Heads.of({**config, "vision_config": vision}) == Heads(4, 2, 16)
    assert Heads.of({**config, "vision_config": vision}, "vision") == Heads(6, 6, 8)
    assert Heads.of(
        {**config, "vision_config": {"embed_dim": 32, "num_heads": 4, "hidden_size": 9}}, "vision"
    ) == Heads(4, 4, 8)
    assert Heads.of(config, "vision") is None


def test_layers_and_heads_are_those_of_the_text() -> None:
    text, vision = (f"{stack}.layers.1.self_attn.q_proj.weight" for stack in ("model", "vision_tower.encoder"))
    weights = Weights.parse("1,layers[1:]:0")
    assert (weights.at(text), weights.at(vision)) == (0.0, 1.0)
    weights = Weights.parse("1,vision_tower.layers[1:]:0.5")
    assert (weights.at(text), weights.at(vision)) == (1.0, 0.5)
    heads, weights = Heads(4, 2, 16), Weights.parse("1,q_proj.heads[0:1]:0")
    inside, _ = weights.inside(text, heads)
    assert isinstance(inside, torch.Tensor)
    assert int((inside == 0).sum()) == 16
    assert weights.inside(vision, heads) == (1.0, 0)
