"""A model on a server: probed, identified, asked, probed again."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint, side_digest
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.suites import Suite
from crossmatch.data.turn_ends import declared_eos
from crossmatch.errors import InputError
from crossmatch.evaluation.conditions import Plan
from crossmatch.evaluation.inference.served.identity import Local, ask_own, check_still, identify, probes_of, settled
from crossmatch.evaluation.inference.served.model import ServedModel
from crossmatch.evaluation.record import Records
from crossmatch.evaluation.runner.runner import Elsewhere, evaluate_served
from crossmatch.evaluation.variants.checkpoints import checkpoint_variants
from crossmatch.evaluation.variants.variants import SERVED
from crossmatch.results.summary import ServerJson
from crossmatch.runtime import Progress


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
    base: Checkpoint,
    serving: Serving,
    suites: Sequence[Suite],
    plan: Plan,
    out: Path,
    adapters: Mapping[str, Recorded],
    progress: Progress,
) -> tuple[Records, ServerJson]:
    """Records of the model on a server, and what is known of it. A key is taken from CROSSMATCH_API_KEY.

    Raises InputError, before it is asked any item, if it has other weights than the checkpoint that it is said to be.
    """
    tokenizer = open_tokenizer(base.path)
    key = os.environ.get("CROSSMATCH_API_KEY")
    served = ServedModel(serving.url, serving.name, key=key, tokenizer=tokenizer)
    probes = probes_of(tokenizer)
    own = ask_own(served, probes, progress)
    local = _local(base, serving.same_as, probes, plan, progress) if serving.same_as is not None else None
    found = identify(served, own, local, probes, progress)
    if found.verdict == "other":
        remedy = "look at what it loaded under that name (adapters, --model), or give its own checkpoint"
        raise InputError(f"{found.line}; {remedy}")
    progress.say(found.line if found.verdict == "same" else f"WARNING: {found.line}")
    # The weights here have been compared; what is measured of them is loaded anew.
    del local
    about = [serving.url, serving.name, side_digest(base.path), list(probes)]
    digest = settled(out / SERVED.name / "server.json", about, own)
    elsewhere = Elsewhere(served, tokenizer, digest, eos=declared_eos(base.path, tokenizer), taught=adapters)
    records = evaluate_served(elsewhere, suites, out, conditions=plan.conditions, progress=progress)
    unchecked = check_still(served, own, probes)
    for line in [*served.notes, *([unchecked] if unchecked else [])]:
        progress.say(f"note: {line}")
    return records, {
        "url": serving.url,
        "model": serving.name,
        "same_as": serving.same_as,
        "software": served.server.facts.owner or None,
        "version": served.server.version,
        "verdict": found.verdict,
        "agreement": found.agreement,
        "gap": found.gap,
        "probes": found.probes,
        "line": found.line,
        "unchecked": unchecked,
    }


def _local(base: Checkpoint, path: str, probes: tuple[str, ...], plan: Plan, progress: Progress) -> Local:
    from crossmatch.evaluation.inference.local_model import Engine

    if Checkpoint(path).quantisation:
        raise InputError(f"--same-as {path} is quantised; give the checkpoint from which it was made, or leave it out")
    (variant,) = checkpoint_variants(base, {"same-as": path})
    assert variant.checkpoint is not None
    if variant.note:
        progress.say(f"note: --same-as {path}: {variant.note}")
    with progress.task("load the checkpoint to compare with"):
        engine = Engine(variant.checkpoint, None, plan.batch_size, plan.memory, open_tokenizer(base.path))
        return Local.of(engine, probes)
