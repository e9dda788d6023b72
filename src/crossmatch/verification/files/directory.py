"""Everything about a merged directory that is not a weight: is it what the adapters were trained with?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import INDEX, SINGLE, Checkpoint, input_embedding
from crossmatch.checkpoint.quantisation import quantised_as
from crossmatch.delta import TuningVector
from crossmatch.errors import CheckpointError
from crossmatch.verification.files.chat_template import TemplateChange, Templates, compare_templates, endings
from crossmatch.verification.files.config import compare_configs, stale_tie
from crossmatch.verification.files.config_claims import remarks, stale_quantisation
from crossmatch.verification.files.generation_config import (
    Ends,
    changed_generation,
    disagreements,
    ends,
    vocabulary_defects,
)
from crossmatch.verification.files.loaded_tokenizer import loaded_differences
from crossmatch.verification.files.other_files import look_beside
from crossmatch.verification.files.side_files import Side, read_side
from crossmatch.verification.files.token_rows import lost_tokens
from crossmatch.verification.files.tokenizer import Encoders, slow_differences
from crossmatch.verification.verdict import Finding

T = TypeVar("T")
_SHOWN = 3
# Weights that are not those verified. Without an index servers read all shards that they find; Mistral's own format
# comes before the others where a server knows it; Meta's needs params.json.
_OTHER_FORMAT = ("consolidated*.safetensors",)
_READ_TOGETHER = ("model*.safetensors", *_OTHER_FORMAT)
_WITH_PARAMS = ("consolidated*.pt", "consolidated*.pth")
_WEIGHTS = (
    *("*.safetensors", "pytorch_model*", "consolidated*", "tf_model*.h5", "flax_model*.msgpack"),
    *("*.gguf", "*.onnx"),
)
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.*")


@dataclass(frozen=True)
class Directory:
    """What a look at the small files has shown: faults, ids of notes, what was compared, and what could not be, each
    with the reason after a colon; noted: note -> what was seen of it."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]
    noted: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Report:
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    noted: dict[str, str] = field(default_factory=dict)

    def fault(self, name: str, where: Sequence[str], evidence: Sequence[str]) -> None:
        """Add a finding with a few of its sentences."""
        more = f"; and {len(evidence) - _SHOWN} more" if len(evidence) > _SHOWN else ""
        self.findings.append(Finding(name, tuple(where), "; ".join(evidence[:_SHOWN]) + more))

    def note(self, name: str, seen: Sequence[str]) -> None:
        """Add a note with a few of the things that were seen."""
        more = f" and {len(seen) - 2 * _SHOWN} more" if len(seen) > 2 * _SHOWN else ""
        self.notes.append(name)
        self.noted[name] = "; ".join(seen[: 2 * _SHOWN]) + more


@dataclass(frozen=True)
class _Sides:
    """The merged directory, the base, and whose tokenizer and template may be in it."""

    merged: Side
    base: Side
    tokenizers: tuple[Side, ...]
    templates: tuple[Side, ...]
    generations: tuple[Side, ...]
    adapters: tuple[Side, ...] = ()

    @property
    def all(self) -> tuple[Side, ...]:
        """Each once, the merged one first."""
        sides = (self.merged, self.base, *self.tokenizers, *self.templates, *self.adapters)
        return tuple({side.name: side for side in sides}.values())


def inspect_directory(
    merged: Checkpoint,
    base: Checkpoint,
    vectors: Mapping[str, TuningVector],
    source: str | None = None,
    placed: Sequence[TuningVector] = (),
) -> Directory:
    """Compare a merged directory's small files with those it should have.

    source: the adapter whose tokenizer and template were taken, or `base`; None: those of the adapters that have them,
    else the base's; placed: what was merged, by the base's tensor names, to see whose rows were trained. No file's
    content raises anything; no model code runs, no template outside its sandbox.
    """
    report = _Report()
    sides = _sides(merged, base, vectors, source, report)
    templates = Templates()
    # All at once, so that every tokenizer is loaded once, for all the texts.
    for side in (*sides.templates, sides.base):
        for name in ("default", *side.templates):
            templates.of(sides.merged, side, name)
            templates.of(side, sides.merged, name)
    encoders = Encoders(sides.all, templates.texts())
    _tokenizer(sides, encoders, report)
    _template(sides, templates, encoders, report)
    stops = _ends(sides, templates, encoders, report)
    _generation(sides, stops, report)
    _vocabulary(merged, base, sides, encoders, report)
    _tokens(vectors, placed, base, sides, encoders, report)
    _config(merged, base, report)
    _dtypes(merged, base, report)
    _files(merged, report)
    _beside(merged, base, report)
    return Directory(
        tuple(report.findings),
        tuple(dict.fromkeys(report.notes)),
        tuple(report.checked),
        tuple(report.not_checked),
        report.noted,
    )


def _sides(
    merged: Checkpoint, base: Checkpoint, vectors: Mapping[str, TuningVector], source: str | None, report: _Report
) -> _Sides:
    mine, ours = read_side("the merge", merged.path, merged.config), read_side("base", base.path, base.config)
    adapters = {n: read_side(f"adapter {n}", v.path) for n, v in vectors.items() if isinstance(v, Recorded)}
    if source not in (None, "base") and source not in adapters:
        # It may come from a manifest, which is a claim as any other.
        report.notes.append("source-unknown")
        source = None
    wanted = [] if source == "base" else [a for n, a in adapters.items() if source in (None, n)]
    templates = [a for a in wanted if "default" in a.templates]
    # An adapter that only carries the base's template along was not trained with another.
    own = [a for a in templates if a.templates["default"] != ours.templates.get("default")]
    return _Sides(
        mine,
        ours,
        tuple(a for a in wanted if a.has_tokenizer) or (ours,),
        tuple(own or templates) or (ours,),
        (*(a for a in wanted if a.generation is not None), ours),
        tuple(a for a in adapters.values() if a.has_tokenizer),
    )


def _best(sources: Sequence[Side], compare: Callable[[Side], T], size: Callable[[T], int]) -> tuple[Side, T]:
    """The source that comes nearest."""
    found = [(side, compare(side)) for side in sources]
    return min(found, key=lambda pair: size(pair[1]))


def _tokenizer(sides: _Sides, encoders: Encoders, report: _Report) -> None:
    merged = sides.merged
    sources = [side for side in sides.tokenizers if side.has_tokenizer]
    if not sources:
        report.not_checked.append("tokenizer: neither base nor adapters have one")
        return
    usable = [side for side in sources if encoders.of(side) is not None]
    if not usable and (error := next(filter(None, map(encoders.error, sources)), None)):
        report.not_checked.append(f"tokenizer: the source's cannot be loaded: {error}")
        return
    if usable:
        side, found = _best(usable, lambda s: encoders.differences(merged, s), len)
        report.checked.append("tokenizer")
        disagree = any(encoders.differences(usable[0], other) for other in usable[1:])
    else:
        side, found = _best(sources, lambda s: slow_differences(merged, s), len)
        report.not_checked.append("tokenizer: slow tokenizer without tokenizer.json, compared by digest only")
        disagree = any(slow_differences(sources[0], other) for other in sources[1:])
    if disagree:
        report.notes.append("sources-disagree")
    broken = [f"{n} cannot be read: {merged.broken[n]}" for n in _TOKENIZER_PARTS if n in merged.broken]
    # What a loader does with tokenizer.json, and whose code it runs.
    own = (key for key in ("auto_map", "split_special_tokens") if merged.tokenizer.get(key))
    broken += [f"tokenizer_config.json sets {key}" for key in own if merged.tokenizer[key] != side.tokenizer.get(key)]
    if not (found or broken):
        found, unknown = loaded_differences(merged, side, encoders)
        if unknown is not None:
            report.not_checked.append(f"tokenizer settings: {unknown}")
    if found or broken:
        lines = broken + [f"against {side.name}: {line}" for line in found]
        report.fault("tokenizer-changed", [*merged.broken] or ["tokenizer.json" if usable else "tokenizer"], lines)
    elif other := encoders.rewritten(merged, side):
        report.note("tokenizer-rewritten", [f"{part}, against {side.name}" for part in other])


_TOKENIZER_PARTS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def _template(sides: _Sides, templates: Templates, encoders: Encoders, report: _Report) -> None:
    merged = sides.merged
    if merged.hidden:
        report.notes.append("two-chat-templates")
    sources = [side for side in sides.templates if "default" in side.templates]
    if not sources:
        if "default" in merged.templates:
            report.notes.append("chat-template-added")
        report.not_checked.append("chat_template: neither base nor adapters have one")
        return
    encoder = next((e for side in (*sources, sides.base, merged) if (e := encoders.of(side)) is not None), None)

    def same(first: str, second: str) -> bool:
        ids = encoder.ids.get(first) if encoder is not None else None
        return ids is not None and encoder is not None and ids == encoder.ids.get(second)

    def compare(source: Side) -> TemplateChange:
        return compare_templates(merged, source, templates, same)

    side, found = _best(sources, compare, lambda change: change.size)
    report.checked.append("chat_template")
    if any(compare_templates(sources[0], other, templates, same).size for other in sources[1:]):
        report.notes.append("sources-disagree")
    known = {name for one in (*sources, sides.base) for name in one.templates}
    if extra := sorted({*merged.templates} - known):
        where = f"{', '.join(extra)}: in the merge alone; loaders take a template by its name, tool_use with any tools"
        report.fault("chat-template-changed", ["chat_template"], [where])
    if found.lost:
        broken = [
            f"{n} cannot be read: {why}" for n, why in merged.broken.items() if n.endswith((".jinja", "config.json"))
        ]
        report.fault("chat-template-changed", ["chat_template"], broken or [f"{side.name} has one, the merge has none"])
    if found.think:
        report.fault("think-template-mismatch", ["chat_template"], found.think)
    if found.turns:
        report.fault("chat-template-changed", ["chat_template"], [f"against {side.name}: {t}" for t in found.turns])
    if found.rewritten and not found.size:
        report.note("chat-template-rewritten", [f"{found.rewritten} dialogues, against {side.name}"])


def _ends(sides: _Sides, templates: Templates, encoders: Encoders, report: _Report) -> Ends:
    def of(side: Side, other: Side) -> tuple[Side, Sequence[str]]:
        rendered = templates.of(side, other)
        return side, endings(rendered) if rendered else ()

    (_, mine), (_, ours) = of(sides.merged, sides.base), of(sides.base, sides.merged)
    merged = ends(sides.merged, encoders.of(sides.merged), mine)
    base = ends(sides.base, encoders.of(sides.base), ours)
    # An adapter's template is judged by what stops the base, or itself.
    trained = [
        ends(read, encoders.of(side) or encoders.of(sides.base), of(side, sides.merged)[1])
        for side in sides.templates
        if side is not sides.base
        for read in (side if side.generation is not None else _with_generation(side, sides.base),)
    ]
    found = disagreements(merged, [base, *trained])
    if merged.effective or merged.token is not None:
        report.checked.append("eos")
    else:
        report.not_checked.append("eos: no end of sequence is declared")
    if found and set(found) <= set(disagreements(base, [base])):
        report.notes.append("eos-mismatch-in-base")
    elif found:
        report.fault("eos-mismatch", ["eos_token_id"], found)
    return merged


def _with_generation(side: Side, base: Side) -> Side:
    return Side(side.name, side.path, base.config, base.generation, side.tokenizer, side.specials)


def _generation(sides: _Sides, stops: Ends, report: _Report) -> None:
    merged = sides.merged
    name = "generation_config.json"
    if name in merged.broken:
        report.fault("generation-config-changed", [name], [f"it cannot be read: {merged.broken[name]}"])
        return
    if name in sides.base.broken and len(sides.generations) == 1:
        report.not_checked.append(f"generation_config: the base's cannot be read: {sides.base.broken[name]}")
        return
    report.checked.append("generation_config")
    eos = frozenset((*(stops.turn or ()), *(stops.token or ("",))[1:]))
    side, fields = _best(sides.generations, lambda s: changed_generation(merged, s, eos), len)
    if fields:
        gone = " (the file is missing)" if merged.generation is None else ""
        report.fault("generation-config-changed", fields, [f"{', '.join(fields)}: other than in {side.name}{gone}"])


def _vocabulary(merged: Checkpoint, base: Checkpoint, sides: _Sides, encoders: Encoders, report: _Report) -> None:
    def defects(checkpoint: Checkpoint, side: Side) -> list[str]:
        name = input_embedding(checkpoint.tensors)
        rows = next(iter(checkpoint.tensors[name].shape), 0) if name is not None else None
        return vocabulary_defects(checkpoint.config, rows, encoders.of(side))

    entrance = input_embedding(merged.tensors)
    if entrance is None:
        report.not_checked.append("vocabulary: no input embedding was recognised")
        return
    if encoders.of(sides.merged) is None:
        report.not_checked.append("vocabulary: there is no tokenizer.json that can be loaded")
    else:
        report.checked.append("vocabulary")
    found = defects(merged, sides.merged)
    if found and set(found) <= set(defects(base, sides.base)):
        report.notes.append("vocab-mismatch-in-base")
    elif found:
        report.fault("vocab-mismatch", [entrance, "vocab_size"], found)


def _tokens(
    vectors: Mapping[str, TuningVector],
    placed: Sequence[TuningVector],
    base: Checkpoint,
    sides: _Sides,
    encoders: Encoders,
    report: _Report,
) -> None:
    mine = encoders.of(sides.merged)
    if mine is None or not placed:
        return
    known = {side.name: found for side in sides.adapters if (found := encoders.of(side)) is not None}
    trained, idle = lost_tokens(mine, known, placed, base)
    if trained:
        report.fault("trained-tokens-lost", ["tokenizer"], trained)
    if idle:
        report.note("added-tokens-not-taken", idle)


def _dtypes(merged: Checkpoint, base: Checkpoint, report: _Report) -> None:
    """Floating numbers of the base that are stored as numbers of another kind: what was behind the point is gone."""
    if quantised_as({}, merged.tensors) is not None:
        return  # Whole numbers beside their scales.
    whole = [
        name
        for name, info in merged.tensors.items()
        if not info.dtype.is_floating_point and name in base.tensors and base.tensors[name].dtype.is_floating_point
    ]
    if whole:
        stored = str(merged.tensors[whole[0]].dtype).removeprefix("torch.")
        report.fault("dtype-changed", whole, [f"stored as {stored}, the base has floating numbers"])


def _beside(merged: Checkpoint, base: Checkpoint, report: _Report) -> None:
    faults, notes = look_beside(merged, base)
    for name, seen in faults.items():
        report.fault(name, [line.split(" ")[0] for line in seen], seen)
    for name, seen in notes.items():
        report.note(name, [*seen, *filter(None, [report.noted.get(name)])])


def _config(merged: Checkpoint, base: Checkpoint, report: _Report) -> None:
    report.checked.append("config")
    found = compare_configs(merged.config, base.config)
    left = stale_quantisation(merged)
    if found.changed or left:
        fields = dict.fromkeys([*(change.field for change in found.changed), *left])
        report.fault("config-changed", list(fields), [*map(str, found.changed), *left.values()])
    if found.other:
        report.note("config-fields-differ", [*map(str, found.other)])
    if found.unresolved is not None:
        report.not_checked.append(f"config: compared field by field: {found.unresolved}")
    for note, seen in remarks(merged, base).items():
        report.note(note, [seen])
    try:
        tied = stale_tie(merged)
    except CheckpointError as error:
        report.not_checked.append(f"tie: {error}")
        return
    if tied is not None:
        report.fault("tie-flag-stale", tied, ["the config ties them, and their bytes differ"])


def _files(merged: Checkpoint, report: _Report) -> None:
    """Files that a loader would take though they are not the merge."""
    report.checked.append("weight_files")
    adapter = _names(merged.path, _ADAPTER_FILES)
    if adapter:
        report.fault("adapter-left-behind", sorted(adapter), ["loaders attach it to the merge"])
    loaded = {file.name for file in merged.layout.files}
    others = _names(merged.path, _WEIGHTS) - loaded - adapter
    # Where there is an index, servers keep to it.
    taken = others & _names(merged.path, _OTHER_FORMAT if merged.layout.index is not None else _READ_TOGETHER)
    if (merged.path / "params.json").is_file():
        taken |= others & _names(merged.path, _WITH_PARAMS)
    if (merged.path / SINGLE).is_file() and (merged.path / INDEX).is_file():
        taken.add(INDEX)
    if taken:
        report.fault("two-weight-sets", sorted(taken), ["other loaders take these, alone or together with the merge"])
    if others - taken:
        report.note("other-weights-beside", sorted(others - taken))


def _names(path: Path, patterns: Sequence[str]) -> set[str]:
    return {file.name for pattern in patterns for file in path.glob(pattern) if file.is_file() or file.is_symlink()}
