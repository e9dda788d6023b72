"""Audits, comparisons of runs, interference and tuning vectors as tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.export.table import Column, Json, Table, columns, data_table, estimate, some, table

_SETS = columns("set", "n", "found", Column("share", form=".2%"), "clean")
_OVERLAPS = columns(
    *("train", "against", "held_out", "level", "scope", "n", "found", Column("share", form=".2%"), "any_hit"),
    "too_short",
)
_LINES = columns(
    *("task", "metric"),
    *(*estimate("a"), *estimate("b"), *estimate("difference", p="p_holm")),
    *("n", "p", "p_holm", "test", "mde", "gained", "lost", "higher_is_better", "not_worse"),
)
_PAIRINGS = columns("task", "paired", "only_a", "only_b", "unanswered", "other_prompts")
_VECTOR = columns("tensor", "kind", "rows", "columns", "rank", "norm")


def audit_tables(facts: Json) -> list[Table]:
    """Tables of an audit (the dict of `audit --json`)."""
    sets = [{"set": name, **one, "clean": len(one["clean"])} for name, one in facts["held_out"].items()]
    overlaps = [
        {**{key: pair[key] for key in ("train", "against", "held_out")}, **overlap}
        for pair in facts["pairs"]
        for overlap in pair["overlaps"]
    ]
    items = [
        {"set": name, "item": item, "where": where}
        for name, one in facts["held_out"].items()
        for item, where in one["contaminated"].items()
    ]
    return some(
        table("audit", "Held-out items found in the train sets", sets, _SETS, "share: found of n."),
        table("overlaps", "Where items were found", overlaps, _OVERLAPS, "any_hit: with one n-gram at least."),
        data_table("found_items", "Items that were found", items),
    )


def comparison_tables(facts: Json) -> list[Table]:
    """Tables of a comparison of two runs (the dict of `compare --json`)."""
    note = f"A: {facts['a']}; B: {facts['b']}; differences are B - A; p_holm: adjusted over all lines."
    return some(
        table("comparison", "B compared with A, document by document", map(_line, facts["lines"]), _LINES, note),
        table("pairings", "How documents were paired", facts["pairings"], _PAIRINGS),
    )


def interference_tables(facts: Json) -> list[Table]:
    """Tables of an interference (`interference.json`): by target, unit and class of tokens; CSV alone."""
    return some(
        data_table(
            "interference_change", "What the guest changes, and what of it adds up", _targets(facts["attribution"])
        ),
        data_table("interference_activation", "Interference of activations by module", facts["activation"]),
        data_table("interference_classes", "Interference of activations, all modules", facts["classes"]),
        data_table("interference_residual", "Non-additivity by layer", facts["residual"]),
        data_table("interference_measured", "Predicted and measured by unit", _inside(facts["measured"], "units")),
        data_table("interference_agreement", "Rank correlation of predictions", _agreement(facts["agreement"])),
        data_table("interference_weights", "Loss over the weights", _inside(facts["weights_grid"], "points")),
        data_table("interference_attribution", "Gradients by module", _inside(facts["attribution"], "modules")),
    )


def vector_tables(rows: Sequence[Json]) -> list[Table]:
    """A tuning vector's tensors."""
    return some(table("tensors", "Tensors that a vector changes", rows, _VECTOR))


def study_tables(facts: Json) -> list[Table]:
    """What a study's report.json has besides its parts' tables: training, overlap at the merge's weights, time."""
    losses = [
        {"adapter": name, "step": step, "loss": loss}
        for name, record in facts["adapters"].items()
        for step, loss in record.get("loss") or ()
    ]
    overlap = facts.get("overlap")
    seconds = [{"stage": stage, "seconds": spent} for stage, spent in facts["seconds"].items()]
    return some(
        data_table("training_loss", "Training loss by step, in nats per token", losses),
        data_table("pair_by_module", "How the merged deltas lie to each other", overlap["modules"] if overlap else ()),
        table("seconds", "Time by stage", seconds, columns("stage", Column("seconds", "s", ".1f"))),
    )


def _line(line: Json) -> dict[str, Any]:
    row = {key: line[key] for key in ("task", "metric", "higher_is_better")}
    for name in ("a", "b", "difference"):
        figure = line[name] or {}
        row |= {name: figure.get("value"), f"{name}_low": figure.get("low"), f"{name}_high": figure.get("high")}
    tested = line["difference"] or {}
    row |= {key: tested.get(key) for key in ("n", "p", "p_holm", "test", "mde", "gained", "lost")}
    row["not_worse"] = (line.get("non_inferior") or {}).get("answer")
    return row


def _targets(tables: Mapping[str, Any]) -> Iterator[Json]:
    yield from ({"target": target, **found} for target, found in tables.items())


def _agreement(tables: Mapping[str, Any]) -> Iterator[Json]:
    for target, predictors in tables.items():
        for predictor, ways in predictors.items():
            for way, found in ways.items():
                yield {"target": target, "predictor": predictor, "way": way, **(found or {})}


def _inside(tables: Mapping[str, Any], key: str) -> Iterator[Json]:
    for target, found in tables.items():
        yield from ({"target": target, **row} for row in found[key])
