"""The picture of an overview: a panel for each metric, a row for each variant, its value with its interval."""

from typing import Any

from crossmatch.export.table import Table


def scores_figure(overview: Table) -> dict[str, Any] | None:
    """The overview of a suite as a Vega-Lite specification; None if it has no metric with an interval."""
    import altair as alt

    from crossmatch.report.charts.charts import COLOURS
    from crossmatch.report.text import plain

    variants = [plain(str(row["variant"])) for row in overview.rows]
    panels = []
    for column in overview.columns:
        rows = [
            {"variant": name, "value": row[column.name], "low": row[column.low], "high": row[column.high]}
            for name, row in zip(variants, overview.rows, strict=True)
            if column.low and column.high and row[column.name] is not None
        ]
        if not rows or column.name.endswith(("_low", "_high")):
            continue
        shared = alt.Chart(alt.Data(values=rows))
        x, y = alt.Scale(zero=False), alt.Y("variant:N", title=None, sort=variants)
        title = alt.X("value:Q", title=plain(column.heading), scale=x)
        bars = shared.mark_rule(strokeWidth=2, color=COLOURS[0]).encode(x=alt.X("low:Q", scale=x), x2="high:Q", y=y)
        points = shared.mark_point(filled=True, size=60, color=COLOURS[0]).encode(x=title, y=y)
        known = bars.transform_filter("isValid(datum.low) && isValid(datum.high)")
        panels.append(alt.layer(known, points).properties(width=220, height=22 * len(variants)))
    if not panels:
        return None
    return alt.concat(*panels, columns=2).properties(title=plain(overview.title)).to_dict()
