"""The case study's answers and tables, from the kept results alone.

    python studies/reactivation/tables.py RESULTS DOCUMENT [--check]

Writes the part of DOCUMENT between its two marks, and the figure beside it; with --check it only compares, and ends
with code 1 where they differ.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from questions import (
    beyond_scale,
    choices,
    monotone,
    surface,
    templates_and_temperature,
    twice_weighted,
    unmarked,
    whose_content,
    world,
)

from answers import Results

BEGIN, END = "<!-- results: made by tables.py -->", "<!-- end of results -->"

SECTIONS: tuple[Callable[[Results], list[str]], ...] = (
    world,
    beyond_scale,
    whose_content,
    monotone,
    surface,
    choices,
    twice_weighted,
    unmarked,
    templates_and_temperature,
)


def render(results: Results) -> str:
    """The generated part of the document."""
    return "\n".join(line for section in SECTIONS for line in section(results)).strip() + "\n"


def main(folder: Path, document: Path, *, check: bool) -> int:
    """Write the generated part, or compare it; the exit code."""
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = f"{before}{BEGIN}\n\n{render(Results(folder))}\n{END}{after}"
    if check:
        print(
            "the tables are those of the results" if made == text else f"{document}: the tables differ from the results"
        )
        return int(made != text)
    document.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), check="--check" in sys.argv))
