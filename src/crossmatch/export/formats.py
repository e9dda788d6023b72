"""Tables as text: CSV with every digit, Markdown and LaTeX as a page shows them, HTML for notebooks."""

import csv
import html
import io
import re
from collections.abc import Callable
from typing import Final

from crossmatch.export.table import Cell, Column, Json, Table
from crossmatch.report.text import plain

_LEVEL = 0.05
# From so many rows on a LaTeX table may break over pages.
_LONG = 45
# A spreadsheet takes a text that begins so for a formula, and would compute what a stranger's file says.
_SIGNED = re.compile(r"(-\d[\d.]*|\d[\d.]*(?=e[+-]))(?:e([+-]\d+))?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        # What LaTeX's own fonts lack.
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": "$-$",
        "≥": r"$\geq$",
        "≤": r"$\leq$",
        "→": r"$\rightarrow$",
        "‖": r"$\|$",
        "Δ": r"$\Delta$",
        "λ": r"$\lambda$",
        "σ": r"$\sigma$",
        "²": r"$^2$",
        "√": r"$\surd$",
        "–": "--",
    }
)


def to_csv(table: Table) -> str:
    """RFC 4180, all columns, numbers with every digit (they read back equal), an empty cell for what is not known.

    A text that a spreadsheet would take for a formula gets an apostrophe before it. A file with other characters than
    ASCII begins with a byte-order mark, without which spreadsheets misread it.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([_safe(column.name) for column in table.columns])
    for row in table.rows:
        writer.writerow([_exact(row[column.name]) for column in table.columns])
    text = out.getvalue()
    return text if text.isascii() else f"\ufeff{text}"


def to_markdown(table: Table) -> str:
    """A GitHub table under its title, numbers to the right; the note below."""
    head = [column.heading for column in table.shown]
    numeric = [_numeric(table, column) for column in table.shown]
    lines = [f"**{markdown_text(table.title)}**", ""]
    lines += [_row(map(markdown_text, head)), _row("---:" if right else "---" for right in numeric)]
    lines += [_row(_markdown_cell(column, row) for column in table.shown) for row in table.rows]
    notes = " ".join(filter(None, (markdown_text(table.note), markdown_text(_legend(table)))))
    return "\n".join([*lines, *(["", notes] if notes else []), ""])


def to_latex(table: Table) -> str:
    """A table with booktabs' rules, to be put in by \\input; from 45 rows on a longtable.

    Needs `\\usepackage{booktabs}` (and longtable); texts in other scripts than Latin need XeLaTeX or LuaLaTeX with a
    font that has them.
    """
    spec = "".join("r" if _numeric(table, column) else "l" for column in table.shown)
    head = " & ".join(_latex(column.heading) for column in table.shown) + r" \\"
    body = [" & ".join(_latex_cell(column, row) for column in table.shown) + r" \\" for row in table.rows]
    label = re.sub(r"[^A-Za-z0-9.-]+", "-", table.name)
    caption = rf"\caption{{{_latex(f'{table.title}. {table.note} {_legend(table)}'.strip())}}}\label{{tab:{label}}}"
    rules = [r"\toprule", head, r"\midrule"]
    if len(table.rows) >= _LONG:
        lines = [rf"\begin{{longtable}}{{{spec}}}", caption + r" \\", *rules, r"\endhead", r"\bottomrule", r"\endfoot"]
        lines += [*body, r"\end{longtable}"]
    else:
        lines = [r"\begin{table}", r"\centering", caption, rf"\begin{{tabular}}{{{spec}}}", *rules, *body]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(["% Needs \\usepackage{booktabs,longtable}.", *lines, ""])


def to_html(table: Table, most: int = 60) -> str:
    """A table for a notebook; of long ones the first rows, and how many there are."""
    cells = "".join(f"<th>{html.escape(column.heading)}</th>" for column in table.shown)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(plain(_printed(column, row)))}</td>" for column in table.shown) + "</tr>"
        for row in table.rows[:most]
    )
    more = f"<p>{most} of {len(table.rows)} rows</p>" if len(table.rows) > most else ""
    notes = " ".join(filter(None, (table.note, _legend(table))))
    return (
        f"<table><caption>{html.escape(plain(table.title))}</caption><thead><tr>{cells}</tr></thead>"
        f"<tbody>{body}</tbody></table>{more}" + (f"<p>{html.escape(plain(notes))}</p>" if notes else "")
    )


# Form -> end of the file's name, and what writes it.
FORMATS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def _exact(value: Cell) -> str:
    if value is None:
        return ""
    # Of a float the shortest text that reads back as the same float.
    return _safe(value) if isinstance(value, str) else repr(value)


def _safe(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(_FORMULA) else text


def _numeric(table: Table, column: Column) -> bool:
    values = [row[column.name] for row in table.rows if row[column.name] is not None]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _printed(column: Column, row: Json) -> str:
    """A cell for people: the number in its form, its interval, the mark."""
    value = row[column.name]
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    ends = [row[name] for name in (column.low, column.high) if name]
    known = [_number(end, column.form) for end in ends if isinstance(end, int | float)]
    bounds = f" [{', '.join(known)}]" if len(known) == 2 else ""
    p = row[column.p] if column.p else None
    return f"{_number(value, column.form)}{bounds}{'*' if p is not None and p < _LEVEL else ''}"


def _number(value: float | int, form: str) -> str:
    return str(value) if isinstance(value, int) else format(value, form)


def _legend(table: Table) -> str:
    """What brackets and marks mean, where there are any."""
    parts = [
        "In brackets: 95% intervals." if any(column.low for column in table.shown) else "",
        "* p < 0.05, adjusted (Holm)." if any(column.p for column in table.shown) else "",
    ]
    return " ".join(filter(None, parts))


def _row(cells: object) -> str:
    return f"| {' | '.join(cells)} |"  # type: ignore[arg-type]


def markdown_text(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", plain(text)) if text else ""


def _markdown_cell(column: Column, row: Json) -> str:
    text = _printed(column, row)
    return markdown_text(text) if isinstance(row[column.name], str) else text.replace("*", r"\*")


def _latex(text: str) -> str:
    # Behind the end of the row before, a bracket or a star would be taken for its argument.
    guard = "{}" if text.startswith(("[", "*")) else ""
    return guard + plain(text).translate(_LATEX)


def _latex_cell(column: Column, row: Json) -> str:
    value = row[column.name]
    text = _printed(column, row)
    if isinstance(value, str | bool) or value is None:
        return _latex(text)
    body = _SIGNED.sub(_math, text.removesuffix("*")).replace("%", r"\%")
    return body + (r"$^{*}$" if text.endswith("*") else "")


def _math(number: re.Match[str]) -> str:
    """A number with a minus or a power of ten, as mathematics has it."""
    power = rf" \times 10^{{{int(number[2])}}}" if number[2] else ""
    return f"${number[1]}{power}$"
