"""What examples speak of: a base, two adapters, their merge, data, a suite, a study."""

import json
from pathlib import Path

import pytest

from crossmatch.checkpoint import MANIFEST
from crossmatch.cli import run
from helpers import make_adapter, make_chat_model

FILES = {
    "pt.jsonl": [{"text": "blood is a name"}, {"text": "heart disease is old"}],
    "sft.jsonl": [{"prompt": "what is blood", "completion": "a cell"}] * 8,
    "choice.jsonl": [
        {"id": str(n), "question": f"what is {word} ?", "options": ["heart", "bone"], "answer": n % 2}
        for n, word in enumerate(("anaemia", "lung", "kidney", "cell"))
    ],
    "define.jsonl": [
        {"id": str(n), "question": f"define {word}", "reference": f"the {word} of blood"}
        for n, word in enumerate(("anaemia", "lung", "kidney", "cell"))
    ],
}
FILES["exam.jsonl"] = [{**row, "id": f"{row['id']}-{n}"} for n in range(6) for row in FILES["choice.jsonl"]]
SUITES = {
    "exam.yaml": "name: exam\nversion: 1\nkind: choice\ndata: exam.jsonl\n",
    "choice.yaml": "name: choice\nversion: 1\nkind: choice\ndata: choice.jsonl\n",
    "define.yaml": "name: define\nversion: 1\nkind: generation\ndata: define.jsonl\nmax_new_tokens: 4\n",
}
STUDY = """\
name: small
base: models/base
adapters:
  pt: {path: runs/pt}
  sft: {path: runs/sft}
merges:
  - {pt: 0.3, sft: 0.7}
"""


def lay_out(root: Path) -> None:
    make_chat_model(root / "models" / "base")
    for seed, name in enumerate(("pt", "sft"), 1):
        make_adapter(root / "models" / "base", root / "runs" / name, seed=seed)
    for name, rows in FILES.items():
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in {**SUITES, "study.yaml": STUDY}.items():
        (root / name).write_text(text)
    base, pt, sft = (str(root / path) for path in ("models/base", "runs/pt", "runs/sft"))
    merge = ["merge", base, "-a", f"pt={pt}", "-a", f"sft={sft}", "-w", "pt=0.3", "-w", "sft=0.7"]
    assert run([*merge, "-o", str(root / "models" / "merged")]) == 0
    # What a script makes that scales both factors of each adapter, and calls 0.3 and 0.7.
    squared = [*merge[:-3], "pt=0.09", "-w", "sft=0.49"]
    assert run([*squared, "-o", str(root / "downloads" / "theirs")]) == 0
    (root / "downloads" / "theirs" / MANIFEST).unlink()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples of a module, which build on each other."""
    root = tmp_path_factory.mktemp("workplace")
    lay_out(root)
    return root
