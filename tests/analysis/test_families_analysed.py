"""What is read of layers and of gated adapters, on several families of models, is what plain transformers has."""

from pathlib import Path
from typing import Any

import pytest
import torch

from architectures.cells import Bench, logits
from crossmatch import Adapter, Checkpoint
from crossmatch.analysis.attribution.batches import batches
from crossmatch.analysis.attribution.gated_model import Instrumented
from crossmatch.analysis.decoder_layers import decoder_layers, hidden_of
from crossmatch.analysis.representations.layerwise import Streams, choose, own, with_vector
from crossmatch.causal import open_model, text_decoder
from crossmatch.data.passages import Passage
from crossmatch.data.token_classes import Text

# PEFT's, of transposed weights and of models that it makes a second time.
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:You are trying to modify")
# Experts, states, both, linear attention, windows, learned positions, ALiBi; text parts whose names differ in the file.
FAMILIES = "mixtral mamba jamba qwen3_next gemma2 gpt2 opt bloom mpt gemma3 llava qwen2_vl".split()
TEXTS = [tuple(range(10, 32)), tuple(range(40, 55)), (9, 60, 12, 33, 8)]
START = 3


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    made = Bench(request.param, "attention", tmp_path)
    made.setup()
    return made


@torch.inference_mode()
def residuals(model: Any, ids: tuple[int, ...]) -> list[torch.Tensor]:
    """What each layer puts out in one whole pass, (length, d)."""
    found: list[torch.Tensor] = []
    handles = [
        x.register_forward_hook(lambda _m, _a, out: found.append(hidden_of(out)[0])) for x in decoder_layers(model)
    ]
    model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def scores(model: Any) -> list[float]:
    """-ln P(text after its first tokens | these), by plain passes."""
    found = []
    for ids in TEXTS:
        log_p = logits(model, list(ids)).log_softmax(-1)[START - 1 : -1]
        found.append(-float(log_p.gather(1, torch.tensor(ids[START:])[:, None]).sum()))
    return found


@pytest.mark.parametrize("bench", FAMILIES, indirect=True)
def test_layers_and_gates_are_those_of_plain_models(bench: Bench) -> None:
    plain, weights = open_model(bench.base.path, torch.float32), {"lora": bench.weight}
    vector = Adapter(bench.root / "lora") * bench.weight
    base = Checkpoint(bench.base.path)
    tokens = choose([Passage(text) for text in TEXTS], 1000)
    lengths = [len(text) for text in TEXTS]
    order = sorted(range(len(TEXTS)), key=lambda n: -lengths[n])
    sides = [own(base), with_vector(base, vector)]
    for depth, found in enumerate(Streams(base).run(tokens, sides)):
        for model, values in zip((plain, bench.reference), found["residual"], strict=True):
            wanted = torch.cat([residuals(model, TEXTS[n])[depth] for n in order])
            assert float((values - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
    gated = Instrumented(base, {"lora": bench.lora}, weights)
    texts = [Text(ids, ("prompt",) * (START - 1) + ("opener",) + ("answer",) * (len(ids) - START)) for ids in TEXTS]
    (batch,) = batches(texts, 1000)
    for gate, model in ((0.0, plain), (1.0, bench.reference)):
        with torch.inference_mode(), gated.gated(gated.gates({"lora": gate})):
            found = gated.scores(batch).tolist()
        assert found == pytest.approx([scores(model)[n] for n in batch.numbers], abs=2e-3)


def test_layers_are_those_of_the_text_and_not_of_a_tower(tmp_path: Path) -> None:
    """Both stacks have two layers; the tower's comes first among the modules."""
    made = Bench("llava", "attention", tmp_path)
    made.setup()
    model = open_model(tmp_path / "base", torch.float32)
    assert all(any(layer is module for module in text_decoder(model).modules()) for layer in decoder_layers(model))
