"""A verdict in Markdown, for the summary page of a CI job."""

from collections.abc import Mapping
from typing import Any

from crossmatch.export.formats import markdown_text, to_markdown
from crossmatch.export.tables.proof import verdict_tables
from crossmatch.report.verdict_text import finding_lines, not_checked, reason

_SIGNS = {"verified": "✅", "failed": "❌"}


def job_summary(verdict: Mapping[str, Any], merged: str) -> str:
    """The answer, the weights, what is wrong and what to do; names from files are escaped."""
    sign = _SIGNS.get(verdict["verdict"], "❔")
    lines = [f"## {sign} {verdict['verdict']}: {markdown_text(merged)}", ""]
    tables = {table.name: table for table in verdict_tables({None: verdict})}
    if "weights" in tables:
        lines += [to_markdown(tables["weights"])]
    counts = verdict["modules"]
    if counts.get("adapted"):
        lines += [f"{counts['agree']} of {counts['adapted']} adapted modules agree with the claim.", ""]
    if verdict.get("evidence", {}).get("sampled") is not None:
        lines += ["**Sampled rows alone were judged** (`--quick`): what lies in other rows was not looked at.", ""]
    if verdict["verdict"] == "inconclusive":
        lines += [f"It could not be judged: {markdown_text(reason(verdict))}.", ""]
    for finding in verdict["findings"]:
        lines += [f"### {finding['fault']}", "", *map(markdown_text, finding_lines(finding)), ""]
    lines += [f"- not checked: {markdown_text(text)}" for text in not_checked(verdict)]
    return "\n".join([*lines, ""])
