"""What PEFT expects of an adapter that somebody else writes: the prefix of its keys, its config, its targets."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import Checkpoint

PREFIX = "base_model.model."


def plain_config(base: Checkpoint, rank: int, *, away: bool = False) -> dict[str, Any]:
    """adapter_config.json of plain factors of one rank and scaling 1, on a base; away: its place here is not said."""
    return {
        "base_model_name_or_path": base.source.hub_id or (None if away else str(Path(base.path).resolve())),
        "revision": base.source.revision,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_bias": False,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": None,
        "r": rank,
        "target_modules": [],
        "target_parameters": None,
        "task_type": None,
        "trainable_token_indices": None,
        "use_dora": False,
        "use_rslora": False,
    }


def module_targets(modules: Collection[str], tensors: Mapping[str, object]) -> Iterator[str]:
    """Module types where all modules of a type are meant, whole names where only some are."""
    types = {module.rpartition(".")[2] for module in modules}
    for kind in sorted(types):
        ours = {m for m in modules if m.rpartition(".")[2] == kind}
        all_of = sum(n.endswith(f".{kind}.weight") or n == f"{kind}.weight" for n in tensors)
        yield from [kind] if len(ours) >= all_of else sorted(ours)
