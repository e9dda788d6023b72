"""What transformers calls the tensors of a file when it loads them, by the class of the model.

A file and the model in memory do not always use the same names: prefixes come and go, parts were renamed, text models
are cut out of larger ones. transformers holds all of that in its tables; `naming.json` is a copy of them, so that they
need not be imported where files alone decide.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("naming.json")
# Fields of a config that hold that of the text model inside a larger one.
_TEXT_PARTS = ("language_model.", "text_model.")
_INNER = ("text_config", "llm_config", "language_config", "thinker_config")


@dataclass(frozen=True)
class Renaming:
    """One renaming of transformers: the first match of a pattern is replaced, in names below a prefix if one is given.

    pattern: a branch `g0`, `g1`, ... for each source; targets: what takes the place of a match, one for all branches
    or one for each; scope: the submodule whose names alone are meant; grouped: no branch counts in a file in which
    nothing matches the first; offset: added to a number that is kept.
    """

    pattern: str
    targets: tuple[str, ...]
    scope: str | None = None
    grouped: bool = False
    offset: int = 0

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The pattern, ready to be searched for."""
        return re.compile(self.pattern)

    def __call__(self, name: str, prefix: str) -> str:
        """The name after this renaming; prefix: the class's base_model_prefix, with which a scope may begin or not."""
        inside = ""
        if self.scope is not None:
            scope = f"{self.scope}." if self.scope else ""
            outer = f"{prefix}." if prefix else ""
            inside = next((s for s in (outer + scope, scope) if name.startswith(s)), None)
            if inside is None:
                return name
        rest = name.removeprefix(inside)
        match = self.compiled.search(rest)
        if match is None or (match.lastgroup is None and not match.groupdict()):
            return name
        return inside + rest.replace(match.group(0), self._replacement(match), 1)

    def _replacement(self, match: re.Match[str]) -> str:
        branch = next(key for key, value in match.groupdict().items() if value is not None)
        target = self.targets[min(int(branch[1:]), len(self.targets) - 1)]
        first = self.compiled.groupindex[branch]

        def kept(found: re.Match[str]) -> str:
            text = match.group(first + int(found[1])) or ""
            return str(int(text) + self.offset) if self.offset else text

        return re.sub(r"\\(\d)", kept, target)


@dataclass(frozen=True, eq=False)
class Naming:
    """The names of one class of transformers.

    prefix: of its base model, which files of the base model alone lack; renames: applied in order; experts: parameters
    that hold all experts -> what single experts' matrices are called in the file, in order; ignored: patterns of names
    that it passes over when it loads; tied: pattern of a name -> of the one whose tensor it shares; parts: its
    parameters' first two names (none: not known); outer: the class of a larger model, whose text model this one is.
    """

    name: str
    prefix: str = ""
    renames: tuple[Renaming, ...] = ()
    experts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ignored: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    outer: "Naming | None" = None

    def model_name(self, name: str) -> str:
        """What a tensor of a file is called in the model, but for the prefix, which may be there or not."""
        for rename in self.renames:
            name = rename(name, self.prefix)
        return name

    def bare(self, name: str) -> str:
        """A name of the model without the prefix of its base model."""
        return name.removeprefix(f"{self.prefix}.") if self.prefix else name

    def key(self, name: str) -> str:
        """By what two tensors of files are the same one of the model."""
        if self.outer is not None:
            whole = self.outer.key(name)
            inside = next((whole.removeprefix(part) for part in _TEXT_PARTS if whole.startswith(part)), None)
            name = whole if whole.startswith("lm_head.") else inside or name
        return self.bare(self.model_name(name))

    def keys(self, names: Iterable[str]) -> dict[str, str]:
        """key -> the name that has it, of names that lie in one file; without keys that two of them have."""
        found: dict[str, str | None] = {}
        for name in names:
            key = self.key(name)
            found[key] = None if key in found else name
        return {key: name for key, name in found.items() if name is not None}

    def ignores(self, name: str) -> bool:
        """Whether the class passes over a tensor of a file."""
        return any(re.search(pattern, n) for pattern in self.ignored for n in {name, self.model_name(name)})

    def full(self, name: str) -> str | None:
        """The whole name in the model of a tensor of a file; None if no part of the model is called so."""
        bare = self.key(name)
        whole = f"{self.prefix}.{bare}" if self.prefix else bare
        if not self.parts:
            return whole
        return next((n for n in (whole, bare) if ".".join(n.split(".")[:2]) in self.parts), None)

    def shares(self, first: str, second: str) -> bool:
        """Whether the class has one tensor under both names of a file, where its config ties them."""
        ours, theirs = self.key(first), self.key(second)
        pairs = [(self.bare(a.removeprefix("^")), self.bare(b.removeprefix("^"))) for a, b in self.tied.items()]
        return any(
            (re.fullmatch(a, x) and re.fullmatch(b, y)) for a, b in pairs for x, y in ((ours, theirs), (theirs, ours))
        )


def namings(config: Mapping[str, Any]) -> tuple[Naming, ...]:
    """The classes that a checkpoint may be loaded as, by its config.json: the one that it names first, then the others
    of its type, then those of the text model inside it. None for a model that is not transformers' own."""
    named = config.get("architectures")
    first = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    whole = _known((*first, *_classes(config)))
    inner = _known(name for key in _INNER for name in _classes(config.get(key)))
    cut = (replace(naming, outer=whole[0]) for naming in inner) if whole else ()
    return (*dict.fromkeys((*whole, *inner)), *cut)


def _classes(config: object) -> Iterator[str]:
    """The classes of a config's type."""
    kind = config.get("model_type") if isinstance(config, dict) else None
    yield from _table()["types"].get(kind, ()) if isinstance(kind, str) else ()


def _known(names: Iterable[str]) -> tuple[Naming, ...]:
    found = (_naming(name) for name in dict.fromkeys(names))
    return tuple(naming for naming in found if naming is not None)


def same_tensors(
    ours: Collection[str], theirs: Collection[str], classes: Iterable[Naming]
) -> tuple[dict[str, str], Naming | None]:
    """Names of ours that lack a namesake in theirs -> the name there under which a class loads the same tensor.

    The class that makes most of them meet is taken, and returned too.
    """
    mine, yours = [n for n in ours if n not in theirs], [n for n in theirs if n not in ours]
    best: dict[str, str] = {}
    taken: Naming | None = None
    if not mine or not yours:
        return best, taken
    for naming in classes:
        here, there = naming.keys(mine), naming.keys(yours)
        found = {name: there[key] for key, name in here.items() if key in there}
        if len(found) > len(best):
            best, taken = found, naming
    return best, taken


def ties_by_default(config: Mapping[str, Any]) -> bool:
    """Whether a config that says nothing of it ties the embeddings, because its class does."""
    text = config.get("text_config")
    inner = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    undeclared = config.get("tie_word_embeddings", inner) is None
    return undeclared and config.get("model_type") in _table()["ties"]


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def _naming(name: str) -> Naming | None:
    table = _table()
    entry = table["classes"].get(name)
    if entry is None:
        return None
    renames = [_renaming(raw) for raw in (*entry.get("renames", ()), *table["legacy"])]
    return Naming(
        name,
        entry.get("prefix", ""),
        tuple(renames),
        tuple((parameter, tuple(leaves)) for parameter, leaves in entry.get("experts", ())),
        tuple(entry.get("ignored", ())),
        entry.get("tied", {}),
        frozenset(entry.get("parts", ())),
    )


def _renaming(raw: list[Any]) -> Renaming:
    pattern, targets, scope, grouped, offset = raw
    return Renaming(pattern, tuple(targets), scope, grouped, offset)
