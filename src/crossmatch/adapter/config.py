"""adapter_config.json: every field is understood, known to be harmless here, or refused by name."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmatch.adapter.patterns import ends_in, matches
from crossmatch.checkpoint import read_json
from crossmatch.errors import AdapterError

CONFIG_FILE = "adapter_config.json"

# Fields that say how the adapter was made or loaded; they do not change what its tensors mean. The configs of
# initialisations count only with an init_lora_weights of their own; VeLoRA changes the backward pass alone.
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
        "velora_config",
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
# No rank, factor, index or number of entries of an adapter that was trained comes near these.
_LARGE, _MANY = 2**31, 10_000
_INACTIVE: tuple[Any, ...] = (None, False, "none", {}, [], "")


@dataclass(frozen=True)
class AdapterConfig:
    """The fields that decide what an adapter's factors mean.

    r, alpha: defaults; rank_pattern, alpha_pattern: overrides by PEFT's regex keys; rslora: alpha/sqrt(r) for alpha/r;
    fan_in_fan_out: the base stores (d_in, d_out); targets: module names or one regex, as declared; parameters: targeted
    parameters; tokens: trainable token ids, by module name (or "" for the input embedding); layers: indices to which
    the targets are limited; by_peft: PEFT wrote the config, all fields of it.
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
    by_peft: bool = True

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
        if _named(self.excluded, module) or any(matches(rf"(?:.*\.)?(?:{m})(?:\..*)?", module) for m in self.saved):
            return False
        if self.targets == "all-linear" or not _named(self.targets, module):
            return False
        if self.layers is None or isinstance(self.targets, str) or module in self.targets:
            return True
        indices = (_layer(p, module) for p in self.layers_pattern or (r"[^.]*\.[^.]*",))
        return next((index for index in indices if index is not None), None) in self.layers

    def tokens_of(self, module: str) -> tuple[int, ...] | None:
        """Trainable token ids of an embedding, or None if the config names none for it."""
        named = next((ids for name, ids in self.tokens.items() if name and f".{module}".endswith(f".{name}")), None)
        return named if named is not None else self.tokens.get("")


def pattern_key(patterns: Mapping[str, Any], module: str) -> str:
    """The first key that matches the module's name at its end, as a regular expression, else the name itself.

    PEFT's rule: a key matches a suffix that begins the name or follows a dot.
    """
    return next((key for key in patterns if ends_in(key, module)), module)


def _layer(pattern: str, module: str) -> int | None:
    """The number that follows a layer stack of that name, the first one in the module's name."""
    for number in re.finditer(r"\.(\d{1,9})(?=\.)", module):
        if ends_in(pattern, module[: number.start()]):
            return int(number[1])
    return None


def _named(names: tuple[str, ...] | str, module: str) -> bool:
    if isinstance(names, str):
        return bool(names) and matches(names, module)
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
        kind = kind if isinstance(kind, str) else _short(kind)
        raise AdapterError(
            f"{file}: adapters of type {kind} are not supported, only LORA; if it is additive, merge it with the tool "
            "that trained it and give the result as a full fine-tune"
        )
    for name, value in raw.items():
        if name not in _HARMLESS | _UNDERSTOOD and not any(value is v or value == v for v in _INACTIVE):
            raise AdapterError(f"{file}: {name} = {_short(value)} is not supported; refused rather than ignored")
    init = raw.get("init_lora_weights", True)
    if init not in _PLAIN_INITS:
        raise AdapterError(
            f"{file}: init_lora_weights = {_short(init)} moved part of the base into the adapter, which would be "
            "counted twice on a plain base; convert it to a plain adapter "
            "first (PEFT: save_pretrained with path_initial_model_for_weight_conversion)",
            fault="init-residual",
        )
    try:
        return _parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise AdapterError(f"{file}: a field is missing or of the wrong type: {error}") from error


def _parse(raw: Mapping[str, Any]) -> AdapterConfig:
    layers = raw.get("layers_to_transform")
    patterns = raw.get("layers_pattern") or ()
    return AdapterConfig(
        r=_rank(raw["r"]),
        alpha=_number(raw["lora_alpha"]),
        rslora=bool(raw.get("use_rslora")),
        fan_in_fan_out=bool(raw.get("fan_in_fan_out")),
        rank_pattern={k: _rank(v) for k, v in _few(raw.get("rank_pattern") or {}, dict).items()},
        alpha_pattern={k: _number(v) for k, v in _few(raw.get("alpha_pattern") or {}, dict).items()},
        targets=_names(raw, "target_modules"),
        excluded=_names(raw, "exclude_modules"),
        layers=None if layers in (None, []) else _indices(layers if isinstance(layers, list) else [layers]),
        layers_pattern=_texts([patterns] if isinstance(patterns, str) else patterns),
        parameters=tuple(sorted(_texts(raw.get("target_parameters") or ()))),
        tokens=_tokens(raw.get("trainable_token_indices")),
        saved=_texts(raw.get("modules_to_save") or ()),
        bias=str(_word(raw.get("bias")) or "none"),
        dora=bool(raw.get("use_dora")),
        lora_bias=bool(raw.get("lora_bias")),
        base=_word(raw.get("base_model_name_or_path")),
        task=_word(raw.get("task_type")),
        peft_version=_version(raw.get("peft_version")),
        by_peft="fan_in_fan_out" in raw,
    )


def _few(value: Any, kind: type) -> Any:
    """A list or an object of a length that can be gone through for every tensor."""
    if not isinstance(value, kind) and not (kind is list and value == ()):
        raise TypeError(f"{_short(value)} is no {'object' if kind is dict else 'list'}")
    if len(value) > _MANY:
        raise ValueError(f"it has a field with {len(value)} entries, of which at most {_MANY} are read")
    return value


def _rank(value: Any) -> int:
    # PEFT writes whole numbers; what it would stumble over is not guessed at here.
    if type(value) is not int or not 1 <= value < _LARGE:
        raise ValueError(f"a rank must be at least 1 and a whole number, not {_short(value)}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGE:
        raise ValueError(f"lora_alpha must be a finite number, not {_short(value)}")
    return float(value)


def _word(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{_short(value)} is no text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not all(isinstance(text, str) for text in _few(value, list)):
        raise TypeError(f"{_short(value)} is no list of names")
    return tuple(value)


def _indices(value: Any) -> tuple[int, ...]:
    if not all(type(index) is int and 0 <= index < _LARGE for index in value):
        raise ValueError(f"{_short(value)} is no list of indices")
    return tuple(value)


def _names(raw: Mapping[str, Any], field_name: str) -> tuple[str, ...] | str:
    value = raw.get(field_name) or ()
    return value if isinstance(value, str) else tuple(sorted(_texts(value)))


def _tokens(value: Any) -> dict[str, tuple[int, ...]]:
    """A list names rows of the input embedding, a mapping rows of the modules that it names."""
    named = value if isinstance(value, dict) else {"": value or []}
    if not all(isinstance(ids, list) for ids in named.values()):
        raise TypeError(f"{_short(value)} is no list of tokens")
    return {name: _indices(ids) for name, ids in _few(named, dict).items() if ids}


def _version(text: Any) -> tuple[int, ...] | None:
    found = re.match(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})", text) if isinstance(text, str) else None
    return tuple(map(int, found.groups())) if found else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
