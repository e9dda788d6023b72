"""The text of a recipe, with what a reader may want to change said beside it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmatch.study.init.findings import Questions

_PLAIN = re.compile(r"[A-Za-z0-9./][\w./-]*")


@dataclass(frozen=True)
class Chosen:
    """What a recipe will hold: adapters by name with their fields; merged: written checkpoints by name; unused: other
    checkpoints; spare: adapters that could be trained, with their fields."""

    name: str
    base: str
    adapters: Mapping[str, Mapping[str, str]]
    weights: Mapping[str, float]
    reference: str
    suites: tuple[str, ...]
    merged: Mapping[str, str]
    unused: Mapping[str, str]
    spare: Mapping[str, Mapping[str, str]]


def recipe_text(chosen: Chosen, guessed: Sequence[str]) -> str:
    """A recipe as `crossmatch run` takes it. Paths are relative to the directory in which it is run."""
    lines = ["# A study: adapters, their merge with its proof, what it gains and loses. Written by `crossmatch init`."]
    lines += ["# Guessed, so please check:", *(f"#   {line}" for line in guessed)] if guessed else []
    lines += [
        "# Plan: crossmatch run THIS_FILE --dry-run    Run or resume: crossmatch run THIS_FILE",
        f"name: {_value(chosen.name)}",
        "question: What does merging these adapters gain and lose?",
        f"base: {_value(chosen.base)}",
        "# dtype: bfloat16   # of merged checkpoints; default: the base's",
        "",
        "adapters:",
    ]
    for name, fields in chosen.adapters.items():
        lines += [f"  {_value(name)}:", *(f"    {key}: {_value(value)}" for key, value in fields.items())]
        if "stage" in fields:
            lines.append(f"    train: {_training(fields['stage'])}")
    if chosen.spare:
        lines += ["  # Not trained on, since adapters are there; adapters of your own would be (pt: documents):"]
    for name, fields in chosen.spare.items():
        lines += [f"  # {name}:", *(f"  #   {key}: {_value(value)}" for key, value in fields.items())]
    weights = ", ".join(f"{_value(name)}: {weight:g}" for name, weight in chosen.weights.items())
    lines += ["", "merges: # a line for each; a weight may differ by module, as in '0.3,mlp:0.2'", f"  - {{{weights}}}"]
    return "\n".join([*lines, "", *_evaluation(chosen)]) + "\n"


def _training(stage: str) -> str:
    rate = "1e-3" if stage == "pt" else "5e-4"
    return f"{{rank: 16, alpha: 32, learning_rate: {rate}, batch_size: 8, max_length: 512, epochs: 1, seed: 0}}"


def _evaluation(chosen: Chosen) -> list[str]:
    """The part on measuring: as comments where there is no suite."""
    suites = ", ".join(map(_value, chosen.suites)) or "my-suite.yaml"
    lines = [
        "evaluation:",
        f"  suites: [{suites}]",
        f"  reference: {_value(chosen.reference)} # the others are compared with it",
        "  # templates: [own, chatml]        # prompt templates, each with each decoding",
        "  # decodings: [greedy, T0.6p0.8]   # T0.6p0.8: temperature and nucleus, five seeds",
    ]
    if chosen.merged:
        lines.append("  checkpoints: # written ones, asked the same prompts")
        lines += [f"    {_value(name)}: {_value(path)}" for name, path in chosen.merged.items()]
    if chosen.unused:
        if not chosen.merged:
            lines.append("  # checkpoints: # written ones, asked the same prompts")
        lines += [f"  #   {_value(name)}: {_value(path)}" for name, path in chosen.unused.items()]
    if chosen.suites:
        return lines
    head = (
        "# No suite was found, so nothing is measured. A suite is a YAML file that names questions (docs/evaluate.md):"
    )
    return [head, *(f"# {line}" for line in lines)]


def suite_text(questions: Path, form: Questions, recipe: Path) -> str:
    """A suite for a file of questions in this project's own form, to lie beside a recipe."""
    name = questions.name.partition(".")[0]
    lines = [
        "# Questions of one kind, asked of every variant (docs/evaluate.md has all fields). By `crossmatch init`.",
        f"name: {_value(re.sub(r'[^A-Za-z0-9_.-]+', '-', name))}",
        "version: 1",
        f"kind: {form.kind}",
        f"data: {_value(_beside(questions, recipe))}",
    ]
    lines += ["max_new_tokens: 64"] if form.kind == "generation" else []
    lines += [] if form.ids else ["fields: {question: question} # no ids: questions are numbered by their row"]
    return "\n".join(lines) + "\n"


def _beside(questions: Path, recipe: Path) -> str:
    """The path from the recipe's folder: as it was found, unless a link on the way there leads elsewhere."""
    found = os.path.relpath(questions.absolute(), recipe.absolute().parent)
    there = recipe.parent / found
    if there.exists() and there.samefile(questions):
        return found
    return os.path.relpath(questions.resolve(), recipe.resolve().parent)


def _value(text: str) -> str:
    """A text as YAML: plain where nothing could be read otherwise, else quoted."""
    return (
        text
        if _PLAIN.fullmatch(text) and not re.fullmatch(r"[\d.e+-]+|true|false|null|yes|no", text, re.I)
        else json.dumps(text)
    )
