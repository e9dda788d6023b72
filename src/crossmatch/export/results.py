"""Results as users of Python have them: tables, a data frame, a view for notebooks.

Whatever is a result has `tables()`; a result that is plain JSON is one of the mappings below, which are dicts.
"""

import html
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossmatch.errors import InputError
from crossmatch.export.formats import to_html
from crossmatch.export.table import Json, Table, columns, flat, some, table
from crossmatch.export.tables.analysis import analysis_tables
from crossmatch.export.tables.evaluation import evaluation_tables
from crossmatch.export.tables.others import audit_tables, comparison_tables, interference_tables, study_tables
from crossmatch.export.tables.proof import verdict_tables
from crossmatch.export.tables.sweep import sweep_tables

if TYPE_CHECKING:
    from pandas import DataFrame


class Tabled:
    """What can be shown as tables."""

    # In a notebook: the tables whose names begin so, or the first one.
    _notebook: tuple[str, ...] = ()

    @abstractmethod
    def tables(self) -> dict[str, Table]:
        """Every table of the result by name, the one that is read first before the others."""

    def to_pandas(self, name: str | None = None) -> "DataFrame":
        """A table of the result as a data frame, the first one by default; `tables()` has the names.

        attrs: `title`, `note`, and `units` by column. Raises InputError for a name that is not there, and without
        pandas.
        """
        return frame_of(_named(self.tables(), name))

    def _repr_html_(self) -> str:
        found = self.tables()
        names = [name for name in found if self._notebook and name.startswith(self._notebook)] or list(found)[:1]
        shown = [found[name] for name in names]
        others = ", ".join(name for name in found if name not in names)
        more = f"<p>Further tables, for <code>to_pandas(name)</code>: {html.escape(others)}</p>" if others else ""
        return f"<p>{html.escape(repr(self))}</p>" + "".join(map(to_html, shown)) + more


class Result(dict[str, Any], Tabled):
    """A result as plain JSON: a dict, with tables."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}: {_brief(v)}' for k, v in list(self.items())[:8])})"


class EvaluationSummary(Result):
    """The summary of an evaluation, as `summary.json` has it."""

    _notebook = ("overview.",)

    def tables(self) -> dict[str, Table]:
        """Overviews by suite, figures, differences, flips, falls and what else was asked for."""
        return by_name(evaluation_tables(self))

    def __repr__(self) -> str:
        suites = dict.fromkeys(suite for facts in self["conditions"].values() for suite in facts["suites"])
        return (
            f"EvaluationSummary({len(self['variants'])} variants: {', '.join(self['variants'])}; suites: "
            f"{', '.join(suites)}; conditions: {', '.join(self['conditions'])}; reference: {self['reference']})"
        )


class AnalysisResult(Result):
    """The facts of an analysis, as `analysis.json` has them."""

    _notebook = ("statements",)

    def tables(self) -> dict[str, Table]:
        """Statements, sizes, alignment, readings, overlap; the same by module."""
        return by_name(analysis_tables(self))

    def __repr__(self) -> str:
        return f"AnalysisResult({', '.join(self['vectors'])} on {self['base']['path']})"


class Manifest(Result):
    """The statement that lies beside what was written, as `crossmatch.json` has it."""

    def tables(self) -> dict[str, Table]:
        """`files`: what was written, with digests; `facts`: how it was made."""
        rows = [{"file": subject["name"], **subject["digest"]} for subject in self["subject"]]
        facts = [{"fact": key, "value": value} for key, value in flat(self["predicate"]).items()]
        found = table("files", "What was written", rows, columns("file", "blake3", "sha256"))
        return by_name(some(found, table("facts", "How it was made", facts, columns("fact", "value"))))

    def __repr__(self) -> str:
        names = ", ".join(subject["name"] for subject in self["subject"])
        return f"{type(self).__name__}({names}; {self['predicateType']})"


class MergeManifest(Manifest):
    """The statement that lies beside a merge, as `crossmatch.json` has it."""

    def tables(self) -> dict[str, Table]:
        """`adapters`: weight and digest of each; those of the verdict, if the merge was proved; files and facts."""
        predicate = self["predicate"]
        rows = [{"adapter": name, **facts} for name, facts in predicate["adapters"].items()]
        verdict = predicate.get("verdict")
        found = table("adapters", "What was merged", rows, columns("adapter", "weight", "path", "hub_id", "digest"))
        proof = verdict_tables({None: verdict}) if verdict else []
        return by_name([*some(found), *proof, *super().tables().values()])

    def __repr__(self) -> str:
        predicate = self["predicate"]
        weights = " + ".join(f"{facts['weight']} {name}" for name, facts in predicate["adapters"].items())
        verdict = (predicate.get("verdict") or {}).get("verdict", "not proved")
        return f"MergeManifest({weights}, {predicate['rule']}, {verdict})"


class SweepFacts(Result):
    """The facts of a sweep, as `sweep.json` has them."""

    def tables(self) -> dict[str, Table]:
        """Points, the confirmation, and what could have been predicted."""
        return by_name(sweep_tables(self))

    def __repr__(self) -> str:
        return f"SweepFacts({self['recommendation']['sentence']})"


def tables_of(facts: Json) -> dict[str, Table]:
    """Every table of any result as plain JSON: of a study (report.json), an evaluation (summary.json), an analysis, a
    sweep (sweep.json), a verdict, an audit, a comparison or an interference.

    Raises InputError for facts that are none of these.
    """
    found: list[Table] = []
    if "study" in facts and "verdicts" in facts:
        parts = {key: facts.get(key) for key in ("summary", "audit", "interference", "analysis")}
        found += verdict_tables(facts["verdicts"])
        found += [one for part in parts.values() if part for one in tables_of(part).values()]
        found += study_tables(facts)
    elif "conditions" in facts and "variants" in facts:
        found += evaluation_tables(facts)
        found += interference_tables(facts["interference"]) if facts.get("interference") else []
    elif "alignment" in facts and "vectors" in facts:
        found += analysis_tables(facts)
    elif "verdict" in facts:
        found += verdict_tables({None: facts})
    elif "recommendation" in facts:
        found += sweep_tables(facts)
    elif "held_out" in facts:
        found += audit_tables(facts)
    elif "pairings" in facts:
        found += comparison_tables(facts)
    elif "activation" in facts:
        found += interference_tables(facts)
    else:
        raise InputError("these are no results of crossmatch; give report.json, summary.json or analysis.json as read")
    return by_name(found)


def by_name(tables: list[Table]) -> dict[str, Table]:
    """Tables by their names; a second one of a name is counted."""
    found: dict[str, Table] = {}
    for one in tables:
        name, count = one.name, 1
        while name in found:
            count += 1
            name = f"{one.name}-{count}"
        found[name] = one
    return found


def frame_of(shown: Table) -> "DataFrame":
    """A table as a pandas data frame. Raises InputError without pandas."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise InputError(f"a data frame needs pandas: pip install pandas ({error})") from error
    frame = DataFrame(list(shown.rows), columns=[column.name for column in shown.columns])
    frame.attrs |= {"title": shown.title, "note": shown.note}
    frame.attrs["units"] = {column.name: column.unit for column in shown.columns if column.unit}
    return frame


def _named(tables: Mapping[str, Table], name: str | None) -> Table:
    if name is None and tables:
        return next(iter(tables.values()))
    if name is None or name not in tables:
        raise InputError(f"no table {name or ''} in this result; it has {', '.join(tables) or 'none'}")
    return tables[name]


def _brief(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, dict | list) else repr(value)
