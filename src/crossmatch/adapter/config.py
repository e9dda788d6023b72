"""adapter_config.json: every field is understood, known to be harmless here, or refused by name."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import read_json
from crossmatch.errors import AdapterError

CONFIG_FILE = "adapter_config.json"

# Fields that say how the adapter was made or loaded; they do not change what its tensors mean.
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
_UNDERSTOOD = frozenset(
    {
        "alpha_pattern",
        "fan_in_fan_out",
        "init_lora_weights",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "use_rslora",
    }
)
# Initialisations that leave the base as it was. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) move part of the
# base into the factors: put on the plain base such an adapter counts that part twice.
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
_INACTIVE: tuple[Any, ...] = (None, False, "none", {}, [], "")


@dataclass(frozen=True)
class AdapterConfig:
    """The fields that decide what an adapter's factors mean.

    r, alpha: defaults; rank_pattern, alpha_pattern: overrides by PEFT's regex keys; rslora: alpha/sqrt(r) for alpha/r;
    fan_in_fan_out: the base stores (d_in, d_out); targets: as declared, for display.
    """

    r: int
    alpha: float
    rslora: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    base: str | None = None

    def rank(self, module: str) -> int:
        """Rank of a module: its override, else r."""
        return self.rank_pattern.get(pattern_key(self.rank_pattern, module), self.r)

    def scaling(self, module: str) -> float:
        """alpha / r, or alpha / sqrt(r) for rsLoRA, with the module's overrides."""
        alpha = self.alpha_pattern.get(pattern_key(self.alpha_pattern, module), self.alpha)
        rank = self.rank(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def pattern_key(patterns: Mapping[str, Any], module: str) -> str:
    """The first key that matches the module's name at its end, as a regular expression, else the name itself.

    PEFT's rule: a key matches a suffix that begins the name or follows a dot.
    """
    for key in patterns:
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return key
        except re.error as error:
            raise AdapterError(f"pattern {key!r} is no regular expression: {error}") from error
    return module


def read_config(directory: Path) -> AdapterConfig:
    """Read and judge adapter_config.json.

    Raises AdapterError for another kind of adapter than LoRA, and for every active field that is not understood.
    """
    file = directory / CONFIG_FILE
    if not file.exists():
        raise AdapterError(f"{directory} holds no {CONFIG_FILE}; give the directory of a PEFT adapter")
    raw = read_json(file)
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{file}: adapters of type {kind} are not supported, only LORA")
    for name, value in raw.items():
        if name not in _HARMLESS | _UNDERSTOOD and not any(value is v or value == v for v in _INACTIVE):
            raise AdapterError(f"{file}: {name} = {value!r} is not supported; refused rather than ignored")
    init = raw.get("init_lora_weights", True)
    if init not in _PLAIN_INITS:
        raise AdapterError(
            f"{file}: init_lora_weights = {init!r} moves part of the base into the adapter; convert it to a plain "
            "adapter first (PEFT: save_pretrained with path_initial_model_for_weight_conversion)"
        )
    try:
        return _parse(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{file}: a field is missing or of the wrong type: {error}") from error


def _parse(raw: Mapping[str, Any]) -> AdapterConfig:
    targets = raw.get("target_modules") or ()
    config = AdapterConfig(
        r=int(raw["r"]),
        alpha=float(raw["lora_alpha"]),
        rslora=bool(raw.get("use_rslora")),
        fan_in_fan_out=bool(raw.get("fan_in_fan_out")),
        rank_pattern={str(k): int(v) for k, v in (raw.get("rank_pattern") or {}).items()},
        alpha_pattern={str(k): float(v) for k, v in (raw.get("alpha_pattern") or {}).items()},
        targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        base=raw.get("base_model_name_or_path"),
    )
    if config.r < 1 or any(r < 1 for r in config.rank_pattern.values()):
        raise ValueError("a rank must be at least 1")
    if not all(map(math.isfinite, (config.alpha, *config.alpha_pattern.values()))):
        raise ValueError("lora_alpha must be a finite number")
    return config
