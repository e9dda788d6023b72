"""Written checkpoints as variants: other directories that are asked the same prompts, beside what is made in place."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.checkpoint import Checkpoint, chat_template, read_json, split_pairs
from crossmatch.errors import InputError, RuleError
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.runtime import Progress


def checkpoint_variants(base: Checkpoint, paths: Mapping[str, str], taken: Sequence[Variant] = ()) -> list[Variant]:
    """One variant of kind `checkpoint` for each name -> directory or hub id, with a note where its text differs.

    Prompts are rendered and tokenised with the base's tokenizer for all variants; a checkpoint must read the same
    token ids. taken: variants that are there already. Raises InputError for another vocabulary, RuleError for a name
    that is taken.
    """
    found = []
    for name, path in paths.items():
        if name in {variant.name for variant in taken}:
            raise RuleError(f"two variants would both be called {name!r}; give that checkpoint another name")
        checkpoint = Checkpoint(path)
        if checkpoint.quantisation:
            raise InputError(f"checkpoint {name}: it is quantised ({checkpoint.quantisation}); serve it, and --server")
        found.append(Variant(name, "checkpoint", {}, checkpoint=checkpoint, note=_note(base, checkpoint, name)))
    return found


def read_checkpoints(
    base: Checkpoint, pairs: Sequence[str] | None, taken: Sequence[Variant], progress: Progress
) -> list[Variant]:
    """Variants of --checkpoint NAME=PATH texts; what a reader must know of them is said. Raises InputError."""
    found = checkpoint_variants(base, split_pairs(pairs, "--checkpoint"), taken)
    for variant in found:
        if variant.note:
            progress.say(f"note: checkpoint {variant.name}: {variant.note}")
    return found


def _note(base: Checkpoint, other: Checkpoint, name: str) -> str:
    """What a reader must know of a checkpoint's tokenizer and template. Raises InputError for another vocabulary."""
    ours, theirs = _tokenizer(base), _tokenizer(other)
    if theirs is not None and ours is not None and _vocabulary(theirs) != _vocabulary(ours):
        raise InputError(
            f"checkpoint {name}: its vocabulary is not the base's, so that the same prompt would be other tokens; "
            "evaluate it with a base of its own"
        )
    rows = read_json(other.path / "config.json").get("vocab_size")
    if ours is not None and isinstance(rows, int) and rows <= max(_vocabulary(ours).values()):
        raise InputError(f"checkpoint {name}: it has {rows} embeddings, fewer than the base's tokenizer has tokens")
    notes = []
    if theirs is None:
        notes.append("it has no tokenizer.json of its own")
    elif _rest(theirs) != _rest(ours):
        notes.append("its tokenizer splits text by other rules over the same vocabulary")
    if chat_template(other.path) != chat_template(base.path):
        notes.append("its chat template is another")
    return f"{'; '.join(notes)}: the base's was used" if notes else ""


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any] | None:
    file = checkpoint.path / "tokenizer.json"
    return read_json(file) if file.exists() else None


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """token -> id, added ones too; of a tokenizer that has no table of them, its own entries by their place."""
    raw = tokenizer.get("model", {}).get("vocab", {})
    known = dict(raw) if isinstance(raw, dict) else {json.dumps(entry): place for place, entry in enumerate(raw)}
    return known | {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens") or ()}


def _rest(tokenizer: Mapping[str, Any] | None) -> Any:
    """How text is split; padding and truncation are what a program set last."""
    return {k: v for k, v in (tokenizer or {}).items() if k not in ("padding", "truncation", "version")}
