"""config.json against the base's, by what a loader makes of it, and against the tensors beside it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from crossmatch.checkpoint import BLOCK_ELEMENTS, Checkpoint, input_embedding, output_embedding
from crossmatch.verification.files.config_names import needed_and_lost, read_fields, same_value, text_fields, written_as
from crossmatch.verification.files.sandbox import Resolution, resolve
from crossmatch.verification.files.side_files import too_deep

__all__ = ["Change", "Comparison", "changed_config", "compare_configs", "same_value", "stale_tie", "text_fields"]

# Fields that differ between honest exports of one model; where a sequence ends has a fault of its own, and trainers
# write the tokenizer's special tokens here. A quantisation, code of the model's own and the class are judged apart.
_VOLATILE = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "name_or_path",
    "pad_token_id",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
# Fields that act in training alone, or on what a call returns besides the answer.
_IN_TRAINING = re.compile(
    r"dropout|pdrop|layerdrop|drop_path|initializer|init_std|init_method|aux_loss|z_loss|loss_coef|loss_weight|jitter"
    r"|label_smoothing|gradient_checkpointing|pretraining_tp|finetuning_task|task_specific|problem_type|id2label"
    r"|label2id|return_dict|output_hidden_states|output_attentions|output_router_logits|chunk_size_feed_forward"
    r"|attn_implementation|experts_implementation|unsloth|transformers\.js"
)
# One function under several names: the exact one, the tanh form, the sigmoid.
_ACTIVATIONS = {
    "swish": "silu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_pytorch_tanh",
    "gelu_fast": "gelu_pytorch_tanh",
    "gelu_python_tanh": "gelu_pytorch_tanh",
    "gelu_accurate": "gelu_pytorch_tanh",
}
_ACTIVATION_FIELD = re.compile(r"(^|\.)(hidden_act|hidden_activation|activation_function|activation|ffn_act|mlp_act)$")
# Fields that transformers reads from the config of any class, declared there or not: what each value comes to.
_READ_OF_ANY: Mapping[str, Callable[[Any], Any]] = {
    "attention_chunk_size": lambda value: value or None,
    "is_causal": lambda value: value is not False,
    "kv_sharing_modes": lambda value: value or None,
    "layer_types": lambda value: isinstance(value, list) and any(kind != "full_attention" for kind in value),
    "sliding_window": lambda value: value or None,
    # Names the file that is loaded in the place of model.safetensors.
    "transformers_weights": lambda value: value or None,
}
_SHOWN = 60


@dataclass(frozen=True)
class Change:
    """A field of two configs that is not the same: its dotted name, the merge's value and the base's (None: absent)."""

    field: str
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.ours)}, in the base {_shown(self.theirs)}"


@dataclass(frozen=True)
class Comparison:
    """What two configs have shown: fields that change what the model computes; fields that differ and do not, or that
    only one side has and no class declares; why they were read field by field alone, if they were."""

    changed: tuple[Change, ...] = ()
    other: tuple[Change, ...] = ()
    unresolved: str | None = None


def changed_config(merged: Checkpoint, base: Checkpoint) -> list[str]:
    """Names of the fields of config.json that change what the model computes; see `compare_configs`."""
    return [change.field for change in compare_configs(merged.config, base.config).changed]


def compare_configs(merged: Mapping[str, Any], base: Mapping[str, Any]) -> Comparison:
    """Two parsed config.json by what transformers resolves them to: names that a field has had, defaults left out on
    one side, rotary settings in either form. An export of the same model by another version changes none.

    Fields of the language model have no prefix, those of other parts are dotted. Where transformers has no class for
    the model, or cannot read either config, known names are resolved here, and fields on one side alone are not judged.
    """
    if base and not merged:
        return Comparison((Change("config.json is missing", None, None),))
    if too_deep(merged) or too_deep(base):
        return Comparison((Change("config.json is nested too deep", None, None),))
    if same_value(_stable(merged), _stable(base)):
        return Comparison()
    ours, theirs = resolve([merged, base])
    if ours.fields is not None and theirs.fields is not None:
        return _by_resolution(ours, theirs, merged, base)
    own = _by_names(merged, base)
    if ours.error and theirs.fields is not None:
        # What a loader refuses is another config, whatever the fields say.
        changed = own.changed or (Change("config.json", ours.error, "it can be loaded"),)
        return Comparison(changed, own.other, f"transformers cannot read the merge's: {ours.error}")
    reason = theirs.error if theirs.known else f"transformers has no class for {_shown(base.get('model_type'))}"
    return Comparison(own.changed, own.other, reason)


def _by_resolution(
    ours: Resolution, theirs: Resolution, merged: Mapping[str, Any], base: Mapping[str, Any]
) -> Comparison:
    unread = {_named(name) for name in (*ours.unread, *theirs.unread)}
    every = list(_differences(_canonical(ours.fields or {}), _canonical(theirs.fields or {}), ""))
    every = [replace(change, field=written_as(change.field, base)) for change in every]
    changed = [change for change in every if _computes(change, unread)]
    if any(change.field.startswith("rope_parameters") for change in changed):
        # Under the name in which the file says it.
        old = {k for k in ("rope_scaling", "rope_theta") for c in (merged, base) if text_fields(c).get(k) is not None}
        pairs = ((k, text_fields(merged).get(k), text_fields(base).get(k)) for k in sorted(old))
        changed += [Change(*pair) for pair in pairs if not same_value(pair[1], pair[2]) and pair[1] is not None]
    return Comparison(tuple(changed), tuple(change for change in every if change not in changed))


def _computes(change: Change, unread: set[str]) -> bool:
    """Whether a change is one of the model: neither of training alone, nor of a field that no class declares and that
    one side lacks."""
    if _IN_TRAINING.search(change.field):
        return False
    if _is_read_of_any(change):
        return True
    top = change.field
    while top and top not in unread:
        top = top.rpartition(".")[0]
    return not top or (change.ours is not None and change.theirs is not None)


def _is_read_of_any(change: Change) -> bool:
    read = _READ_OF_ANY.get(change.field.rpartition(".")[2])
    return read is not None and read(change.ours) != read(change.theirs)


def _by_names(merged: Mapping[str, Any], base: Mapping[str, Any]) -> Comparison:
    """Without transformers: by the names that fields are known to have had."""
    ours, theirs = _canonical(read_fields(merged)), _canonical(read_fields(base))
    every = list(_differences(ours, theirs, ""))
    lost = needed_and_lost(ours, theirs)
    changed = [
        change
        for change in every
        if not _IN_TRAINING.search(change.field)
        and (
            (change.ours is not None and change.theirs is not None)
            or _is_read_of_any(change)
            or change.field in lost
            or (change.field.startswith("rope_parameters.") and not change.field.endswith("rope_theta"))
        )
    ]
    return Comparison(tuple(changed), tuple(change for change in every if change not in changed))


def _stable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the fields that differ between honest exports, on all levels."""
    return {
        key: _stable(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _VOLATILE
    }


def _canonical(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved fields with one way to write each: of names of activations, windows that are not used, sections."""
    result: dict[str, Any] = {}
    for key, value in fields.items():
        if key in _VOLATILE or (key.startswith("_") and not isinstance(value, dict)):
            continue
        if isinstance(value, dict):
            result[key] = _canonical(value)
        elif isinstance(value, str) and _ACTIVATION_FIELD.search(key):
            result[key] = _ACTIVATIONS.get(value, value)
        else:
            result[key] = value
    if result.get("use_sliding_window") is False:
        # Then these say nothing, and exports rewrite them.
        result.pop("sliding_window", None)
        result.pop("max_window_layers", None)
    if "rope_type" in result:
        result.pop("type", None)
        # Sections are given apart; by themselves they leave the angles alone.
        result["rope_type"] = "default" if result["rope_type"] == "mrope" else result["rope_type"]
    return result


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str) -> Iterator[Change]:
    """Every leaf that differs; null, an empty object and an empty list are the same as none."""
    for key in sorted({*ours, *theirs}):
        mine, other = (None if value in ({}, []) else value for value in (ours.get(key), theirs.get(key)))
        if any(isinstance(value, dict) for value in (mine, other)) and all(
            isinstance(value, dict | None) for value in (mine, other)
        ):
            yield from _differences(mine or {}, other or {}, f"{prefix}{key}.")
        elif not same_value(mine, other):
            yield Change(_named(prefix + key), mine, other)


def _named(path: str) -> str:
    return path.removeprefix("text_config.")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def stale_tie(merged: Checkpoint) -> tuple[str, str] | None:
    """Input and output embedding, if the config ties them and the file holds two that differ."""
    first, second = input_embedding(merged.tensors), output_embedding(merged.tensors)
    if first is None or second is None or not merged.tied:
        return None
    ours, theirs = merged.tensors[first], merged.tensors[second]
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return first, second
    width = 16 * BLOCK_ELEMENTS
    ranges = ((start, min(width, ours.nbytes - start)) for start in range(0, ours.nbytes, width))
    same = all(merged.raw(first, start, n) == merged.raw(second, start, n) for start, n in ranges)
    return None if same else (first, second)
