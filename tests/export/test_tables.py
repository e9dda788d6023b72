"""Tables of results: every format says the same numbers, and nothing in a name breaks out of its format."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from crossmatch.errors import InputError, OutputError
from crossmatch.export.files import charts_of, check_directory, write_figures, write_tables
from crossmatch.export.formats import to_csv, to_html, to_latex, to_markdown
from crossmatch.export.results import AnalysisResult, EvaluationSummary, tables_of
from crossmatch.export.table import Column, Table, columns, estimate

HOSTILE = "50% of a_b & c#1 {x} \\ ~^ $5 <b> | ±3 …"


def difference(value: float, p: float) -> dict[str, Any]:
    tested = {"value": value, "low": value - 1.0, "high": value + 1.0, "n": 40, "p": p / 2, "p_holm": p}
    return {**tested, "test": "randomisation", "gained": None, "lost": None, "mde": 2.5}


def entry(value: float, other: dict[str, Any] | None) -> dict[str, Any]:
    none = dict.fromkeys(("difference_base", "difference_control", "difference_null"))
    return {"value": value, "low": value * 0.9, "high": value * 1.1, "n": 40, "difference": other, **none}


def summary() -> dict[str, Any]:
    metrics = {
        "bleu": {"base": entry(2.7463005868621626, difference(-4.9, 0.006)), "sft": entry(7.7, None)},
        "truncated": {"base": entry(1 / 3, difference(0.3, 0.2)), "sft": entry(0.1, None)},
    }
    suite = {
        "kind": "generation",
        "language": "en",
        "digest": "ab",
        "n": 40,
        "asked": 40,
        "left_out": 0,
        "signatures": {"bleu": "tok:13a"},
        "metrics": metrics,
        "incomplete": None,
    }
    variants = {
        "base": {"kind": "base", "weights": {}, "note": None},
        "sft": {"kind": "adapter", "weights": {"sft": 1.0}, "note": None},
    }
    facts = {"template": "own", "decoding": "greedy", "seeds": 1, "suites": {"define": suite}, "divergence": []}
    return {"schema_version": 3, "reference": "sft", "variants": variants, "conditions": {"own.greedy": facts}}


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def cells(table: Table) -> list[list[str]]:
    """The body of the LaTeX table, cell by cell."""
    body = to_latex(table).split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [line.removesuffix(r" \\") for line in body.strip().splitlines() if line.endswith(r" \\")]
    return [re.split(r"(?<!\\) & ", row) for row in rows]


def test_csv_reads_back_equal() -> None:
    tables = tables_of(summary())
    for name, table in tables.items():
        read = read_csv(to_csv(table))
        assert len(read) == len(table.rows), name
        for row, found in zip(table.rows, read, strict=True):
            for column in table.columns:
                value, text = row[column.name], found[column.name]
                if isinstance(value, bool | str) or value is None:
                    assert text == ("" if value is None else str(value))
                else:
                    assert type(value)(text) == value


def test_overview_is_scaled_marked_and_counted() -> None:
    table = tables_of(summary())["overview.define"]
    base = table.rows[0]
    assert base["cut"] == pytest.approx(100 / 3)
    assert (base["BLEU_p"], base["n"]) == (0.006, 40)
    text = to_markdown(table)
    assert "| 2.7 [2.5, 3.0]\\* | 33 [30, 37] |" in text
    assert "Marks: against sft" in text
    assert "p \\< 0.05, adjusted (Holm)" in text
    assert r"2.7 [2.5, 3.0]$^{*}$ & 33 [30, 37] \\" in to_latex(table)


def test_differences_have_interval_n_and_both_p() -> None:
    row = read_csv(to_csv(tables_of(summary())["differences"]))[0]
    assert (row["metric"], row["variant"], row["other"], row["against"]) == ("bleu", "base", "sft", "reference")
    assert [float(row[key]) for key in ("value", "low", "high", "n", "p", "p_holm", "mde")] == [
        *(-4.9, -4.9 - 1.0, -4.9 + 1.0, 40, 0.003, 0.006, 2.5)
    ]


def test_latex_is_whole_and_reads_back() -> None:
    rows = tuple({"name": HOSTILE, "value": v, "low": v - 1, "high": v + 1, "p": 0.01} for v in (-1.25, 3e-7, 12.0))
    table = Table("t_1", HOSTILE, columns("name", *estimate("value", "%", ".3g", p="p"), "p"), rows)
    text = to_latex(table)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    for begun in re.findall(r"\\begin\{(\w+)\}", text):
        assert rf"\end{{{begun}}}" in text
    for special in "%&#_":
        assert not re.search(rf"(?<!\\){special}", text.split("\n", 1)[1].replace(" & ", "")), special
    assert r"50\% of a\_b \& c\#1 \{x\} \textbackslash{} \textasciitilde{}" in text
    assert r"$\pm$" in text
    found = []
    for _, cell in cells(table):
        plain = re.sub(r"\$(-?[\d.]+) \\times 10\^\{(-?\d+)\}\$", r"\1e\2", cell).replace("$^{*}$", "").replace("$", "")
        found.append(float(plain.split(" ")[0]))
    assert found == [float(f"{row['value']:.3g}") for row in rows]
    assert cells(table)[0][1] == r"$-1.25$ [$-2.25$, $-0.25$]$^{*}$"


def test_long_latex_breaks_over_pages_and_a_row_never_begins_with_a_bracket() -> None:
    rows = tuple({"name": f"[{n}]", "value": n} for n in range(60))
    text = to_latex(Table("long", "Long", columns("name", "value"), rows))
    assert r"\begin{longtable}{lr}" in text
    assert r"\endhead" in text
    assert "\n{}[0] & 0 \\\\\n" in text


def test_a_spreadsheet_computes_nothing() -> None:
    rows = tuple({"name": name, "value": -1.5} for name in ("=1+1", "+a", "-b", "@c", "\tx", "plain"))
    read = read_csv(to_csv(Table("t", "T", columns("name", "value"), rows)))
    assert [row["name"] for row in read] == ["'=1+1", "'+a", "'-b", "'@c", "'\tx", "plain"]
    # A negative number is one.
    assert {row["value"] for row in read} == {"-1.5"}


def test_unicode_has_a_mark_that_spreadsheets_need() -> None:
    chinese = Table("t", "T", columns("name"), ({"name": '贫血, "a"\nb'},))
    assert to_csv(chinese).startswith("\ufeff")
    assert read_csv(to_csv(chinese))[0]["name"] == '贫血, "a"\nb'
    assert "贫血" in to_latex(chinese)
    assert not to_csv(Table("t", "T", columns("name"), ({"name": "a"},))).startswith("\ufeff")


def test_markdown_and_html_escape_names() -> None:
    table = Table("t", "<i>T</i>", columns("name"), ({"name": "a|b <script>"},))
    assert r"| a\|b \<script\> |" in to_markdown(table)
    assert "<script>" not in to_html(table)
    assert "<caption>&lt;i&gt;" in to_html(table)


def test_unknown_is_a_dash_or_nothing() -> None:
    table = Table(
        "t", "T", (Column("value"), Column("holds")), ({"value": None, "holds": True}, {"value": 2.0, "holds": None})
    )
    assert to_csv(table).splitlines()[1:] == [",True", "2.0,"]
    assert "| – | yes |" in to_markdown(table)
    assert "-- & yes" in to_latex(table)


def test_files_are_named_safely_and_listed(tmp_path: Path) -> None:
    rows = ({"a": 1},)
    tables = {"../x": Table("../x", "T", columns("a"), rows), "m": Table("m", "M", columns("a"), rows, by_module=True)}
    written = write_tables(tables, tmp_path / "tables")
    assert sorted(p.name for p in written) == ["_x.csv", "_x.md", "_x.tex", "index.md", "m.csv"]
    assert {p.parent for p in written} == {tmp_path / "tables"}
    assert "`m` (CSV, 1 row): M. Columns: a." in (tmp_path / "tables" / "index.md").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_directory(tmp_path / "file")


def test_figures_are_svg_pdf_and_png(tmp_path: Path) -> None:
    charts = charts_of(summary())
    assert list(charts) == ["scores.define"]
    written = write_figures(charts, tmp_path)
    heads = {p.suffix: p.read_bytes()[:5] for p in written}
    assert heads == {".svg": b"<svg ", ".pdf": b"%PDF-", ".png": b"\x89PNG\r"}


def test_results_are_dicts_with_frames_and_views() -> None:
    found = EvaluationSummary(summary())
    assert json.loads(json.dumps(found)) == summary()
    assert "2 variants: base, sft" in repr(found)
    frame = found.to_pandas("differences")
    assert frame.loc[0, "p_holm"] == 0.006
    assert found.to_pandas().attrs["units"]["cut"] == "%"
    view = found._repr_html_()
    assert "2.7 [2.5, 3.0]*" in view
    assert "differences" in view
    with pytest.raises(InputError, match=r"no table nothing in this result; it has overview\.define, figures"):
        found.to_pandas("nothing")


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(InputError, match="no results of crossmatch"):
        tables_of({"a": 1})


def test_pandas_is_loaded_only_for_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    found = EvaluationSummary(summary())
    assert found.tables()
    with pytest.raises(InputError, match="pip install pandas"):
        found.to_pandas()


def test_analysis_names_its_vectors() -> None:
    assert repr(AnalysisResult({"vectors": {"pt": {}}, "base": {"path": "b"}})) == "AnalysisResult(pt on b)"
