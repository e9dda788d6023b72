"""A base and adapters against each other: with the checks that merging, proof and evaluation have, each of its own."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from crossmatch.adapter import Adapter, Recorded, examine, open_vector
from crossmatch.checkpoint import (
    DTYPE_NAMES,
    TOKENIZER_FILES,
    Checkpoint,
    chat_template,
    input_embedding,
    locate,
    read_vocabulary,
)
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.turn_ends import declared_eos, turn_end
from crossmatch.errors import CrossmatchError
from crossmatch.evaluation.conditions import conditions_of
from crossmatch.evaluation.runner.template_check import trained_with
from crossmatch.merging import MergePlan, estimate, plan_merge, side_files
from crossmatch.merging.plan import check_bases
from crossmatch.report.text import count, size
from crossmatch.runtime import Progress, free_memory
from crossmatch.study.doctor.checkup import Line

# Bytes a parameter takes where a model is run: evaluation and analysis on a CPU compute in float32.
_RUN = 4


def base_and_adapters(base: str, paths: Mapping[str, str], progress: Progress) -> Iterator[Line]:
    """Lines on the base, on each adapter on it, and on all of them together."""
    directory = locate(base).path
    with progress.task("base"):
        try:
            checkpoint = Checkpoint(base)
        except CrossmatchError as error:
            yield from_error("base", error)
            return
        yield _base(base, checkpoint)
        yield from _room(checkpoint)
        yield from _text(checkpoint, directory)
    opened: dict[str, Recorded] = {}
    for name, path in paths.items():
        with progress.task(f"adapter {name}"):
            try:
                found = opened[name] = open_vector(path)
                yield from _adapter(base, checkpoint, name, found)
            except CrossmatchError as error:
                opened.pop(name, None)
                yield from_error(f"adapter {name}", error)
    if len(opened) == len(paths) and paths:
        yield from _together(checkpoint, opened)


def from_error(topic: str, error: CrossmatchError) -> Line:
    """What a check raised, as a fault: its message ends with what to do."""
    seen, _, remedy = str(error).removeprefix(f"{topic}: ").partition("; ")
    return Line(topic, "fault", seen, remedy)


def _base(name: str, base: Checkpoint) -> Line:
    dtypes = Counter(DTYPE_NAMES[info.dtype] for info in base.tensors.values())
    seen = f"{name}: {count(base.parameters)} parameters, {size(base.nbytes)}, {', '.join(dtypes)}"
    seen += ", output tied to the input embedding" if base.tied else ""
    if base.quantisation:
        remedy = "merge into the 16- or 32-bit checkpoint that it was made from, then quantise"
        return Line("base", "fault", f"{seen}; quantised ({base.quantisation}): no delta can be added exactly", remedy)
    return Line("base", "ok", seen)


def _room(base: Checkpoint) -> Iterator[Line]:
    """Memory to run it, and disk for a merged copy."""
    needed, free = base.parameters * _RUN, free_memory()
    if free is not None:
        tight = needed > 0.8 * free
        remedy = "evaluate on a larger machine or with --server; merging and proving need little" if tight else ""
        seen = f"running it takes about {size(needed)} (float32 on a CPU), {size(free)} are free"
        yield Line("memory to run", "warning" if tight else "ok", seen, remedy)
    disk = shutil.disk_usage(Path()).free
    if base.nbytes > 0.9 * disk:
        yield Line("disk", "warning", f"a merged copy takes {size(base.nbytes)}, {size(disk)} are free", "make room")


def _text(base: Checkpoint, directory: Path) -> Iterator[Line]:
    """Tokenizer, vocabulary, chat template, and where its turns end."""
    if not any((directory / file).is_file() for file in TOKENIZER_FILES):
        remedy = "save the tokenizer in the base's directory; merging and proving do without"
        yield Line("tokenizer", "warning", "the base has none: no training, no evaluation", remedy)
        return
    try:
        vocabulary, tokenizer = read_vocabulary(directory), open_tokenizer(directory)
    except CrossmatchError as error:
        yield from_error("tokenizer", error)
        return
    embedding = input_embedding(base.tensors)
    rows = base.tensors[embedding].shape[0] if embedding is not None else None
    highest = max((vocabulary or {}).values(), default=len(tokenizer) - 1)
    if rows is not None and highest >= rows:
        remedy = "take the tokenizer that this base was published with, or resize the embedding"
        yield Line("vocabulary", "fault", f"token {highest} has no row: the embedding has {rows}", remedy)
    else:
        yield Line("vocabulary", "ok", f"{len(tokenizer)} tokens, {rows if rows is not None else 'unknown'} rows")
    if tokenizer.chat_template is None:
        remedy = "SFT needs one: --set template=FILE.jinja; evaluate with --template chatml"
        yield Line("chat template", "warning", "the base has none", remedy)
        return
    end, declared = turn_end(tokenizer), declared_eos(directory, tokenizer)
    shown = ", ".join(repr(tokenizer.decode([number])) for number in (*end.ids, *end.following)) or repr(end.closing)
    if end.ids and not set(end.ids) & declared:
        remedy = "add it to eos_token_id in generation_config.json, or servers write on behind the answer"
        yield Line("turn end", "warning", f"turns end with {shown}, which is no declared end of sequence", remedy)
    elif not end.taught:
        remedy = "training adds an end of sequence to answers (turn_end: auto)"
        yield Line("turn end", "warning", "the template ends an answer with nothing to be learnt", remedy)
    else:
        yield Line("turn end", "ok", f"chat template there; turns end with {shown}")


def _adapter(given: str, base: Checkpoint, name: str, found: Recorded) -> Iterator[Line]:
    """Whether an adapter names this base, is whole, and lies on it."""
    topic = f"adapter {name}"
    plan = plan_merge(base, {name: (found, 1.0)}, allow_partial=False)
    check_bases(base, {name: found})
    fits = f"fits {plan.count('merge')} tensors of the base"
    if not isinstance(found, Adapter):
        yield Line(topic, "ok", f"a stored vector; {fits}")
        return
    kinds = ", ".join(sorted({DTYPE_NAMES[info.dtype] for info in found.files.tensors.values()}))
    yield Line(topic, "ok", f"whole; {fits}, rank {_ranks(found)}, {kinds}")
    yield from (Line(topic, "ok", remark) for remark in examine(found).remarks)
    yield _named_base(topic, given, base, found)


def _ranks(adapter: Adapter) -> str:
    ranks = sorted({adapter.config.rank(name.removesuffix(".weight")) for name in adapter})
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _named_base(topic: str, given: str, base: Checkpoint, found: Adapter) -> Line:
    """The base that the adapter's config names: the last part of a path or hub id is what can be compared."""
    named = found.config.base
    if not named:
        return Line(topic, "warning", "its config names no base", "make sure that it was trained on this one")
    if found.other_name(base) is None:
        return Line(topic, "ok", f"names {named} as its base")
    remedy = "make sure that both are the same model; shapes agree, but weights of another version would not tell"
    return Line(topic, "warning", f"names {named} as its base, and you gave {given}", remedy)


def _together(base: Checkpoint, adapters: Mapping[str, Recorded]) -> Iterator[Line]:
    """What shows only when all are merged: tied embeddings, vocabularies, tokenizers, templates, cost."""
    try:
        plan = plan_merge(base, {name: (found, 1.0) for name, found in adapters.items()})
        beside = side_files(plan, None)
    except CrossmatchError as error:
        yield from_error("together", error)
        return
    for line in beside.disagreements:
        yield Line("tokenizer", "warning", line, "choose with merge --tokenizer base or NAME")
    cost = estimate(plan)
    sentence = f"a merge writes {size(plan.nbytes)} in about {cost['seconds']:.0f} s with {size(cost['memory_bytes'])}"
    yield Line("together", "ok", f"{', '.join(adapters)} can be merged: {sentence} of memory")
    yield from _templates(base, plan)


def _templates(base: Checkpoint, plan: MergePlan) -> Iterator[Line]:
    """Whether adapters that have a training record will be asked as they were trained."""
    if chat_template(base.path) is None:
        return
    condition = conditions_of((), ())
    for name, alike in trained_with(base, plan.adapters, condition)[condition[0].name].items():
        if alike is False:
            remedy = "evaluate under the template of training: --template"
            yield Line(f"adapter {name}", "warning", "was trained with prompts of another form", remedy)
