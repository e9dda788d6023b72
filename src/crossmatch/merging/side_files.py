"""The small files of a checkpoint: config, tokenizer, chat template, generation config."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import (
    TOKENIZER_FILES,
    chat_template,
    check_links,
    file_digest,
    neighbours,
    read_json,
    write_json,
)
from crossmatch.errors import AdapterError, CheckpointError
from crossmatch.merging.plan import MergePlan
from crossmatch.merging.tokens import added_tokens, check_tokens, token_owner

GENERATION = "generation_config.json"
# Where transformers stores all templates but the default.
TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True)
class SideFiles:
    """Files to copy, by output name (those in folders with slashes); whose tokenizer and template they are, and whose
    generation config: `base` or an adapter's name; where the sources disagree, and what of the base is not copied, in
    lines."""

    files: Mapping[str, Path]
    tokenizer_from: str
    generation_from: str
    disagreements: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What to say before the work."""
        return (*self.disagreements, *self.left)


def side_files(plan: MergePlan, wanted: str | None) -> SideFiles:
    """Choose the small files: all of the base's, in folders too, with tokenizer, template and generation config from
    `wanted`.

    By default these are the base's, unless an adapter added tokens, or was trained with another chat template: then
    that adapter's. Raises AdapterError if two adapters were trained with two other templates and nothing was chosen,
    if the chosen one carries no tokenizer, if the tokens that an adapter added would be lost although their rows were
    trained, or if a token of the chosen one has no row.
    """
    base = plan.fit.base.path
    beside = neighbours(base, frozenset((*plan.files(), *(file.name for file in plan.fit.base.layout.files))))
    files, left = beside.files, beside.left
    adapters = {name: adapter.path for name, adapter in plan.adapters.items()}
    owner = plan.fit.grown_by
    added = added_tokens(base, adapters)
    chosen = wanted if wanted is not None else owner or token_owner(added) or _template_owner(base, adapters)
    if owner is not None and chosen != owner:
        raise AdapterError(f"--tokenizer {chosen}: adapter {owner} added tokens, its tokenizer goes with them")
    if chosen != "base" and chosen not in adapters:
        raise AdapterError(f"--tokenizer {chosen}: give base or one of {', '.join(adapters)}")
    check_tokens(plan.fit, base, added, chosen)
    disagreements = tuple(_disagreements(base, adapters, chosen))
    if chosen == "base":
        return SideFiles(files, "base", "base", disagreements, left)
    check_links(adapters[chosen])
    theirs = {name: adapters[chosen] / name for name in TOKENIZER_FILES if (adapters[chosen] / name).exists()}
    if not theirs:
        instead = "" if owner is not None else ", or --tokenizer base"
        raise AdapterError(f"adapter {chosen} carries no tokenizer; save it beside the adapter{instead}")
    kept = {name: path for name, path in files.items() if not of_tokenizer(name)}
    if (adapters[chosen] / TEMPLATES).is_dir():
        theirs |= {k: v for k, v in neighbours(adapters[chosen], frozenset()).files.items() if of_tokenizer(k)}
    generation = adapters[chosen] / GENERATION
    if generation.exists():
        theirs[GENERATION] = generation
    return SideFiles(kept | theirs, chosen, chosen if generation.exists() else "base", disagreements, left)


def of_tokenizer(name: str) -> bool:
    """Whether a file belongs to a tokenizer, its templates among it."""
    return name in TOKENIZER_FILES or name.startswith(f"{TEMPLATES}/")


def _template_owner(base: Path, adapters: Mapping[str, Path]) -> str:
    own = chat_template(base)
    templates = {name: chat_template(path) for name, path in adapters.items()}
    others = {name: text for name, text in templates.items() if text is not None and text != own}
    if len(set(others.values())) > 1:
        raise AdapterError(
            f"adapters {', '.join(others)} were trained with different chat templates; "
            "choose one with --tokenizer NAME (or base)"
        )
    return next(iter(others), "base")


def _disagreements(base: Path, adapters: Mapping[str, Path], chosen: str) -> list[str]:
    """What the sources say differently from the chosen one."""
    sources = {"base": base, **adapters}
    taken = sources.get(chosen, base)
    lines = []
    for name, path in sources.items():
        if path == taken:
            continue
        theirs, ours = chat_template(path), chat_template(taken)
        if theirs is not None and theirs != ours:
            lines.append(f"chat template: {chosen}'s is taken, {name}'s is another")
        for file, what in (("tokenizer.json", "tokenizer"), (GENERATION, "generation config")):
            both = (path / file).exists() and (taken / file).exists()
            if both and file_digest(path / file) != file_digest(taken / file):
                lines.append(f"{what}: {chosen}'s is taken, {name}'s is another")
    return lines


def copy_side_files(chosen: SideFiles, out: Path, changes: Mapping[str, Any]) -> None:
    """Copy the files; config.json is rewritten only where a field would no longer be true."""
    for name, source in chosen.files.items():
        if not os.access(source, os.R_OK):
            raise CheckpointError(f"{source} cannot be read: permission denied; it belongs to the checkpoint")
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / name)
    config = out / "config.json"
    if changes and config.exists():
        write_json(config, _changed(read_json(config), changes))


def _changed(config: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config with its fields changed where they stand: in the text part of a composed model, or on top."""
    inner = config.get("text_config")
    inside = {k: v for k, v in changes.items() if isinstance(inner, dict) and k in inner}
    outside = {k: v for k, v in changes.items() if k not in inside or k in config}
    return config | outside | ({"text_config": inner | inside} if inside and isinstance(inner, dict) else {})
