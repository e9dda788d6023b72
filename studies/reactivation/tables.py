"""The case study's answers and tables, from the kept results alone.

    python studies/reactivation/tables.py RESULTS DOCUMENT [--check]

Writes the part of DOCUMENT between its two marks, and the figure beside it; with --check it only compares, and ends
with code 1 where they differ.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from causes import claims, mended, predictors, where
from figure import draw
from questions import (
    beyond_scale,
    choices,
    low_weights,
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

# What `run.sh` makes: what each part is for, where the results lack it.
PARTS = {
    "low": "low weights of SFT",
    "texts1": "other texts in PT's place",
    "templates": "templates",
    "temperature": "temperatures",
    "seed2": "the second training seed",
    "texts2": "other texts, second seed",
    "seed3": "the third training seed",
    "texts3": "other texts, third seed",
    "repairs": "repairs",
}


def state(results: Results) -> list[str]:
    """How long what was run took, and what has not been run, so that nobody takes silence for a finding."""
    minutes = {
        name: sum(seconds for seconds in of["seconds"].values() if seconds) / 60
        for name, of in results.facts.items()
        if "seconds" in of
    }
    told = ", ".join(f"{name} {time:.0f}" for name, time in minutes.items())
    how = "in minutes of the clock, some of them at once and beside other work"
    lines = [f"**Time of the runs**, {how}: {told}; {sum(minutes.values()):.0f} in all.", ""]
    lacking = [what for run, what in PARTS.items() if not results.has(run)]
    lacking += ["full fine-tunes"] if "full" not in results.facts else []
    return lines + ([f"**Not run yet:** {', '.join(lacking)}.", ""] if lacking else [])


SECTIONS: tuple[Callable[[Results], list[str]], ...] = (
    state,
    world,
    beyond_scale,
    low_weights,
    whose_content,
    monotone,
    surface,
    choices,
    where,
    predictors,
    twice_weighted,
    mended,
    unmarked,
    templates_and_temperature,
    claims,
)


def render(results: Results) -> str:
    """The generated part of the document."""
    return "\n".join(line for section in SECTIONS for line in section(results)).strip() + "\n"


def main(folder: Path, document: Path, *, check: bool) -> int:
    """Write the generated part and the figure, or compare them; the exit code."""
    results, drawing = Results(folder), document.with_suffix(".svg")
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = {document: f"{before}{BEGIN}\n\n{render(results)}\n{END}{after}", drawing: draw(results)}
    if check:
        differing = [str(file) for file, new in made.items() if not file.is_file() or file.read_text("utf-8") != new]
        print(f"not as the results have it: {', '.join(differing)}" if differing else "all is as the results have it")
        return int(bool(differing))
    for file, new in made.items():
        file.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), check="--check" in sys.argv))
