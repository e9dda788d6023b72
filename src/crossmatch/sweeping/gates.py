"""What gates foretell of changes of a merge, from a few search items; kept in a file, so that it is found once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from crossmatch.analysis.attribution.gate_gradients import gate_path, mean, shares
from crossmatch.analysis.attribution.gated_model import Instrumented
from crossmatch.checkpoint import read_json, value_digest
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.passages import read_text
from crossmatch.data.suites import Suite
from crossmatch.data.token_classes import Text, read_texts
from crossmatch.errors import CrossmatchError, DataError, InputError
from crossmatch.result_kinds import SWEEP_GATES
from crossmatch.rules import weight_at
from crossmatch.runtime import Progress
from crossmatch.sweeping.board import Source
from crossmatch.sweeping.changes import Change
from crossmatch.sweeping.metrics import Measure, of_traces
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.space import Point

FILE = "gates.json"
# Items that are read, tokens of one, and nodes of the quadrature.
_ITEMS, _TOKENS, _NODES = 16, 1024, 5


@dataclass(frozen=True)
class Faulty:
    """A merge, its adapters that may be changed, and the measure in which it is wrong."""

    point: Point
    guests: tuple[str, ...]
    fault: Measure


@dataclass(frozen=True)
class Foretold:
    """Integrated gates of a merge's adapters. suite, items: whose answers; target: `loss`, or `odds` of a trace, in
    nats; modules: adapter -> tensor -> what it adds to the target, from the merge without the adapter on."""

    suite: str
    items: int
    target: str
    modules: Mapping[str, Mapping[str, float]]

    def change(self, target: Point, change: Change) -> float | None:
        """By how much a change should move the target, to first order of the integrated gates; None for another rule:
        gates are of weights."""
        if change.point.recipe != target.recipe:
            return None
        before, after = (point.weights[change.guest] for point in (target, change.point))
        return sum(
            (weight_at(after, name) / weight - 1) * added
            for name, added in self.modules[change.guest].items()
            if (weight := weight_at(before, name))
        )


def foretell(
    source: Source, merge: Faulty, search: Part, out: Path, make_room: Callable[[], None], progress: Progress
) -> Foretold:
    """Integrate the gates of each guest on search items of the fault's suite, or of another that has answers.

    make_room: called before a model is loaded. Raises InputError or DataError where there can be no gates: for another
    rule than the sum, adapters that change more than linear modules, suites without answers.
    """
    if merge.point.recipe.rule != "linear":
        raise InputError(f"gates are of sums, not of rule {merge.point.recipe.rule}")
    names = [merge.fault.suite, *(name for name in source.suites if name != merge.fault.suite)]
    used = next((name for name in names if source.suites[name].settings.kind != "instructions"), None)
    if used is None:
        raise InputError("no suite has answers whose likelihood gates could change")
    suite, ids = source.suites[used], search.ids[used][:_ITEMS]
    wanted = "odds" if of_traces(merge.fault.metric) else "loss"
    models = merge.point.variant.digest(source.base, source.adapters)
    key = value_digest([models, suite.digest, list(ids), wanted, list(merge.guests), _NODES])
    known = _kept(out / FILE, key)
    if known is None:
        texts = _texts(open_tokenizer(source.base.path), suite, ids)
        make_room()
        known = {"suite": used, "items": len(ids), **_integrated(source, merge, texts, wanted, progress)}
        SWEEP_GATES.replace(out / FILE, cast(Any, {"schema_version": 1, "key": key, **known}))
    return Foretold(known["suite"], known["items"], known["target"], known["modules"])


def _kept(file: Path, key: str) -> dict[str, Any] | None:
    try:
        found = read_json(file)
    except CrossmatchError:
        return None
    return found if found.get("key") == key else None


def _texts(tokenizer: Any, suite: Suite, ids: Sequence[str]) -> list[Text]:
    """Items with their right answers, each with its probe for a trace; of texts all but the first token is scored."""
    items = [item for item in suite.items if item.id in ids]
    if suite.settings.kind == "text":
        read = [read_text(tokenizer, item.question, _TOKENS)[0].ids for item in items]
        return [Text(one, ("opener", *["answer"] * (len(one) - 1))) for one in read if len(one) > 1]
    answers = [(item, suite.solution(item)) for item in items]
    dialogues = [[*suite.messages(i), {"role": "assistant", "content": text}] for i, text in answers if text]
    return read_texts(tokenizer, dialogues, max_length=_TOKENS)


def _integrated(
    source: Source, merge: Faulty, texts: Sequence[Text], wanted: str, progress: Progress
) -> dict[str, Any]:
    if not texts:
        raise DataError("no search item has an answer")
    share = shares(texts)
    aim = wanted if wanted in share else "loss"
    with progress.task("load model") as loading:
        weights = merge.point.weights
        model = Instrumented(source.base, {name: source.adapters[name] for name in weights}, weights)
        loading.advance()
    modules = {}
    for guest in merge.guests:
        path = gate_path(model, texts, model.adapters.index(guest), nodes=_NODES, progress=progress)
        values = [mean(row, share[aim]).value or 0.0 for row in path.integrated]
        modules[guest] = {site.name: value for site, value in zip(model.sites, values, strict=True) if value}
    return {"target": aim, "modules": modules}
