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
        "inference_mode",
        "lora_dropout",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
_UNDERSTOOD = frozenset(
    {
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "fan_in_fan_out",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_bias",
        "modules_to_save",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "target_parameters",
        "trainable_token_indices",
        "use_dora",
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
    fan_in_fan_out: the base stores (d_in, d_out); targets: module names or one regex, as declared; parameters: targeted
    parameters; tokens: trainable token ids, by module name (or "" for the input embedding); layers: indices to which
    the targets are limited.
    """

    r: int
    alpha: float
    rslora: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] | str = ()
    excluded: tuple[str, ...] | str = ()
    layers: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    saved: tuple[str, ...] = ()
    bias: str = "none"
    dora: bool = False
    lora_bias: bool = False
    base: str | None = None
    task: str | None = None
    peft_version: tuple[int, ...] | None = None

    def rank(self, module: str) -> int:
        """Rank of a module: its override, else r."""
        return self.rank_pattern.get(pattern_key(self.rank_pattern, module), self.r)

    def scaling(self, module: str) -> float:
        """alpha / r, or alpha / sqrt(r) for rsLoRA, with the module's overrides."""
        alpha = self.alpha_pattern.get(pattern_key(self.alpha_pattern, module), self.alpha)
        rank = self.rank(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def misread(self, module: str) -> dict[str, float]:
        """How a tool that misreads this config scales the delta of a module, as a factor on the right one, by fault."""
        scaling, rank = self.scaling(module), self.rank(module)
        if not scaling:
            return {}
        root = math.sqrt(rank)
        factors = {
            "rslora-scale": 1 / root if self.rslora else root,
            "scale-lost": 1 / scaling,
            "scale-lost:alpha": root if self.rslora else rank,
            "scale-lost:squared": scaling,
        }
        if self.rank_pattern or self.alpha_pattern:
            plain = self.alpha / (math.sqrt(self.r) if self.rslora else self.r)
            factors["pattern-ignored"] = plain / scaling
        return factors

    def targeted(self, module: str) -> bool:
        """Whether a module of that name takes a low-rank delta by this config (PEFT's rules).

        A regex must match the whole name; a name, the end of it after a dot. False where the config does not list its
        targets.
        """
        if _named(self.excluded, module) or any(re.match(rf"(^|.*\.){m}($|\..*)", module) for m in self.saved):
            return False
        if self.targets == "all-linear" or not _named(self.targets, module):
            return False
        if self.layers is None or isinstance(self.targets, str) or module in self.targets:
            return True
        patterns = [rf"(?:^|.*?\.){p}\.(\d+)\." for p in self.layers_pattern] or [r".*?\.[^.]*\.(\d+)\."]
        match = next((m for p in patterns if (m := re.match(p, module))), None)
        return match is not None and int(match.group(1)) in self.layers

    def tokens_of(self, module: str) -> tuple[int, ...] | None:
        """Trainable token ids of an embedding, or None if the config names none for it."""
        named = next((ids for name, ids in self.tokens.items() if name and f".{module}".endswith(f".{name}")), None)
        return named if named is not None else self.tokens.get("")


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


def _named(names: tuple[str, ...] | str, module: str) -> bool:
    if isinstance(names, str):
        try:
            return bool(names) and re.fullmatch(names, module) is not None
        except re.error as error:
            raise AdapterError(f"target {names!r} is no regular expression: {error}") from error
    return any(module == name or module.endswith(f".{name}") for name in names)


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
        raise AdapterError(
            f"{file}: adapters of type {kind} are not supported, only LORA; if it is additive, merge it with the tool "
            "that trained it and give the result as a full fine-tune"
        )
    for name, value in raw.items():
        if name not in _HARMLESS | _UNDERSTOOD and not any(value is v or value == v for v in _INACTIVE):
            raise AdapterError(f"{file}: {name} = {value!r} is not supported; refused rather than ignored")
    init = raw.get("init_lora_weights", True)
    if init not in _PLAIN_INITS:
        raise AdapterError(
            f"{file}: init_lora_weights = {init!r} moved part of the base into the adapter, which would be counted "
            "twice on a plain base; convert it to a plain adapter "
            "first (PEFT: save_pretrained with path_initial_model_for_weight_conversion)",
            fault="init-residual",
        )
    try:
        return _parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise AdapterError(f"{file}: a field is missing or of the wrong type: {error}") from error


def _parse(raw: Mapping[str, Any]) -> AdapterConfig:
    layers = raw.get("layers_to_transform")
    config = AdapterConfig(
        r=int(raw["r"]),
        alpha=float(raw["lora_alpha"]),
        rslora=bool(raw.get("use_rslora")),
        fan_in_fan_out=bool(raw.get("fan_in_fan_out")),
        rank_pattern={str(k): int(v) for k, v in (raw.get("rank_pattern") or {}).items()},
        alpha_pattern={str(k): float(v) for k, v in (raw.get("alpha_pattern") or {}).items()},
        targets=_names(raw, "target_modules"),
        excluded=_names(raw, "exclude_modules"),
        layers=None if layers in (None, []) else (layers,) if isinstance(layers, int) else tuple(layers),
        layers_pattern=tuple([p] if isinstance(p := raw.get("layers_pattern") or (), str) else p),
        parameters=tuple(sorted(raw.get("target_parameters") or ())),
        tokens=_tokens(raw.get("trainable_token_indices")),
        saved=tuple(raw.get("modules_to_save") or ()),
        bias=str(raw.get("bias") or "none"),
        dora=bool(raw.get("use_dora")),
        lora_bias=bool(raw.get("lora_bias")),
        base=raw.get("base_model_name_or_path"),
        task=raw.get("task_type"),
        peft_version=_version(raw.get("peft_version")),
    )
    if config.r < 1 or any(r < 1 for r in config.rank_pattern.values()):
        raise ValueError("a rank must be at least 1")
    if not all(map(math.isfinite, (config.alpha, *config.alpha_pattern.values()))):
        raise ValueError("lora_alpha must be a finite number")
    return config


def _names(raw: Mapping[str, Any], field_name: str) -> tuple[str, ...] | str:
    value = raw.get(field_name) or ()
    return value if isinstance(value, str) else tuple(sorted(value))


def _tokens(value: Any) -> dict[str, tuple[int, ...]]:
    """A list names rows of the input embedding, a mapping rows of the modules that it names."""
    named = value if isinstance(value, dict) else {"": value or ()}
    return {str(name): tuple(int(i) for i in ids) for name, ids in named.items() if ids}


def _version(text: Any) -> tuple[int, ...] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text) if isinstance(text, str) else None
    return tuple(map(int, found.groups())) if found else None
