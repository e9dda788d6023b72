"""Options of evaluate about a model on a server: where it runs, what it is compared with, whether it answered."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal, plain, say
from crossmatch.errors import ExitCode, InputError

if TYPE_CHECKING:
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.evaluation import Suite
    from crossmatch.evaluation.conditions import Plan
    from crossmatch.evaluation.run import Records
    from crossmatch.evaluation.served_identity import Local

Server = Annotated[str | None, typer.Option(help="Ask a server's model: URL of its completions API.")]
Model = Annotated[str | None, typer.Option(help="The model's name on that server.")]
SameAs = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Checkpoint that the server is said to run: their answers are compared first."),
]


@dataclass(frozen=True)
class Serving:
    """A model on a server: its URL, its name there, and the checkpoint that it is said to be (None: not said)."""

    url: str
    name: str
    same_as: str | None


def read_serving(server: str | None, model: str | None, same_as: str | None) -> Serving | None:
    """The three options as one. Raises InputError for half of them."""
    if same_as is not None and server is None:
        raise InputError("--same-as says what a server runs; add --server and --model")
    if server is None and model is None:
        return None
    if server is None or model is None:
        raise InputError("--server and --model belong together: where it runs, and what it is called there")
    return Serving(server, model, same_as)


def ask_served(
    base: "Checkpoint", serving: Serving, suites: "list[Suite]", plan: "Plan", output: Path
) -> "tuple[Records, dict[str, Any]]":
    """Records of the model on a server, and what is known of it.

    Raises InputError, before it is asked any item, if it has other weights than the checkpoint that it is said to be.
    """
    from crossmatch.chat import open_tokenizer
    from crossmatch.checkpoint import side_digest
    from crossmatch.evaluation.run import SERVED, Elsewhere, evaluate_served
    from crossmatch.evaluation.served import ServedModel
    from crossmatch.evaluation.served_identity import ask_own, check_still, identify, probes_of, settled

    tokenizer = open_tokenizer(base.path)
    served = ServedModel(serving.url, serving.name, key=os.environ.get("CROSSMATCH_API_KEY"))
    probes = probes_of(tokenizer)
    own = ask_own(served, probes, Terminal())
    facts: dict[str, Any] = {"url": serving.url, "model": serving.name, "same_as": serving.same_as}
    facts |= {"software": served.facts.owner or None, "version": served.version}
    local = _local(base, serving.same_as, probes, plan) if serving.same_as is not None else None
    found = identify(served, own, local, probes, Terminal())
    if found.verdict == "other":
        raise InputError(found.line)
    say(found.line if found.verdict == "same" else f"WARNING: {found.line}")
    # The weights here have been compared; what is measured of them is loaded anew.
    del local
    about = [serving.url, serving.name, side_digest(base.path), list(probes)]
    digest = settled(output / SERVED.name / "server.json", about, own)
    elsewhere = Elsewhere(served, tokenizer, digest)
    records = evaluate_served(elsewhere, suites, output, conditions=plan.conditions, progress=Terminal())
    unchecked = check_still(served, own, probes)
    for line in [*served.notes, *([unchecked] if unchecked else [])]:
        say(f"note: {line}")
    return records, {**facts, **vars(found), "unchecked": unchecked}


def _local(base: "Checkpoint", path: str, probes: tuple[str, ...], plan: "Plan") -> "Local":
    from crossmatch.chat import open_tokenizer
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.evaluation.engine import Engine
    from crossmatch.evaluation.served_identity import Local
    from crossmatch.evaluation.written import checkpoint_variants

    if Checkpoint(path).quantisation:
        raise InputError(f"--same-as {path} is quantised; give the checkpoint from which it was made, or leave it out")
    (variant,) = checkpoint_variants(base, {"same-as": path})
    assert variant.checkpoint is not None
    if variant.note:
        say(f"note: --same-as {path}: {variant.note}")
    with Terminal().task("load the checkpoint to compare with"):
        engine = Engine(variant.checkpoint, None, plan.batch_size, plan.memory, open_tokenizer(base.path))
        return Local.of(engine, probes)


def exit_unjudged(summary: Mapping[str, Any]) -> None:
    """Say of which suites no item was answered by all, and end as inconclusive if there is one."""
    found = False
    for condition, facts in summary["conditions"].items():
        for name, suite in facts["suites"].items():
            if suite["asked"] and not suite["n"]:
                variant, fault = next(iter(suite["incomplete"].items()))
                line = f"{variant}: {fault['failed']} of {suite['asked']} failed; {fault['reason']}"
                line = f"suite {name} under {condition} could not be judged: no item was answered by all ({line})"
                print(f"error: {plain(line)}", file=sys.stderr)
                found = True
    if found:
        raise typer.Exit(ExitCode.INCONCLUSIVE)
