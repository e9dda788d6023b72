"""From findings to a recipe: what is chosen, what is guessed, and the commented text."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmatch.checkpoint import Checkpoint, chat_template
from crossmatch.data.suites import load_suite
from crossmatch.errors import CrossmatchError, InputError, OutputError
from crossmatch.merging import plan_merge
from crossmatch.report.text import count
from crossmatch.results.start import InitJson
from crossmatch.runtime import SILENT, Progress
from crossmatch.study.init.findings import Findings, Questions, find
from crossmatch.study.init.recipe_text import Chosen, recipe_text, suite_text
from crossmatch.study.preflight import check_recipe
from crossmatch.study.recipe import load_recipe

RECIPE = "study.yaml"
# What trainers call the folders of their checkpoints.
_NO_NAME = re.compile(r"checkpoint-(\d+)|adapter|final|last|best", re.I)
# The weights of arXiv 2601.18350 for an adapter of documents and one of instructions.
_PAPER = {"pt": 0.3, "sft": 0.7}


@dataclass(frozen=True)
class Proposal:
    """output: the recipe that was written; written: it and suites beside it; found, guessed, left: lines for people."""

    output: Path
    written: tuple[Path, ...]
    found: tuple[str, ...]
    guessed: tuple[str, ...]
    left: tuple[str, ...]

    def to_dict(self) -> InitJson:
        """As plain JSON."""
        return {
            "schema_version": 1,
            "output": str(self.output),
            "written": [str(path) for path in self.written],
            "found": list(self.found),
            "guessed": list(self.guessed),
            "left_out": list(self.left),
        }


def init(directory: str | Path = ".", output: str | Path | None = None, *, progress: Progress = SILENT) -> Proposal:
    """Write a commented recipe for `crossmatch run` from what lies in a directory; nothing is ever overwritten.

    output: the recipe (None: study.yaml in the directory); paths in it are relative to the working directory. Files of
    questions that no suite names get a suite beside it. Raises InputError where there is no base, or nothing to merge
    into it, and OutputError where the recipe exists.

        >>> import crossmatch
        >>> proposal = crossmatch.init(".", "first.yaml")
        >>> proposal.output
        PosixPath('first.yaml')
    """
    home = Path(directory)
    out = Path(output) if output is not None else home / RECIPE
    if out.exists():
        raise OutputError(f"{out} exists and is not overwritten; give another name with -o")
    if output is not None and not out.parent.is_dir():
        raise OutputError(f"{out.parent} does not exist; give a file in a directory that does")
    with progress.task("look"):
        findings = find(home)
    guessed: list[str] = []
    left = [f"{_path(path)}: {reason}" for path, reason in findings.left.items()]
    suites = _write_suites(findings.questions, out, left)
    try:
        chosen = _choose(findings, suites, out.stem, guessed, left)
        _publish(out, recipe_text(chosen, guessed))
    except (CrossmatchError, OSError):
        for path in suites:
            path.unlink()
        raise
    return Proposal(out, (out, *suites), tuple(_found(findings, suites)), tuple(guessed), tuple(left))


def _write_suites(questions: Mapping[Path, Questions], out: Path, left: list[str]) -> list[Path]:
    """Suites beside the recipe for files of questions; of a file that cannot be asked it is said why."""
    places = {path: out.with_name(f"{path.name.partition('.')[0]}.suite.yaml") for path in questions}
    taken = next((place for place in places.values() if place.exists()), None)
    if taken is not None:
        raise OutputError(f"{taken} exists and is not overwritten; name it in a recipe, or move it")
    written = []
    for path, place in places.items():
        if place in written:
            left.append(f"{_path(path)}: another file of questions has this name; write a suite for it")
            continue
        with place.open("x", encoding="utf-8") as file:
            file.write(suite_text(path, questions[path], out))
        try:
            load_suite(place)
            written.append(place)
        except CrossmatchError as error:
            place.unlink()
            left.append(str(error))
    return written


def _publish(out: Path, text: str) -> None:
    """Write the recipe, unless it would be refused."""
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / RECIPE
        draft.write_text(text, encoding="utf-8")
        check_recipe(load_recipe(draft))
    with out.open("x", encoding="utf-8") as file:
        file.write(text)


def _choose(findings: Findings, suites: Sequence[Path], name: str, guessed: list[str], left: list[str]) -> Chosen:
    base = _base(findings, guessed)
    fitting = _fitting(findings, base, left)
    adapters = {name: {"path": _path(path)} for name, path in _named(fitting).items()}
    if adapters and findings.data:
        guessed.append("adapters are there, so nothing is trained; the data sets stand in the recipe as comments")
    trainable = []
    for one in findings.data:
        if one.stage == "sft" and chat_template(base) is None:
            left.append(f"{_path(one.path)}: SFT needs a chat template, which {_path(base)} does not have")
        else:
            trainable.append(one)
    if not adapters:
        for one in trainable:
            label = one.stage if sum(other.stage == one.stage for other in trainable) == 1 else _stem(one.path)
            adapters[label] = {"stage": one.stage, "data": _path(one.path)}
        if adapters:
            kinds = ", ".join(f"{label} on {parts['data']}" for label, parts in adapters.items())
            guessed.append(f"trained are {kinds}: documents as pt, dialogues as sft")
    if not adapters:
        raise InputError(f"no adapter and no training data were found beside {_path(base)}; nothing can be merged")
    weights = _weights(list(adapters), guessed)
    reference = next((label for label in adapters if "sft" in label.lower()), list(adapters)[-1])
    every = [_path(path) for path in (*findings.suites, *suites)]
    if every:
        guessed.append(f"the variants are compared with {reference}")
    merged = {name: _path(path) for name, path in _named(p for p in findings.merged if p != base).items()}
    unused = {name: _path(path) for name, path in _named(_unused(findings, base)).items()}
    why = "neither the base nor called a merge by a manifest; its line under checkpoints is a comment"
    left += [f"{path}: {why}" for path in unused.values()]
    spare: dict[str, dict[str, str]] = {}
    for one in trainable if fitting else ():
        label = f"mine-{len(spare) + 1}" if len(trainable) > 1 else "mine"
        spare[label] = {"stage": one.stage, "data": _path(one.path)}
    return Chosen(_name(name), _path(base), adapters, weights, reference, tuple(every), merged, unused, spare)


def _unused(findings: Findings, base: Path) -> list[Path]:
    """Checkpoints that are neither the base nor merges with a manifest, each once."""
    taken = {path.resolve() for path in (base, *findings.merged)}
    return list({path.resolve(): path for path in findings.checkpoints if path.resolve() not in taken}.values())


def _base(findings: Findings, guessed: list[str]) -> Path:
    """The checkpoint that the adapters name, or the only one that is no merge."""
    named = {adapter.config.base for adapter in findings.adapters.values() if adapter.config.base}
    places = [path for path in findings.checkpoints if path not in findings.merged]
    names = {Path(one).name for one in named}
    matching = [path for path in places if names & {path.absolute().name, path.resolve().name}]
    elsewhere = [Path(one) for one in named if (Path(one) / "config.json").is_file()]
    if len(places) == 1:
        return places[0]
    candidates = matching or elsewhere or places
    if not candidates:
        hint = f"; the adapters name {', '.join(sorted(map(str, named)))}: download it there" if named else ""
        raise InputError(f"no base was found: a directory with config.json and .safetensors files{hint}")
    why = "the adapters name it" if matching or elsewhere else f"the first of {len(candidates)} checkpoints"
    guessed.append(f"base is {_path(candidates[0])}: {why}")
    return candidates[0]


def _fitting(findings: Findings, base: Path, left: list[str]) -> list[Path]:
    """The adapters that can be merged into the base; of the others it is said why not."""
    checkpoint = findings.checkpoints.get(base) or Checkpoint(base)
    fitting = []
    last: dict[Path, int] = {}
    steps = {
        path: int(match[1]) for path in findings.adapters if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    for path, step in steps.items():
        last[path.parent] = max(step, last.get(path.parent, 0))
    for path, adapter in findings.adapters.items():
        if path in steps and steps[path] < last[path.parent]:
            left.append(f"{_path(path)}: an earlier checkpoint of the same training")
            continue
        try:
            plan_merge(checkpoint, {_name(path.name): (adapter, 1.0)})
            fitting.append(path)
        except CrossmatchError as error:
            left.append(f"{_path(path)}: {error}")
    return fitting


def _named(paths: Iterable[Path]) -> dict[str, Path]:
    """Paths by the name of their last folder that says something; where two have the same, of the folder above, too."""
    every = [path.absolute() for path in paths]
    shown = [path.parent.name if _NO_NAME.fullmatch(path.name) else path.name for path in every]
    count = Counter(shown)
    names = [
        name if count[name] == 1 else f"{path.parent.name}-{path.name}" for name, path in zip(shown, every, strict=True)
    ]
    return {_name(name): path for name, path in zip(names, every, strict=True)}


def _weights(names: Sequence[str], guessed: list[str]) -> dict[str, float]:
    stages = {
        name: next((stage for stage in _PAPER if stage in re.split(r"[._-]", name.lower())), None) for name in names
    }
    if sorted(map(str, stages.values())) == sorted(_PAPER):
        weights = {name: _PAPER[str(stage)] for name, stage in stages.items()}
        guessed.append("merge weights are those of arXiv 2601.18350: 0.3 pt, 0.7 sft")
    else:
        weights = {name: round(1 / len(names), 4) for name in names}
        guessed.append(f"merge weights are equal: {', '.join(f'{w:g} {name}' for name, w in weights.items())}")
    return weights


def _found(findings: Findings, suites: Iterable[Path]) -> list[str]:
    lines = [f"checkpoint {_path(path)}: {count(c.parameters)} parameters" for path, c in findings.checkpoints.items()]
    lines += [f"adapter {_path(path)}, base {a.config.base or 'not named'}" for path, a in findings.adapters.items()]
    what = {"pt": "documents", "sft": "dialogues"}
    lines += [f"data {_path(one.path)}: {one.rows:,} {what[one.stage]}" for one in findings.data]
    lines += [f"suite {_path(path)}: {name}" for path, name in findings.suites.items()]
    lines += [f"questions {_path(path)}: {one.kind}" for path, one in findings.questions.items()]
    return lines + [f"written: suite {_path(path)}" for path in suites]


def _path(path: Path) -> str:
    """As it was found, links included; relative to the working directory where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _stem(path: Path) -> str:
    return _name(path.name.partition(".")[0])


def _name(text: str) -> str:
    """As a name of the recipe: letters, digits, '_', '.', '-', the first a letter or a digit."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("_.-") or "study"
