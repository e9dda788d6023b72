"""Which modules of a base get an adapter."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from crossmatch.causal import text_decoder
from crossmatch.errors import InputError

ALL = "all-linear"
# Modules whose weights are read without a call of the module: an adapter on them never acts and is never trained. Those
# of the first row PEFT refuses on these models; those of the second it would take on any.
_STATE_SPACE = frozenset(("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"))
_PAST = frozenset(("out_proj", "conv1d"))
_EVER_PAST = frozenset(("dt_proj",))


def lora_targets(model: Any, wanted: Sequence[str]) -> tuple[str | list[str], str | None]:
    """What PEFT is given as target modules, and a note on what `all-linear` leaves out.

    Towers that read no text are left out: text gives them no gradient, and an adapter on them would stay untrained.
    Raises InputError for a module that the base does not have, or that cannot carry an adapter.
    """
    leaves = {name.split(".")[-1] for name, _ in model.named_modules()}
    refused = leaves & (_EVER_PAST | (_PAST if model.config.model_type in _STATE_SPACE else frozenset()))
    # Routers of experts that are linear layers by their class and return more than a product.
    refused |= {
        name.split(".")[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and type(module).forward is not nn.Linear.forward
    }
    if tuple(wanted) != (ALL,):
        missing = next((target for target in wanted if target not in leaves | {ALL}), None)
        if missing is not None:
            raise InputError(f"targets: the base has no module called {missing}; give {ALL}, or names of modules")
        faulty = next((target for target in wanted if target in refused), None)
        if faulty is not None:
            kind = model.config.model_type
            raise InputError(f"targets: {faulty} of a {kind} model cannot use an adapter; leave it out")
        return list(wanted), None
    decoder = text_decoder(model)
    towers = model.config.get_text_config(decoder=True) is not model.config
    if not towers and not refused:
        return ALL, None
    text = {id(module) for module in decoder.modules()}
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and id(module) in text
    ]
    kept = [name for name in names if name.split(".")[-1] not in refused]
    left = [*(["towers that read no text"] if towers else []), *sorted(refused & {n.split(".")[-1] for n in names})]
    return kept, f"no adapter on {', '.join(left)}, which cannot use one" if left else None
