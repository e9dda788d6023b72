"""Run every cell of every architecture and write docs/models.md: `make models`, or `python -m architectures.table` in
tests."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from architectures.zoo import MULTIMODAL, kinds

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
ADAPTERS = ("all-linear", "attention")
MORE = [
    *((kind, "experts") for kind in ("mixtral", "qwen3_moe", "gpt_oss", "olmoe")),
    *((kind, adapter) for kind in ("llama", "qwen2", "mistral", "gpt2") for adapter in ("saved", "tokens")),
]
Key = tuple[str, str]


def answer(key: Key) -> tuple[Key, dict[str, str]]:
    """One row: kind of model and of adapter -> what is wrong in each cell."""
    import torch
    import transformers

    from architectures.cells import Bench, outcomes

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as root:
        return key, outcomes(Bench(*key, Path(root)))


def document(found: dict[Key, dict[str, str]]) -> str:
    """The page: a summary, the table, and what is printed where a cell is not right."""
    import peft
    import torch
    import transformers

    from architectures.cells import CELLS

    made = {key: row for key, row in found.items() if "setup" not in row}
    lines = [
        "# Models",
        "",
        "A tiny random model of every decoder that transformers knows, with adapters made by PEFT; `make models` writes "
        "this page.",
        f"transformers {transformers.__version__}, PEFT {peft.__version__}, torch {torch.__version__.partition('+')[0]}.",
        "",
        "Columns: what `inspect` reads; our merge in float32 against PEFT's logits; our merge in bfloat16, verified; "
        "`verify` of our float32 file, of PEFT's own `merge_and_unload` in float32 and in bfloat16, and of a merge with "
        "one module left out (which must fail); `identify`; `analyse`; `vectors extract` and `apply`, bit for bit; "
        "`evaluate`: options, answers, perplexity and KL against plain passes of PEFT's merge.",
        "",
        f"{len({kind for kind, _ in made})} architectures, {len(made)} rows. Right, of those that were made:",
        "",
        "| cell | right | of |",
        "|---|---|---|",
    ]
    right = Counter(name for row in made.values() for name, text in row.items() if not text)
    lines += [f"| {name} | {right[name]} | {len(made)} |" for name in CELLS]
    lines += ["", "✓: right; a number: the line below the table.", ""]
    lines += ["| model_type | adapter | " + " | ".join(CELLS) + " |", "|---|---|" + "---|" * len(CELLS)]
    notes: dict[str, int] = {}
    for (kind, adapter), row in made.items():
        shown = ["✓" if not row[name] else str(notes.setdefault(_plain(row[name]), len(notes) + 1)) for name in CELLS]
        name = f"{kind} (text part)" if kind in MULTIMODAL else kind
        lines.append(f"| {name} | {adapter} | " + " | ".join(shown) + " |")
    lines += ["", "## What is printed", "", *(f"{number}. {text}" for text, number in notes.items())]
    lines += ["", "## Not made", "", "transformers or PEFT cannot make a tiny one with the settings used here.", ""]
    lines += [
        f"- {kind}, {adapter}: {_plain(row['setup'])}" for (kind, adapter), row in found.items() if "setup" in row
    ]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("<", "&lt;")


def main(names: list[str]) -> int:
    """Run all rows, or those of the named kinds only, which writes no page; the number of rows that
    are not right throughout."""
    rows = [(kind, adapter) for kind in (names or kinds()) for adapter in ADAPTERS]
    rows += [key for key in MORE if not names or key[0] in names]
    found: dict[Key, dict[str, str]] = {}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(answer, key) for key in rows]):
            key, row = future.result()
            found[key] = row
            wrong = {name: text for name, text in row.items() if text}
            print(len(found), *key, wrong or "right", flush=True)
            if not names:
                DOCUMENT.write_text(document({key: found[key] for key in rows if key in found}), encoding="utf-8")
    return sum(any(row.values()) for row in found.values())


if __name__ == "__main__":
    main(sys.argv[1:])
