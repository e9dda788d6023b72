"""One loaded model whose weights are changed in place from variant to variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from crossmatch.adapter import fit
from crossmatch.checkpoint import Checkpoint
from crossmatch.delta import Delta, TuningVector, merged_rows
from crossmatch.errors import AdapterError
from crossmatch.progress import Task
from crossmatch.rules import Combined, Recipe, Weight


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: greedy at temperature 0, else sampled with a seed."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Engine:
    """A model and its tokenizer, able to become base + any tuning vector.

    The weights of a variant are round(W + D) in the base's stored dtype, then cast to the compute dtype: those of the
    checkpoint that a merge would write. The device is the first GPU if there is one; it computes in the stored dtype
    there, and in float32 on CPU, where 16 bits are slower. stored: dtype of the checkpoints (None: the base's own).
    """

    def __init__(self, base: Checkpoint, stored: torch.dtype | None = None) -> None:
        self.base, self.stored = base, stored
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(base.path)
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        on_gpu = stored or next(info.dtype for info in base.tensors.values() if info.dtype.is_floating_point)
        dtype = torch.float32 if self.device.type == "cpu" else on_gpu
        model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=dtype)
        self.model = model.to(self.device).eval()
        self._weights = dict(self.model.named_parameters())
        # Tensors that a checkpoint stored in another dtype would hold differently, adapter or not.
        self._changed = {n for n in self._weights if n in base and stored not in (None, base.tensors[n].dtype)}
        # Only what a decoding names may act: a base's own generation config can carry penalties and temperatures.
        own = self.model.generation_config
        self._ends = {"eos_token_id": own.eos_token_id or self.tokenizer.eos_token_id}
        self._ends |= {"pad_token_id": self.tokenizer.pad_token_id, "bos_token_id": own.bos_token_id}
        self.model.generation_config = GenerationConfig(**self._ends)

    @torch.inference_mode()
    def become(self, parts: Mapping[str, tuple[TuningVector, Weight]]) -> None:
        """Change the weights to base + sum_i weight_i * D_i, name -> (tuning vector, weight); {} gives the base back.

        Raises AdapterError if a delta does not fit, or the model cannot take it in place.
        """
        found = fit(self.base, {name: vector for name, (vector, _) in parts.items()})
        if found.base is not self.base:
            raise AdapterError("an adapter changes the vocabulary of the model; merge it, then evaluate the merge")
        wanted = Combined(found.vectors, {name: weight for name, (_, weight) in parts.items()}, Recipe())
        for name in [*self._changed.difference(wanted), *wanted]:
            self._set(name, wanted.get(name))
        # In the base's own dtype a tensor without a delta is as it was loaded, once it has been restored.
        self._changed = set(wanted) if self.stored is None else self._changed.union(wanted)

    def _set(self, name: str, delta: Delta | None) -> None:
        parameter = self._weights.get(name)
        if parameter is None:
            raise AdapterError(f"the model has no parameter {name}; it cannot take this adapter in place")
        columns = delta.columns if delta is not None else self.base.tensors[name].columns
        target = parameter.data.view(-1, columns)
        if delta is not None:
            delta = delta.bind(lambda start, stop: self.base.rows(name, start, stop, columns))
        for start, stop in self.base.blocks(name, columns):
            rows = self.base.rows(name, start, stop, columns)
            form = self.stored or rows.dtype
            done = merged_rows(rows, delta, start, stop, form) if delta else rows.to(form)
            target[start:stop].copy_(done)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, decoding: Decoding, batch: int, task: Task
    ) -> list[str]:
        """Answers to rendered prompts, with special tokens kept and everything after the end of the turn cut off."""
        answers = [""] * len(prompts)
        drawn = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
        options = GenerationConfig(
            max_new_tokens=max_new_tokens, **self._ends, **(drawn if decoding.temperature > 0 else {"do_sample": False})
        )
        for number, chunk in enumerate(_batches([len(p) for p in prompts], batch)):
            inputs = self._encode([prompts[i] for i in chunk])
            # A seed of its own for each batch: with one for all, items at the same place would share their noise.
            with torch.random.fork_rng():
                torch.manual_seed(decoding.seed * 1_000_003 + number)
                out = self.model.generate(**inputs, generation_config=options)
            for row, index in enumerate(chunk):
                answers[index] = self._decode(out[row, inputs["input_ids"].shape[1] :])
            task.advance(len(chunk))
        return answers

    @torch.inference_mode()
    def loglikelihoods(
        self, prompts: Sequence[str], options: Sequence[Sequence[str]], batch: int, task: Task
    ) -> list[list[float]]:
        """log P(option | prompt), summed over the option's tokens, for every option of every prompt.

        A prompt goes through the model once; its keys and values are shared by its options.
        """
        results: list[list[float]] = [[] for _ in prompts]
        for chunk in _batches([len(p) for p in prompts], batch):
            inputs = self._encode([prompts[i] for i in chunk])
            tokens = [[self._continuation(prompts[i], option) for option in options[i]] for i in chunk]
            for index, values in zip(chunk, self._score(inputs, tokens), strict=True):
                results[index] = values
            task.advance(len(chunk))
        return results

    def _score(self, inputs: dict[str, Tensor], tokens: list[list[list[int]]]) -> list[list[float]]:
        mask = inputs["attention_mask"]
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        prefix = self.model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
        first = torch.log_softmax(prefix.logits[:, -1].float(), -1)
        counts = torch.tensor([len(group) for group in tokens], device=self.device)
        flat = [ids for group in tokens for ids in group]
        owner = torch.repeat_interleave(torch.arange(len(tokens), device=self.device), counts)
        longest = max(map(len, flat))
        ids = torch.zeros(len(flat), longest, dtype=torch.long, device=self.device)
        valid = torch.zeros_like(ids)
        for row, option in enumerate(flat):
            ids[row, : len(option)] = torch.tensor(option)
            valid[row, : len(option)] = 1
        scores = torch.zeros(len(flat), longest, device=self.device)
        scores[:, 0] = first[owner, ids[:, 0]]
        if longest > 1:
            cache = prefix.past_key_values
            cache.batch_select_indices(owner)
            steps = torch.arange(longest - 1, device=self.device)
            logits = self.model(
                input_ids=ids[:, :-1],
                attention_mask=torch.cat([mask[owner], valid[:, :-1]], 1),
                position_ids=positions[owner, -1:] + 1 + steps,
                past_key_values=cache,
            ).logits
            # One option at a time: the log-softmax of all would be as large as the logits again.
            for row in range(len(flat)):
                log_p = torch.log_softmax(logits[row].float(), -1)
                scores[row, 1:] = log_p.gather(1, ids[row, 1:, None])[:, 0]
        totals = (scores * valid).sum(1).tolist()
        bounds = [0, *counts.cumsum(0).tolist()]
        return [totals[a:b] for a, b in pairwise(bounds)]

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        encoded = self.tokenizer(list(prompts), add_special_tokens=False, padding=True, return_tensors="pt")
        return {key: encoded[key].to(self.device) for key in ("input_ids", "attention_mask")}

    def _continuation(self, prompt: str, option: str) -> list[int]:
        """Token ids of an option after its prompt, tokenised together where that keeps the prompt's own tokens."""
        before = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        both = self.tokenizer(prompt + option, add_special_tokens=False)["input_ids"]
        if both[: len(before)] == before and len(both) > len(before):
            return both[len(before) :]
        return self.tokenizer(option, add_special_tokens=False)["input_ids"]

    def _decode(self, ids: Tensor) -> str:
        ends = self._ends["eos_token_id"]
        stop = {ends} if isinstance(ends, int) else set(ends or ())
        stop.add(self.tokenizer.eos_token_id)
        kept = []
        for token in ids.tolist():
            if token in stop:
                break
            kept.append(token)
        return self.tokenizer.decode(kept, skip_special_tokens=False)


def _batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first, so that what does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]
