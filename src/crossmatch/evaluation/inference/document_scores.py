"""How well a model predicts plain documents: log-likelihood of every token, long documents in windows that overlap."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from crossmatch.evaluation.forward import Ways
from crossmatch.evaluation.inference.batch_memory import Memory
from crossmatch.evaluation.inference.hidden_states import last_states, logits_of
from crossmatch.evaluation.inference.protocol import DocumentScore, Windows
from crossmatch.positions import most_positions


@torch.inference_mode()
def score_documents(
    model: Any,
    ways: Ways,
    documents: Sequence[Sequence[int]],
    before: Sequence[int],
    windows: Windows,
    memory: Memory,
) -> Iterator[tuple[int, DocumentScore]]:
    """-sum ln P(token | what comes before it) of every document, as they are done.

    documents: their token ids; before: the ids, one at least, behind which each begins. The model's own limit on
    positions also limits the windows.
    """
    # All but one of the ids before a document are read in its first window, beyond the window's size.
    more = len(before) - 1
    limit = most_positions(model.config)
    size = windows.size if limit is None else min(windows.size, limit - more)
    windows = Windows(size, min(windows.overlap, size - 1))
    rows, wanted, targets, owner = [], [], [], []
    for number, tokens in enumerate(documents):
        whole = [*before, *tokens]
        for begin, first, end in windows.spans(len(tokens)):
            rows.append(whole[begin + more if begin else 0 : end + more])
            wanted.append(end - first)
            targets.append(torch.tensor(whole[first + more + 1 : end + more + 1]))
            owner.append(number)
    parts, left = [0.0] * len(documents), Counter(owner)
    count, step = Counter(owner), memory.positions(model)
    for row, states in last_states(model, ways, rows, wanted, memory):
        for chunk, ids in zip(states.split(step), targets[row].split(step), strict=True):
            wide = logits_of(model, ways.stem, chunk).float()
            chosen = wide.gather(1, ids[:, None].to(wide.device))[:, 0]
            parts[owner[row]] += float((torch.logsumexp(wide, -1) - chosen).double().sum())
        number = owner[row]
        left[number] -= 1
        if not left[number]:
            yield number, DocumentScore(parts[number], len(documents[number]), count[number])
