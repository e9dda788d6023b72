"""Attention heads as rows and columns of weights: which a selector of heads means, where keys and values are shared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from crossmatch.errors import RuleError
from crossmatch.results.vectors import HeadsJson

ATTENTION = frozenset({"self_attn", "attn", "attention", "self_attention", "cross_attn", "linear_attn"})
# Weights whose rows, or columns, are heads one after the other; and those that hold several kinds of them.
_ROWS = {"q_proj": "query", "wq": "query", "k_proj": "key", "v_proj": "key", "wk": "key", "wv": "key"}
_COLUMNS = {"o_proj", "wo", "out_proj"}
# No model comes near; a stranger's config could ask for more.
_MOST = 1 << 14
_FUSED = {"qkv_proj", "c_attn", "query_key_value", "Wqkv", "W_pack", "in_proj", "kv_b_proj", "q_b_proj", "qkv"}


@dataclass(frozen=True)
class Heads:
    """Attention heads of a model: query heads, key-value heads (groups), and the width of one.

    With grouped queries (Ainslie et al., 2305.13245), query heads g n/m to (g + 1) n/m - 1 share keys and values of
    group g, for n query heads and m groups.
    """

    queries: int
    groups: int
    width: int

    @classmethod
    def of(cls, config: Mapping[str, Any], tower: str | None = None) -> "Heads | None":
        """From a model's config.json, of the text or of a tower (`tower_of`); None where it does not say."""
        inner = config.get(f"{tower or 'text'}_config")
        if tower is not None:
            return cls._of_tower(inner) if isinstance(inner, dict) else None
        fields = {**config, **inner} if isinstance(inner, dict) else config
        queries = fields.get("num_attention_heads", fields.get("n_head"))
        groups = fields.get("num_key_value_heads") or queries
        hidden = fields.get("hidden_size", fields.get("n_embd"))
        if not _is_count(queries) or not _is_count(groups) or queries % groups:
            return None
        width = fields.get("head_dim") or (hidden // queries if type(hidden) is int else None)
        return cls(queries, groups, width) if _is_count(width) else None

    @classmethod
    def _of_tower(cls, fields: Mapping[str, Any]) -> "Heads | None":
        """Encoders have names of their own for what texts have."""
        names = ("num_attention_heads", "num_heads", "encoder_attention_heads", "attention_heads")
        queries = next((fields[name] for name in names if name in fields), None)
        hidden = next((fields[name] for name in ("embed_dim", "hidden_size", "d_model") if name in fields), None)
        return cls.of({"num_key_value_heads": None, **fields, "num_attention_heads": queries, "hidden_size": hidden})

    def to_dict(self) -> HeadsJson:
        """As plain JSON."""
        return {"queries": self.queries, "groups": self.groups, "width": self.width}

    def selected(self, name: str, unit: str, start: int, stop: int | None) -> Tensor:
        """Which rows (of a query, key or value weight) or columns (of the output's) some heads or groups are; bool.

        unit: `heads`, query heads, or `groups`, all of some key-value heads. Keys and values belong to heads whose
        whole group is meant. Raises RuleError for heads that are not there, and for a group that is meant in part.
        """
        count = self.queries if unit == "heads" else self.groups
        stop = count if stop is None else stop
        if not 0 <= start < stop <= count:
            raise RuleError(f"{unit}[{start}:{stop}]: the model has {count} {unit}, counted from 0")
        each = self.queries // self.groups
        meant = torch.zeros(self.queries, dtype=torch.bool)
        size = 1 if unit == "heads" else each
        meant[start * size : stop * size] = True
        if _ROWS.get(_module(name)[0]) == "key":
            groups = meant.view(self.groups, each)
            if bool((groups.any(1) != groups.all(1)).any()):
                raise RuleError(
                    f"{unit}[{start}:{stop}] of {name}: {each} query heads share one head of keys and values; "
                    f"give all of a group (groups[a:b]), or leave keys and values out (q_proj.heads[{start}:{stop}])"
                )
            meant = groups.all(1)
        return meant.repeat_interleave(self.width)


def head_axis(name: str) -> int | None:
    """Along which axis of a tensor heads lie one after the other: 0, rows; 1, columns; None: it has none of its own.

    Raises RuleError for a weight that holds queries, keys and values in one.
    """
    module, leaf = _module(name)
    if module in _FUSED:
        raise RuleError(f"{name} holds several kinds of heads in one tensor; select it as a whole, without heads")
    if module in _ROWS:
        return 0
    return 1 if module in _COLUMNS and leaf == "weight" else None


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value <= _MOST


def _module(name: str) -> tuple[str, str]:
    """The module's own name, if it is part of attention (else empty), and what it calls the tensor."""
    parts = name.split(".")
    inside = ATTENTION & set(parts[:-2])
    return (parts[-2] if inside else "", parts[-1])
