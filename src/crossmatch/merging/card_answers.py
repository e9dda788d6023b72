"""What an evaluation answers about a merge, as a part of its model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_BEGIN, _END = "<!-- answers: begin -->", "<!-- answers: end -->"
_MARKED = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|"})


def answers_section(name: str, answers: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of the answers about a variant, and of those about the test sets; empty without any."""
    found = [a for a in answers if a["about"] == name or a["id"] == "test-set-clean"]
    found = [a for a in found if a["id"] != "is-as-claimed"]
    if not found:
        return ""
    lines = [_BEGIN, "## Answers", ""]
    for answer in found:
        under = f" ({answer['condition']})" if answer["condition"] else ""
        lines.append(f"- **{(answer['question'] + under).translate(_MARKED)}** {answer['sentence'].translate(_MARKED)}")
    margins = {a["margin"] for a in found if a["id"] == "answers-as-well" and a["margin"] is not None}
    if margins:
        lines += ["", f"As well: within {min(margins):g} points of a score from 0 to 100. Intervals are 95% intervals."]
    return "\n".join([*lines, _END, ""])


def without_answers(text: str) -> str:
    """A card's text without the part that `write_answers` put there."""
    head, begin, rest = text.partition(_BEGIN)
    tail = rest.partition(_END)[2].lstrip("\n") if begin else ""
    return f"{head.rstrip()}\n" + (f"\n{tail}" if tail else "")


def write_answers(directory: Path, name: str, answers: Sequence[Mapping[str, Any]]) -> None:
    """Put them at the end of the directory's README.md, in the place of earlier ones; nothing without a README.md."""
    card = directory / "README.md"
    if not card.is_file():
        return
    text = card.read_text(encoding="utf-8")
    section = answers_section(name, answers)
    new = without_answers(text) + (f"\n{section}" if section else "")
    if new != text:
        temporary = card.with_name(".README.md.crossmatch-partial")
        temporary.write_text(new, encoding="utf-8")
        temporary.replace(card)
