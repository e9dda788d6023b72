"""A verdict as tables: the answer, the weights, what was counted, what is wrong, modules one by one."""

from collections.abc import Iterator, Mapping, Sequence

from crossmatch.export.table import Column, Json, Table, columns, data_table, some, table

Verdicts = Mapping[str | None, Json]
_ERROR = "stderr: standard error of the recovered weight."
_WEIGHTS = columns(*("merge", "adapter", "claimed", Column("recovered", form=".6f"), Column("stderr", form=".1e")))
_VERDICTS = columns(
    *("merge", "verdict", "faults", "notes", "adapted", "agree", "disagree", "undecided"),
    *("tensors", "untouched_identical", "route", "violations", "swallowed_energy", "digest"),
)
_FINDINGS = columns("merge", "fault", "evidence", "where", "consequence", "remedy")


def verdict_tables(verdicts: Verdicts) -> list[Table]:
    """Tables of some verdicts (the dicts of `verify --json`) by the merge's name; a single one may be called None."""
    alone = None in verdicts

    def those(of: Sequence[Column]) -> Sequence[Column]:
        return of[1:] if alone else of

    return some(
        table("weights", "Weights recovered from the file", _weights(verdicts), those(_WEIGHTS), _ERROR),
        table("verdicts", "What was found", _verdicts(verdicts), those(_VERDICTS), "violations: share of elements."),
        table("findings", "What is wrong", _findings(verdicts), those(_FINDINGS)),
        data_table("modules", "Adapted modules one by one", _modules(verdicts)),
        data_table("weight_groups", "Weights by module type and layer", _groups(verdicts)),
    )


def _weights(verdicts: Verdicts) -> Iterator[Json]:
    for merge, verdict in verdicts.items():
        yield from ({"merge": merge, "adapter": name, **weight} for name, weight in verdict["weights"].items())


def _verdicts(verdicts: Verdicts) -> Iterator[Json]:
    for merge, verdict in verdicts.items():
        facts = {key: ", ".join(verdict[key]) or None for key in ("faults", "notes")}
        counts = {**verdict["modules"], **verdict["rounding"], **verdict["tensors"]}
        merged = verdict.get("digests", {}).get("merged")
        tensors = verdict["tensors"].get("total")
        yield {"merge": merge, "verdict": verdict["verdict"], **counts, **facts, "tensors": tensors, "digest": merged}


def _findings(verdicts: Verdicts) -> Iterator[Json]:
    for merge, verdict in verdicts.items():
        for finding in verdict.get("findings", ()):
            yield {"merge": merge, **finding, "where": ", ".join(finding["where"]) or None}


def _modules(verdicts: Verdicts) -> Iterator[Json]:
    for merge, verdict in verdicts.items():
        yield from ({"merge": merge, **row} for row in verdict.get("details", ()))


def _groups(verdicts: Verdicts) -> Iterator[Json]:
    for merge, verdict in verdicts.items():
        for level, groups in (verdict.get("groups") or {}).items():
            for group, weights in groups.items():
                for name, weight in weights.items():
                    yield {"merge": merge, "level": level, "group": group, "adapter": name, **weight}
