"""One loaded model whose weights are changed in place from variant to variant."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from crossmatch.adapter import fit
from crossmatch.causal import open_model
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.token_ids import encode, encode_pair, encode_pairs, opening_ids, without_opening
from crossmatch.data.turn_ends import Stops, declared_eos
from crossmatch.delta import TuningVector
from crossmatch.errors import AdapterError, DataError
from crossmatch.evaluation.forward import Ways
from crossmatch.evaluation.inference.batch_memory import ROWS, Memory
from crossmatch.evaluation.inference.document_scores import score_documents
from crossmatch.evaluation.inference.generation import Limits, decode
from crossmatch.evaluation.inference.option_scores import score
from crossmatch.evaluation.inference.protocol import (
    EOS,
    Decoding,
    DocumentScore,
    FirstToken,
    Generated,
    Windows,
)
from crossmatch.evaluation.inplace import InPlace
from crossmatch.evaluation.trial import find_ways
from crossmatch.positions import Positions, TooLong, most_positions
from crossmatch.rules import Combined, Recipe, Weight

LINEAR = Recipe()


class Engine:
    """A model and its tokenizer, able to become base + any tuning vector.

    The weights of a variant are round(W + D) in the base's stored dtype, then cast to the compute dtype: those of the
    checkpoint that a merge would write, in float32 to one rounding. The device is the first GPU if there is one; it
    computes in the stored dtype there, and in float32 on CPU, where 16 bits are slower. stored: dtype of the
    checkpoints (None: the base's own); rows: prompts at a time at most; memory: bytes for what grows with the batch
    (None: a quarter of what is free); tokenizer: another than the base's own. Decoding is what a call says: a base's
    own penalties and temperatures do not act.
    """

    tells_distributions = True
    too_long: TooLong = "refuse"

    def __init__(
        self,
        base: Checkpoint,
        stored: torch.dtype | None = None,
        rows: int = ROWS,
        memory: int | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.base, self.stored, self.rows = base, stored, rows
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = tokenizer or open_tokenizer(base.path)
        on_gpu = stored or next(info.dtype for info in base.tensors.values() if info.dtype.is_floating_point)
        dtype = torch.float32 if self.device.type == "cpu" else on_gpu
        self.model: Any = open_model(base.path, dtype).to(self.device)
        self.memory = Memory.of(self.device, memory)
        self.weights = InPlace(self.model, base, stored)
        # Tensors that a checkpoint stored in another dtype would hold differently, adapter or not.
        names = self.weights.known if stored is not None else ()
        self._changed = {name for name in names if base.tensors[name].dtype != stored}
        own = self.model.generation_config.eos_token_id
        self._stops = declared_eos(base.path, self.tokenizer).union([own] if isinstance(own, int) else own or ())

    @cached_property
    def ways(self) -> Ways:
        """How this model is run, tried on a few short texts when it is asked for first (`find_ways`)."""
        return find_ways(self.model, self.memory)

    @torch.inference_mode()
    def become(self, parts: Mapping[str, tuple[TuningVector, Weight]], recipe: Recipe = LINEAR) -> None:
        """Change the weights to base + sum_i weight_i * D_i, name -> (tuning vector, weight); {} gives the base back.

        recipe: another rule than the sum.

        Raises AdapterError if a delta does not fit, or the model cannot take it in place.
        """
        found = fit(self.base, {name: vector for name, (vector, _) in parts.items()})
        if found.base is not self.base:
            raise AdapterError("an adapter changes the vocabulary of the model; merge it, then evaluate the merge")
        wanted = Combined(found.vectors, {name: weight for name, (_, weight) in parts.items()}, recipe)
        self.weights.set({name: wanted.get(name) for name in [*self._changed.difference(wanted), *wanted]})
        # In the base's own dtype a tensor without a delta is as it was loaded, once it has been restored.
        self._changed = set(wanted) if self.stored is None else self._changed.union(wanted)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        decoding: Decoding,
        seeds: Sequence[int],
        done: Callable[[int, Generated], None],
        stops: Stops = EOS,
    ) -> None:
        """Answers to rendered prompts, with special tokens kept and everything after the end of the turn cut off.

        seeds: one per prompt, from which it is drawn. What comes several times is read by the model once. stops: where
        an answer ends, besides at every end of sequence of tokenizer, config and generation config.
        """
        said = (lambda ids: self._said(ids, stops.texts)) if stops.texts else None
        limits = Limits(self._stops | stops.ids, max_new_tokens, self.rows, self.memory, said)
        asked = self._fitting(self._ids(prompts), [max_new_tokens] * len(prompts))
        for index, ids, end in decode(self.model, self.ways, asked, limits, decoding, seeds):
            if end is not None:
                done(index, Generated(self._text(ids), False, len(ids), self._text([end])))
            else:
                done(index, self._unended(ids, stops.texts))

    def loglikelihoods(
        self, prompts: Sequence[str], options: Sequence[Sequence[str]], done: Callable[[int, list[float]], None]
    ) -> None:
        """ln P(option | prompt), summed over the option's tokens, for every option of every prompt."""
        self.openings(prompts, options, lambda index, values, _: done(index, values))

    def openings(
        self,
        prompts: Sequence[str],
        options: Sequence[Sequence[str]],
        done: Callable[[int, list[float], FirstToken], None],
    ) -> None:
        """The same, with what the first token's distribution is like."""
        before, tokens = encode_pairs(self.tokenizer, prompts, options)
        before = self._fitting(before, [max(map(len, group), default=1) for group in tokens])
        for index, values, opening in score(self.model, self.ways, before, tokens, self.rows, self.memory):
            done(index, values, opening)

    def documents(self, texts: Sequence[str], windows: Windows, done: Callable[[int, DocumentScore], None]) -> None:
        """-ln P of plain texts, each behind one beginning-of-sequence token (else the end of sequence), which is not
        scored. Raises DataError for a tokenizer that has neither."""
        tokenizer = self.tokenizer
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        before = opening_ids(tokenizer) or tuple(i for i in ends if i is not None)[:1]
        if not before:
            raise DataError(f"{self.base.path}: the tokenizer has no token with which a text begins or ends")
        plain = [without_opening(tokenizer, text) for text in texts]
        tokens = tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else []
        tokens = [ids[len(before) :] if tuple(ids[: len(before)]) == before else ids for ids in tokens]
        for index, found in score_documents(self.model, self.ways, tokens, before, windows, self.memory):
            done(index, found)

    def _text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def _said(self, ids: Sequence[int], texts: Sequence[str]) -> bool:
        """Whether the last tokens say one of these texts; a token has a character of it at least."""
        tail = self._text(ids[-max(map(len, texts)) - 1 :])
        return any(text in tail for text in texts)

    def _unended(self, ids: Sequence[int], texts: Sequence[str]) -> Generated:
        """An answer that no token ended: up to the first of these texts, else cut at the limit."""
        whole = self._text(ids)
        said = [(place, text) for text in texts if (place := whole.find(text)) >= 0]
        if not said:
            return Generated(whole, True, len(ids))
        place, text = min(said)
        size = len(whole[:place].rstrip())
        count = next((n for n in range(len(ids)) if len(self._text(ids[:n])) >= size), len(ids))
        return Generated(whole[:place], False, count, text)

    def _ids(self, prompts: Sequence[str]) -> list[list[int]]:
        return encode(self.tokenizer, prompts)

    def _fitting(self, prompts: list[list[int]], following: Sequence[int]) -> list[list[int]]:
        """Prompts that fit into the model's positions with so many tokens behind them (`Positions.fitted`)."""
        room = Positions(most_positions(self.model.config), self.too_long, opening_ids(self.tokenizer))
        return [room.fitted(ids, count, self.tokenizer) for ids, count in zip(prompts, following, strict=True)]

    def token_ids(self, prompt: str, option: str) -> tuple[list[int], list[int]]:
        """Token ids of a prompt, with its beginning of sequence, and of what follows it (`encode_pairs`)."""
        before, after = encode_pair(self.tokenizer, prompt, option)
        return self._fitting([before], [len(after)])[0], after
