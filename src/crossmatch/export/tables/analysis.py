"""An analysis as tables: sizes, place on the base's directions, readings, overlap, statements, what models do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.export.table import Column, Json, Table, columns, data_table, inner_tables, some, table
from crossmatch.report.statements import answer_of

# Figures with their null, as rows of an analysis have them.
_ALIGNED = ("write_existing", "write_new", "read_existing", "diagonal", "gain")
_READ = ("intruders", "amplified", "spread", "turned", "coordination")
_SIZE = columns(
    *("vector", "level", "group", "n", "frobenius", "spectral", "stable_rank", "effective_rank"),
    Column("share", "of the base's norm"),
)
_MET = columns("first", "second", "level", "group", "n", "measure", "value", "null", "null_sd", "lift", "z")
_GROUPS = columns("vector", "level", "group", "n", "k", "measure", "value", "null", "null_sd", "lift", "z")
_STATEMENTS = columns("vector", "statement", "k", "answer", "part", "value", "low", "high", "null", "n", "holds", "why")
_NULLS = (
    "null: what random changes of the same spectrum have; lift: value over null; z: in standard deviations of the null."
)


def analysis_tables(facts: Json) -> list[Table]:
    """Every table of the facts of `crossmatch analyse`; those by module are CSV alone."""
    vectors = facts["vectors"].items()
    return some(
        table("statements", "Statements on where fine-tuning writes", _statements(facts["claims"] or ()), _STATEMENTS),
        table("size", "Size of the change by module type and layer", _sizes(facts["size"]), _SIZE),
        table("alignment", "Energy on the base's directions", _measured(facts["alignment"], _ALIGNED), _GROUPS, _NULLS),
        table("readings", "The base's directions afterwards", _measured(facts["readings"], _READ), _GROUPS, _NULLS),
        table("overlap", "How two changes meet", _met(facts["overlap"]), _MET, _NULLS),
        table("vectors", "What was analysed", ({"vector": n, **v} for n, v in vectors), _VECTORS),
        data_table("size_by_module", "Size of every tensor's change", _modules(facts["size"])),
        data_table("alignment_by_module", "Alignment of every tensor's change", _modules(facts["alignment"])),
        data_table("readings_by_module", "Readings of every tensor's change", _modules(facts["readings"])),
        data_table("overlap_by_module", "Overlap of every tensor's changes", _pairs(facts["overlap"])),
        data_table("heads", "Attention heads", _listed(facts.get("heads") or {})),
        data_table("left_out", "What was not measured", facts["left_out"]),
        *inner_tables("overlap_by_module", "Overlap of every tensor's changes", list(_pairs(facts["overlap"]))),
        *_models(facts),
    )


_VECTORS = columns("vector", "path", "kind", "tensors", "on_its_base", "digest")


def _models(facts: Json) -> Iterator[Table | None]:
    """What running the models gave: representations by layer, attributions by module, and what taking out gave."""
    layers = [
        {"vector": name, **row} for name, one in _named(facts, "representations") for row in one.get("layers") or ()
    ]
    yield data_table("representations", "Hidden states by layer", layers)
    yield from inner_tables("representations", "Hidden states by layer", layers)
    parts = [
        {"vector": name, "material": material, **one}
        for name, found in _named(facts, "attribution")
        for material, one in found.items()
    ]
    yield data_table("attribution", "Change of the log-odds, and what of it adds up", parts)
    yield from inner_tables("attribution", "Change of the log-odds", parts)


def _named(facts: Json, key: str) -> list[tuple[str, Json]]:
    return [(name, one) for name, one in (facts.get(key) or {}).items() if isinstance(one, Mapping)]


def _group(row: Json) -> dict[str, Any]:
    return {"level": row["level"], "group": None if row["key"] is None else str(row["key"]), "n": row["n"]}


def _sizes(tables: Mapping[str, Sequence[Json]]) -> Iterator[Json]:
    for vector, rows in tables.items():
        yield from ({"vector": vector, **row, **_group(row)} for row in rows if row["level"] != "module")


def _measured(tables: Mapping[str, Sequence[Json]], measures: Sequence[str]) -> Iterator[Json]:
    for vector, rows in tables.items():
        for row in rows:
            if row["level"] != "module":
                head = {"vector": vector, **_group(row), "k": row.get("k_label")}
                yield from ({**head, "measure": name, **row[name]} for name in measures if row.get(name))


def _met(pairs: Sequence[Json]) -> Iterator[Json]:
    for pair in pairs:
        for row in pair["rows"]:
            if row["level"] == "module":
                continue
            head = {"first": pair["first"], "second": pair["second"], **_group(row)}
            for name, figure in row.items():
                figure = figure.get("overlap", figure) if isinstance(figure, Mapping) else figure
                if isinstance(figure, Mapping) and "null" in figure:
                    yield {**head, "measure": name, **figure}
                elif name in ("energy_ratio", "first_norm", "second_norm"):
                    yield {**head, "measure": name, "value": figure}


def _modules(tables: Mapping[str, Sequence[Json]]) -> Iterator[Json]:
    for vector, rows in tables.items():
        yield from ({"vector": vector, **row} for row in rows if row["level"] == "module")


def _pairs(pairs: Sequence[Json]) -> Iterator[Json]:
    for pair in pairs:
        names = {"first": pair["first"], "second": pair["second"]}
        yield from ({**names, **row} for row in pair["rows"] if row["level"] == "module")


def _listed(tables: Mapping[str, Sequence[Json]]) -> Iterator[Json]:
    for vector, rows in tables.items():
        yield from ({"vector": vector, **row} for row in rows)


def _statements(claims: Sequence[Json]) -> Iterator[Json]:
    for claim in claims:
        head = {"vector": claim["vector"], "statement": claim["statement"], "k": claim.get("k_label")}
        head |= {"answer": answer_of(claim), "why": claim.get("why")}
        for part in claim["parts"] or ({},):
            yield {**head, **part, "part": part.get("what"), "n": part.get("layers") or part.get("n")}
