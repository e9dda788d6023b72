"""What an adapter file holds for each tensor: low-rank factors, DoRA, biases, saved modules, tokens, experts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossmatch.adapter.config import CONFIG_FILE, AdapterConfig
from crossmatch.adapter.keys import Key, parse_key
from crossmatch.checkpoint import TensorFiles
from crossmatch.delta import Delta, Dense, Dora, LowRank, Replacement, Stack, Sum, TokenRows, is_finite, low_rank
from crossmatch.errors import AdapterError

# As the experts of transformers define them.
EXPERT_PARAMETERS = ("gate_up_proj", "down_proj")
# Tasks whose head is new, and so always saved.
_HEADED = ("SEQ_CLS", "TOKEN_CLS")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Part:
    """What an adapter holds for one tensor: its kind, the shape of the tensor, the keys used, how it is read.

    kind: low-rank, dora, bias, saved, tokens or experts. shape: as far as the file tells; a dimension of -1 is the
    base's. turned: the same for weights that are stored transposed, or the reverse; what the config says of that
    (fan_in_fan_out) is true of the last module that PEFT wrapped, not of each.
    """

    kind: str
    shape: tuple[int, ...]
    keys: tuple[str, ...]
    build: Callable[[], Delta]
    turned: "Part | None" = None


def build_parts(parts: Sequence[Part]) -> Delta:
    """The delta of all parts on one tensor."""
    built = [part.build() for part in parts]
    saved = next((d for d in built if isinstance(d, Replacement)), None)
    tokens = next((d for d in built if isinstance(d, TokenRows)), None)
    if saved is not None and tokens is not None:
        # Tokens were trained on top of the saved layer, not of the base's.
        whole = saved.tensor.index_copy(0, tokens.indices, tokens.values.to(saved.tensor.dtype))
        built = [d for d in built if d is not saved and d is not tokens] + [Replacement(whole)]
    return built[0] if len(built) == 1 else Sum(tuple(built))


def collect_parts(files: TensorFiles, config: AdapterConfig) -> dict[str, tuple[Part, ...]]:
    """The parts of an adapter by tensor name; every key of the file is used exactly once.

    Raises AdapterError for a key that is not understood, used twice, or lacks its other half.
    """
    return _Collector(files, config).collect()


def targeted_parameters(config: AdapterConfig, module: str) -> list[str]:
    """Targeted parameters of a module, in the order in which PEFT wraps them: as the module defines them.

    A targeted name may hold that of the module, or be the parameter's alone; then every module that has such a
    parameter is meant, which no linear layer does.
    """
    names = [p.rpartition(".") for p in config.parameters]
    short = {leaf for parent, _, leaf in names if parent and f".{module}".endswith(f".{parent}")}
    if short <= set(EXPERT_PARAMETERS) and module.rpartition(".")[2] == "experts":
        short |= {leaf for parent, _, leaf in names if not parent}
    if len(short) > 1 and short != set(EXPERT_PARAMETERS):
        raise AdapterError(
            f"several parameters of {module} were trained ({', '.join(sorted(short))}); which factors are whose "
            f"follows from the order in its class, which is known for {' and '.join(EXPERT_PARAMETERS)} only"
        )
    return [name for name in EXPERT_PARAMETERS if name in short] if len(short) > 1 else sorted(short)


class _Collector:
    """One pass over the keys of a file."""

    def __init__(self, files: TensorFiles, config: AdapterConfig) -> None:
        self.files, self.config = files, config

    def collect(self) -> dict[str, tuple[Part, ...]]:
        """Every key of the file in one part of one tensor."""
        modules: dict[tuple[str, int], dict[str, Key]] = {}
        parts: dict[str, list[Part]] = {}
        for key in map(parse_key, self.files.tensors):
            if key.kind in ("superseded", "backward"):
                # Copies of the base's own, and what only training uses (VeLoRA).
                continue
            if key.kind in ("saved", "copy"):
                self._add_saved(parts, key)
                continue
            depth = key.depth if key.kind in ("a", "b") else 0
            found = modules.setdefault((key.module, depth), {})
            if key.kind in found:
                raise AdapterError(f"{key.key} and {found[key.kind].key} are the same factor of one module")
            found[key.kind] = key
        wrapped = {module for module, depth in modules if depth > 0}
        for (module, depth), keys in modules.items():
            nested = module in wrapped or targeted_parameters(self.config, module)
            for name, part in self._experts(module, depth, keys) if nested else self._module(module, keys):
                parts.setdefault(name, []).append(part)
        if not parts:
            raise AdapterError("it holds no tensors; the adapter was saved empty", fault="adapter-incomplete")
        self._check_declared(parts)
        return {name: tuple(found) for name, found in parts.items()}

    def _check_declared(self, parts: Mapping[str, Sequence[Part]]) -> None:
        """Raise AdapterError for something that the config declares and the file does not hold."""
        kinds = {part.kind for found in parts.values() for part in found}
        # PEFT declares every head that a task may have; which of them is missing only the base can tell.
        headless = self.config.task in _HEADED and self.config.saved and "saved" not in kinds
        missing = [f"modules_to_save {', '.join(self.config.saved)}"] if headless else []
        plain = [name for name, found in parts.items() if any(part.kind == "low-rank" for part in found)]
        missing += [f"DoRA magnitudes ({plain[0]})"] if self.config.dora and plain else []
        bare = [
            n for n in parts if parts[n][0].kind in ("low-rank", "dora") and n.replace(".weight", ".bias") not in parts
        ]
        missing += [f"LoRA biases ({bare[0]})"] if self.config.lora_bias and bare else []
        missing += ["trainable tokens"] if self.config.tokens and "tokens" not in kinds else []
        missing += ["targeted parameters"] if self.config.parameters and "experts" not in kinds else []
        if missing:
            raise AdapterError(
                f"{CONFIG_FILE} declares {', '.join(missing)}, which the file does not hold; it was saved half",
                fault="adapter-incomplete",
            )

    def _add_saved(self, parts: dict[str, list[Part]], key: Key) -> None:
        name = f"{key.module}.{key.leaf}"
        known = next((p for p in parts.get(name, []) if p.kind == "saved"), None)
        if known is not None:
            # PEFT writes a resized, saved module under two names.
            if not torch.equal(self.files[known.keys[0]], self.files[key.key]):
                raise AdapterError(f"{key.key} and {known.keys[0]} are the same tensor with different values")
            return
        part = Part("saved", self.files.tensors[key.key].shape, (key.key,), lambda: Replacement(self._finite(key.key)))
        parts.setdefault(name, []).append(part)

    def _module(self, module: str, keys: Mapping[str, Key]) -> Iterator[tuple[str, Part]]:
        """The parts of an ordinary module: its low-rank delta (with DoRA's magnitude), its bias, its tokens."""
        if "tokens" in keys:
            yield f"{module}.weight", self._tokens(module, keys["tokens"].key)
        factors = [k for k in ("a", "b", "embedding_a", "embedding_b") if k in keys]
        if not factors:
            lonely = [k.key for kind, k in keys.items() if kind != "tokens"]
            if lonely:
                raise AdapterError(
                    f"{lonely[0]} has no low-rank factors beside it; save the adapter again", fault="adapter-incomplete"
                )
            return
        if factors not in (["a", "b"], ["embedding_a", "embedding_b"]):
            missing = "lora_A" if factors[0].endswith("b") else "lora_B"
            raise AdapterError(
                f"{module} has no {missing}; the adapter is incomplete, save it again", fault="adapter-incomplete"
            )
        embedding = factors[0] == "embedding_a"
        places = keys[factors[0]].key, keys[factors[1]].key
        magnitude = keys["magnitude"].key if "magnitude" in keys else None
        straight, turned = (self._factors(module, places, magnitude, turn) for turn in (False, True))
        if embedding:
            yield f"{module}.weight", turned
        elif self.config.fan_in_fan_out:
            yield f"{module}.weight", replace(turned, turned=straight)
        else:
            yield f"{module}.weight", replace(straight, turned=turned)
        if "b_bias" in keys:
            bias = keys["b_bias"].key
            dense: Callable[[], Delta] = lambda: Dense(self._finite(bias), self.config.scaling(module))  # noqa: E731
            yield f"{module}.bias", Part("bias", self.files.tensors[bias].shape, (bias,), dense)

    def _factors(self, module: str, keys: tuple[str, str], magnitude: str | None, turned: bool) -> Part:
        a, b = keys
        low: Callable[[], LowRank] = lambda: self._low_rank(module, a, b, turned)  # noqa: E731
        shape = self._shape(a, b, turned)
        if magnitude is None:
            return Part("low-rank", shape, (a, b), low)
        build: Callable[[], Delta] = lambda: Dora(low(), self._finite(magnitude), by_column=turned)  # noqa: E731
        return Part("dora", shape, (a, b, magnitude), build)

    def _shape(self, a: str, b: str, turned: bool) -> tuple[int, ...]:
        left, right = self.files.tensors[b].shape, self.files.tensors[a].shape
        if min(len(left), len(right)) < 2:
            raise AdapterError(
                f"{a} has shape {list(right)}, its lora_B {list(left)}; a factor has two axes, or those of a "
                "convolution: sharded training saved what one machine has; gather the parts and save it again",
                fault="adapter-truncated",
            )
        return (*right[:0:-1], left[0]) if turned else (left[0], *right[1:])

    def _low_rank(self, module: str, key_a: str, key_b: str, turned: bool) -> LowRank:
        a, b = self._finite(key_a), self._finite(key_b)
        dims = None if a.ndim == 2 else (b.shape[0], *a.shape[1:])
        delta = low_rank(b.flatten(1), a.flatten(1), self.config.scaling(module))
        if delta.rank != self.config.rank(module):
            raise AdapterError(
                f"{module} has rank {delta.rank} in the file, "
                f"{self.config.rank(module)} by {CONFIG_FILE}; one of the two is not this adapter's"
            )
        return LowRank(delta.a.T, delta.b.T, delta.scale) if turned else LowRank(delta.b, delta.a, delta.scale, dims)

    def _tokens(self, module: str, key: str) -> Part:
        ids = self.config.tokens_of(module)
        info = self.files.tensors[key]
        if len(info.shape) != 2:
            raise AdapterError(f"{key} has shape {list(info.shape)}; trained tokens are rows of a matrix")
        if ids is None or len(ids) != info.shape[0]:
            raise AdapterError(f"{key} has {info.shape[0]} rows, {CONFIG_FILE} names {len(ids or ())} tokens for it")

        def build(vocabulary: int = max(ids) + 1) -> Delta:
            return TokenRows(torch.tensor(ids), self._finite(key), (vocabulary, info.shape[1]))

        return Part("tokens", (-1, info.shape[1]), (key,), build)

    def _experts(self, module: str, depth: int, keys: Mapping[str, Key]) -> Iterator[tuple[str, Part]]:
        """The part of one targeted parameter: (experts, d_out, d_in), or transposed, with factors for every expert."""
        names = targeted_parameters(self.config, module)
        if set(keys) != {"a", "b"} or depth >= len(names):
            raise AdapterError(f"the factors of {module} do not fit the targeted parameters {', '.join(names) or '-'}")
        # The parameter that was wrapped first lies deepest.
        name = f"{module}.{names[len(names) - 1 - depth]}"
        a, b = keys["a"].key, keys["b"].key
        rank = self.config.rank(name)
        right, left = self.files.tensors[a].shape, self.files.tensors[b].shape
        if len(right) != 2 or len(left) != 2:
            raise AdapterError(f"{a} and {b} are no matrices, {list(right)} and {list(left)}; factors of experts are")
        (rows, d_in), (d_out, columns) = right, left
        if rows != columns or rows % rank:
            raise AdapterError(f"{a} and {b} do not hold factors of rank {rank} for a number of experts")
        count = rows // rank

        def build() -> Delta:
            left = self._finite(b).reshape(d_out, rank, count).permute(2, 0, 1)
            right = self._finite(a).reshape(count, rank, d_in)
            scaling = self.config.scaling(name)
            parts = tuple(low_rank(left[e], right[e], scaling) for e in range(count))
            return parts[0] if count == 1 else Stack(parts)

        shape = (d_out, d_in) if count == 1 else (count, d_out, d_in)
        yield name, Part("experts", shape, (a, b), build)

    def _finite(self, key: str) -> Tensor:
        tensor = self.files[key]
        if tensor.dtype not in _FLOATS:
            raise AdapterError(f"{key} is stored as {tensor.dtype}, which no adapter is trained in; save it again")
        if not is_finite(tensor):
            raise AdapterError(f"{key} holds NaN or infinite values; train it again")
        return tensor
