"""Texts as token ids with exactly one beginning of sequence, and a prompt with its continuation as one sequence.

Many tokenizers put tokens before every text: `<|begin_of_text|>` (Llama 3), `<bos>` (Gemma), `<s>` (Mistral),
`[gMASK]<sop>` (GLM). A model that was trained with them gives other figures without them (Gemma's perplexity is 3.5
with and 5.9e9 without: lm-evaluation-harness, pull request 1465), and a chat template may write them itself. Which
tokens these are is measured on the tokenizer: what a field of its config says need not be what it does.
"""

from collections.abc import Sequence
from typing import Any

# Any text whose tokens are no special ones.
_PROBE = "a"


def opening_ids(tokenizer: Any) -> tuple[int, ...]:
    """The token ids that this tokenizer puts before every text, as BOS; () for one that adds none.

    What it puts behind a text (an end of sequence) is not among them: a prompt goes on.
    """
    whole = list(tokenizer(_PROBE)["input_ids"])
    text = list(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    if not text:
        return tuple(whole[:1]) if whole[:1] == [tokenizer.bos_token_id] else ()
    starts = (n for n in range(len(whole) - len(text) + 1) if whole[n : n + len(text)] == text)
    return tuple(whole[: next(starts, 0)])


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that are rendered prompts or plain ones, each with its beginning of sequence exactly once.

    A text that begins with it already, as a chat template writes it, gets no second one, whatever white space stands
    before; lm-evaluation-harness 0.4.13 does the same (`HFLM.tok_encode`). No end of sequence is added.
    """
    if not texts:
        return []
    opening = list(opening_ids(tokenizer))
    found = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    if not opening:
        return found
    return [
        list(ids) if _begun(tokenizer, text, ids, opening) else [*opening, *ids]
        for text, ids in zip(texts, found, strict=True)
    ]


def encode_pairs(
    tokenizer: Any, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Token ids of prompts, as `encode` gives them, and of what may follow each.

    A prompt and what follows it are tokenised together where that keeps the prompt's own tokens, else apart.
    """
    before = encode(tokenizer, prompts)
    whole = iter(encode(tokenizer, [p + c for p, group in zip(prompts, continuations, strict=True) for c in group]))
    found = []
    for ids, group in zip(before, continuations, strict=True):
        found.append([])
        for text in group:
            both = next(whole)
            kept = both[: len(ids)] == ids and len(both) > len(ids)
            found[-1].append(both[len(ids) :] if kept else tokenizer(text, add_special_tokens=False)["input_ids"])
    return before, found


def encode_pair(tokenizer: Any, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
    """`encode_pairs` of one prompt and one text."""
    (before,), ((after,),) = encode_pairs(tokenizer, [prompt], [[continuation]])
    return before, after


def move_spaces(prompt: str, *, chat: bool) -> tuple[str, str]:
    """(prompt without the white space at its end, that white space), which belongs before what follows.

    A word's token holds the space before it, so that behind "Answer: " no token of "A" as the model knows it fits;
    lm-evaluation-harness moves it likewise (`TemplateLM._encode_pair`). Of a chat prompt only spaces and tabs are
    moved: line breaks at its end are tokens of the template, behind which the answer begins.
    """
    kept = prompt.rstrip(" \t" if chat else None)
    return kept, prompt[len(kept) :]


def with_opening(tokenizer: Any, text: str) -> str:
    """A text that holds its beginning of sequence exactly once, for a server that is told to add none."""
    (ids,) = encode(tokenizer, [text])
    plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return text if ids == plain else _opening_text(tokenizer) + text


def without_opening(tokenizer: Any, text: str) -> str:
    """A text without the beginning of sequence that a template has written, for a server that adds one itself."""
    opening = _opening_text(tokenizer)
    return text.lstrip().removeprefix(opening) if opening and text.lstrip().startswith(opening) else text


def _opening_text(tokenizer: Any) -> str:
    ids = opening_ids(tokenizer)
    return "".join(tokenizer.convert_ids_to_tokens(list(ids))) if ids else ""


def _begun(tokenizer: Any, text: str, ids: Sequence[int], opening: list[int]) -> bool:
    """Whether a text begins with its beginning of sequence, behind white space at most."""
    if list(ids[: len(opening)]) == opening:
        return True
    if not text[:1].isspace() or opening[0] not in ids:
        return False
    place = list(ids).index(opening[0])
    return list(ids[place : place + len(opening)]) == opening and not tokenizer.decode(list(ids[:place])).strip()
