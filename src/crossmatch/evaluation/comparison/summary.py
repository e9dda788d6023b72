"""From records to figures: every metric with n and interval, every difference paired, tested and adjusted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from crossmatch.data.suites import Suite
from crossmatch.errors import DataError
from crossmatch.evaluation.comparison.bleu_decomposition import fall_parts, length_parts
from crossmatch.evaluation.comparison.combination import Combination, combination_section
from crossmatch.evaluation.comparison.criticality import criticality, strength_curves
from crossmatch.evaluation.comparison.divergence import divergence_rows
from crossmatch.evaluation.comparison.paired import difference, figure, pooled
from crossmatch.evaluation.conditions import OWN, Condition
from crossmatch.evaluation.metrics.choice_accuracy import flips
from crossmatch.evaluation.metrics.metrics import CHOICE, GENERATED, SURFACE, Measured, measure, signatures
from crossmatch.evaluation.record import Records
from crossmatch.evaluation.variants.variants import APART, Variant, control_of, nulls_of
from crossmatch.results.figures import DifferenceJson
from crossmatch.results.record import RecordJson
from crossmatch.results.summary import (
    AGAINST,
    FALL_PARTS,
    EntryJson,
    FailedItemsJson,
    FallJson,
    FlipsJson,
    SuiteResultJson,
    SummaryJson,
    VariantJson,
)
from crossmatch.rules import weight_json
from crossmatch.statistics.estimates import Figure
from crossmatch.statistics.multiple_tests import holm
from crossmatch.statistics.resampling import paired_contrast, paired_difference

Row = TypeVar("Row", FlipsJson, FallJson)
NONE = Figure(None, None, None, 0)


def summarise(
    records: Records,
    variants: Sequence[Variant],
    suites: Sequence[Suite],
    reference: str,
    *,
    conditions: Sequence[Condition] = OWN,
    clean: Mapping[str, set[str]] | None = None,
    combination: Combination | None = None,
) -> SummaryJson:
    """Figures of every variant, suite and condition; paired differences against `reference` (a variant's name) and
    against the base, and of a merge against its scale-matched control and against its random nulls, pooled.

    All variants must have answered the same items; that is checked. An item that somebody did not answer counts for
    nobody's figures, and such a suite is marked incomplete and has no differences. clean: suite -> ids of the items
    that no training data touch; their figures are given beside. Differences are adjusted (Holm) over the variants and
    suites of one metric and condition; strengths and removals are families of their own. combination: sums of vectors
    to be judged. Returns plain JSON.
    """
    result: SummaryJson = {"schema_version": 3, "reference": reference, "variants": {}, "conditions": {}}
    for variant in variants:
        result["variants"][variant.name] = _variant(variant)
    scored: dict[str, _Tables] = {}
    for condition in conditions:
        tables = _Tables(records, variants, reference, condition)
        # Options are scored under the first decoding of a template.
        first = scored.setdefault(condition.template.name, tables)
        found = {s.settings.name: tables.suite(s) for s in suites if tables.has(s)}
        for suite in suites:
            kept = (clean or {}).get(suite.settings.name)
            if kept and suite.settings.name in found:
                found[suite.settings.name]["clean"] = tables.suite(suite, kept)
        groups = [[v.name for v in variants if v.kind == kind] for kind in APART]
        for family in [*groups, [v.name for v in variants if v.kind not in APART]]:
            _adjust(found, family)
            _adjust({name: suite["clean"] for name, suite in found.items() if "clean" in suite}, family)
        result["conditions"][condition.name] = {
            "template": condition.template.name,
            "decoding": condition.decoding_name,
            "seeds": len(condition.seeds),
            "suites": found,
            "divergence": divergence_rows(tables.answered(suites), first.answered(suites), tables.pairs),
        }
        here, measured = result["conditions"][condition.name], tables.answered(suites)
        # Sections that were not asked for are left out.
        if curves := strength_curves(variants, found):
            here["strengths"] = curves
        if costs := criticality(variants, measured):
            here["critical"] = costs
        if combination and (sums := combination_section(combination, variants, measured)):
            here["combination"] = sums
    return result


def _variant(variant: Variant) -> VariantJson:
    weights = {name: weight_json(weight) for name, weight in variant.weights.items()}
    facts: VariantJson = {"kind": variant.kind, "weights": weights, "note": variant.note or None}
    if variant.nulls:
        facts["nulls"] = [null.to_dict() for null in variant.nulls]
    return facts


class _Tables:
    """The figures of one condition."""

    def __init__(self, records: Records, variants: Sequence[Variant], reference: str, condition: Condition) -> None:
        self.records, self.reference, self.condition = records, reference, condition
        self.names = [variant.name for variant in variants]
        self.base = next((variant.name for variant in variants if variant.kind == "base"), None)
        controls = {v.name: control_of(v, variants, reference) for v in variants}
        self.controls = {name: control.name for name, control in controls.items() if control}
        self.nulls = {v.name: [null.name for null in nulls_of(v, variants)] for v in variants}
        self._measured: dict[str, dict[str, Measured]] = {}

    def has(self, suite: Suite) -> bool:
        """Whether the suite was asked under this condition."""
        return (self.reference, suite.settings.name, self.condition.name) in self.records

    def answered(self, suites: Sequence[Suite]) -> dict[str, dict[str, Measured]]:
        """suite -> variant -> metrics, of the suites that nobody left items of unanswered."""
        names = {s.settings.name for s in suites if self.has(s) and not self._failed(s)}
        return {name: measured for name, measured in self._measured.items() if name in names}

    def rows(self, suite: Suite, kept: set[str] | None = None) -> dict[str, list[RecordJson]]:
        """Records by variant, of the items that all of them answered."""
        name = suite.settings.name
        found = {v: self.records[v, name, self.condition.name] for v in self.names}
        asked = {v: [(r["id"], r["prompt_digest"]) for r in rows] for v, rows in found.items()}
        if any(ids != asked[self.reference] for ids in asked.values()):
            raise ValueError(f"suite {name}: variants answered different prompts; they cannot be compared")
        out = {r["id"] for rows in found.values() for r in rows if "failed" in r}
        return {
            v: [r for r in rows if r["id"] not in out and (kept is None or r["id"] in kept)]
            for v, rows in found.items()
        }

    def suite(self, suite: Suite, kept: set[str] | None = None) -> SuiteResultJson:
        """Figures and differences of one suite."""
        rows = self.rows(suite, kept)
        measured = {v: measure(r, suite) for v, r in rows.items()}
        if kept is None:
            self._measured[suite.settings.name] = measured
        every = self.records[self.reference, suite.settings.name, self.condition.name]
        failed = self._failed(suite)
        mine = measured[self.reference]
        # Not every variant has every figure: none is as far from itself as others are.
        metrics = dict.fromkeys(m for v in self.names for m in measured[v])
        result: SuiteResultJson = {
            "kind": suite.settings.kind,
            "version": suite.settings.version,
            "language": suite.settings.language,
            "match": suite.settings.match,
            "digest": suite.digest,
            "source": suite.source,
            "left_out": suite.left_out,
            "n": len({r["id"] for r in rows[self.reference]}),
            "asked": len({r["id"] for r in every}),
            "incomplete": failed or None,
            "signatures": signatures(suite),
            "metrics": {m: {v: self._entry(m, measured, v, tested=not failed) for v in self.names} for m in metrics},
        }
        if CHOICE in mine:
            chosen = {v: [_scored(row) for row in rows[v]] for v in self.names}
            result["flips"] = self._rows(lambda one, other: _flip_table(chosen[one], chosen[other]))
        if GENERATED in mine:
            written = {v: [_written(row) for row in rows[v]] for v in self.names}
            result["flips_generated"] = self._rows(lambda one, other: _flip_table(written[one], written[other]))
        if SURFACE in mine and not failed:
            result["fall"] = self._rows(lambda one, other: _fall(measured[one], measured[other]))
        return result

    def _rows(self, of: Callable[[str, str], Row]) -> dict[str, Row | list[Row]]:
        """Every variant against the reference; of a merge that has a control a second row, against that."""
        found: dict[str, Row | list[Row]] = {}
        for against, variant, other in self.pairs:
            row = of(variant, other)
            if against == "reference":
                found[variant] = row
            else:
                row["against"], row["other"] = against, other
                found[variant] = [*rows_of(found.get(variant)), row]
        return found

    def _failed(self, suite: Suite) -> dict[str, FailedItemsJson]:
        """Variants with items that they did not answer: how many, and the first reason."""
        found: dict[str, FailedItemsJson] = {}
        for variant in self.names:
            rows = self.records[variant, suite.settings.name, self.condition.name]
            reasons = [row["failed"] for row in rows if "failed" in row]
            if reasons:
                found[variant] = {"failed": len(reasons), "reason": reasons[0]}
        return found

    def _entry(self, metric: str, measured: Mapping[str, Measured], variant: str, *, tested: bool) -> EntryJson:
        try:
            known = figure(metric, measured[variant]) if metric in measured[variant] else NONE
        except DataError as error:
            raise DataError(f"variant {variant}, {metric}: {error}; leave it out") from error
        nulls = [measured[name] for name in self.nulls[variant]]

        def less(other: Measured | None) -> DifferenceJson | None:
            both = tested and other is not None and metric in measured[variant] and metric in other
            found = difference(metric, measured[variant], other) if both and other is not None else None
            return found.to_dict() if found else None

        return {
            **known.to_dict(),
            "difference": less(measured.get(self.reference) if variant != self.reference else None),
            "difference_base": less(measured.get(self.base or "") if variant != self.base else None),
            "difference_control": less(measured.get(self.controls.get(variant, ""))),
            "difference_null": less(pooled(metric, nulls) if nulls and all(metric in null for null in nulls) else None),
        }

    @property
    def pairs(self) -> list[tuple[str, str, str]]:
        """Against what, which variant, with which: every one with the reference, a merge with its control too."""
        found = [("reference", v, self.reference) for v in self.names if v != self.reference]
        return [*found, *(("control", v, control) for v, control in self.controls.items())]


@dataclass(frozen=True)
class _Choice:
    """One answer to a question with options; chosen: None where it names none."""

    id: str
    right: int
    chosen: int | None


def _scored(row: RecordJson) -> _Choice:
    return _Choice(row["id"], row["right"], row["chosen"])


def _written(row: RecordJson) -> _Choice:
    """The option that the generated text names; of several seeds the first."""
    return _Choice(row["id"], row["right"], row["generated"][0]["chosen"])


def _flip_table(mine: Sequence[_Choice], reference: Sequence[_Choice]) -> FlipsJson:
    table = flips([r.chosen for r in reference], [r.chosen for r in mine], [r.right for r in reference])
    pairs = list(zip(mine, reference, strict=True))
    gained = [a.id for a, b in pairs if a.chosen == a.right != b.chosen]
    lost = [a.id for a, b in pairs if b.chosen == a.right != a.chosen]
    return {
        "kept": table.kept,
        "gained": table.gained,
        "lost": table.lost,
        "wrong_alike": table.wrong_alike,
        "wrong_otherwise": table.wrong_otherwise,
        "gained_ids": gained,
        "lost_ids": lost,
    }


def _fall(mine: Measured, reference: Measured) -> FallJson:
    """The difference in raw BLEU, taken apart: dilution by the trace and content; and what length alone explains."""
    parts = fall_parts(mine["bleu_raw"][0], mine["bleu"][0], mine["bleu"][1])
    others = fall_parts(reference["bleu_raw"][0], reference["bleu"][0], reference["bleu"][1])
    lengths = length_parts(mine["bleu"][1])

    def of_part(name: str) -> DifferenceJson | None:
        table, statistic = parts[name]
        found = paired_difference(table, others[name][0], statistic)
        return found.to_dict() if found else None

    def of_length(name: str) -> DifferenceJson | None:
        found = paired_contrast(mine["bleu_raw"][0], reference["bleu_raw"][0], lengths[name])
        return found.to_dict() if found else None

    return {
        "total": of_part("total"),
        "dilution": of_part("dilution"),
        "content": of_part("content"),
        "length": of_length("length"),
        "rest": of_length("rest"),
    }


def _adjust(suites: Mapping[str, SuiteResultJson], variants: Sequence[str]) -> None:
    """Holm's procedure over these variants and the suites of one metric, for each of those it is compared with; and of
    each part of a fall."""
    for metric in {metric for suite in suites.values() for metric in suite["metrics"]}:
        tables = [suite["metrics"].get(metric, {}) for suite in suites.values()]
        for key in AGAINST:
            _adjust_family([entry[key] for table in tables for v, entry in table.items() if v in variants])
    falls = [suite.get("fall", {}).get(variant) for suite in suites.values() for variant in variants]
    rows = [row for fall in falls for row in rows_of(fall)]
    for part, against in product(FALL_PARTS, ("reference", "control")):
        _adjust_family([row[part] for row in rows if row.get("against", "reference") == against])


def rows_of(found: Row | list[Row] | None) -> list[Row]:
    """The rows of a variant in `flips` and `fall`: none, one, or several."""
    return found if isinstance(found, list) else [found] if found else []


def _adjust_family(tests: Sequence[DifferenceJson | None]) -> None:
    family = [test for test in tests if test]
    for found, adjusted in zip(family, holm([test["p"] for test in family]), strict=True):
        found["p_holm"] = adjusted
