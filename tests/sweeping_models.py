"""A tiny chat model with two adapters and two suites, for sweeps."""

import json
from pathlib import Path
from typing import Any

from helpers import make_interfering

WORDS = "heart cell disease lung kidney bone".split()


def make_searched(root: Path) -> None:
    """Base, `pt`, `sft`, and the suites `ask` (generation) and `pick` (choice) of the same 36 questions."""
    make_interfering(root)
    asked = [f"what is {'very ' * (i % 5)}{WORDS[i % 6]} {WORDS[i // 6 % 6]}" for i in range(36)]
    rows = [
        {"id": str(i), "question": text, "reference": f"a disease of the {WORDS[i % 6]}"}
        for i, text in enumerate(asked)
    ]
    (root / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "ask.yaml").write_text("name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 5\n")
    options = {"options": ["heart", "a disease of blood", "the old cell"]}
    chosen = [{"id": str(i), "question": text, **options, "answer": i % 3} for i, text in enumerate(asked)]
    (root / "pick.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    (root / "pick.yaml").write_text(
        "name: pick\nversion: 1\nkind: choice\ndata: pick.jsonl\nprompt: 'pick: {question}'\n"
    )


def make_study(root: Path) -> dict[str, Any]:
    """A small grid over it, as plain values."""
    return {
        "name": "small",
        "base": str(root / "base"),
        "adapters": {name: str(root / name) for name in ("pt", "sft")},
        "suites": [str(root / "ask.yaml"), str(root / "pick.yaml")],
        "goals": ["acc"],
        "constraints": ["rougeL not below sft"],
        "space": {"pt": "0..1 step 0.5", "sft": "0..1 step 0.5"},
    }
