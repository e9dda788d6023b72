"""What a study would do, and about how long: worked out from shapes and text, without a weight loaded."""

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import read_json
from crossmatch.data.rows import hub_name
from crossmatch.errors import RecipeError
from crossmatch.evaluation import Suite, Variant, load_suite, merge_name
from crossmatch.evaluation.conditions import Condition, cells, conditions_of
from crossmatch.evaluation.pipeline import EvaluationRequest
from crossmatch.report.text import count
from crossmatch.results.study import PlannedStageJson, StudyPlanJson
from crossmatch.study.preflight import render_all, rendered_sets, rendered_suites, variants_of
from crossmatch.study.recipe import SAMPLE, AdapterRecipe, Recipe
from crossmatch.study.sample import write_data
from crossmatch.training import Dialogue, load_examples

# Text of English and Chinese medical corpora runs at 3 to 5 characters a token; a chat template adds about 35 tokens.
CHARACTERS_PER_TOKEN = 4.0
TEMPLATE_TOKENS = 35
# Share of the speed of a plain matrix product that was seen: in training, in scoring, in generating.
EFFICIENCY = {"train": 0.55, "score": 0.5, "generate": 0.2}
# float32 values kept per token, layer and hidden unit for the backward pass of a frozen base with LoRA layers.
ACTIVATIONS = 34
GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """A model by its shapes: parameters, linear modules as (name, d_out, d_in), layers, hidden size, vocabulary."""

    parameters: int
    linear: tuple[tuple[str, int, int], ...]
    layers: int
    hidden: int
    vocabulary: int

    def lora_parameters(self, rank: int) -> int:
        """Trainable parameters of a LoRA of this rank on all linear modules but the output embedding."""
        return sum(rank * (out + inner) for _, out, inner in self.linear)


@dataclass(frozen=True)
class PlannedStage:
    """One stage: what it does, tokens through the model, seconds and GiB at the peak; None where it cannot be told.

    records: what the stages of a run are called that this one stands for.
    """

    name: str
    what: str
    tokens: int | None = None
    seconds: float | None = None
    gib: float | None = None
    records: tuple[str, ...] = ()


def plan_study(recipe: Recipe, runs: str | Path = "runs") -> StudyPlanJson:
    """The stages of a study with tokens, estimated seconds on this machine and memory; plain JSON.

    finished: stages of which `<runs>/<name>` has a record already; they are skipped if their inputs are unchanged,
    which is not looked at here. rendered: what was rendered of prompts and training rows (`render_all`).

    Shapes come from the recipe's `architecture`, else from the base's config.json. Raises RecipeError if there is
    neither, or if transformers does not know the model type.
    """
    shape, speed = model_shape(recipe), measured_flops()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        if recipe.sample:
            write_data(data, recipe.sample)
        # A base from elsewhere is read, not made.
        record = ("base",) if recipe.base.startswith(SAMPLE) else ()
        said = f"{recipe.base}: {count(shape.parameters)} parameters"
        stages = [PlannedStage("base", said, records=record)]
        for name, adapter in recipe.adapters.items():
            stages.append(_training(name, adapter, shape, speed, data))
        for weights in recipe.mixtures:
            sizes = recipe.dtype or "stored as the base"
            what = " + ".join(f"{weight:g} {name}" for name, weight in weights.items())
            done = tuple(f"{step}-{merge_name(weights)}" for step in ("merge", "verify"))
            said = f"{what}, {len(shape.linear)} modules, {sizes}"
            stages.append(PlannedStage("merge and verify", said, records=done))
        stages += _evaluation(recipe, shape, speed, data)
    rendered = render_all(recipe, Path(runs) / recipe.name)
    return _planned(recipe.name, shape, speed, stages, rendered, Path(runs) / recipe.name / "stages")


def plan_training(base: Path, name: str, adapter: AdapterRecipe) -> StudyPlanJson:
    """The same for one adapter that is trained on a base on this machine. Raises DataError for a bad row."""
    shape, speed = shape_of(read_json(base / "config.json")), measured_flops()
    return _planned(name, shape, speed, [_training(name, adapter, shape, speed, base)], rendered_sets(adapter, base))


def plan_evaluation(name: str, request: EvaluationRequest) -> StudyPlanJson:
    """The same for an evaluation of variants of a base on this machine. Raises DataError for a prompt that a template
    refuses, or that does not fit into the positions of a model that is asked here."""
    base, plan = request.base.path, request.plan
    shape, speed = shape_of(read_json(base / "config.json")), measured_flops()
    stages = [_asked(suite, plan.conditions, len(request.every), shape, speed) for suite in request.suites]
    models = {(variant.checkpoint or request.base).path for variant in request.variants}
    templates = [condition.template for condition in plan.conditions]
    compared = plan.kl if len(request.variants) > 1 else 0
    rendered = rendered_suites(request.suites, templates, base, sorted(models), compared)
    return _planned(name, shape, speed, stages, rendered)


def _planned(
    name: str,
    shape: Shape,
    speed: float,
    stages: Sequence[PlannedStage],
    rendered: Iterable[str],
    ledger: Path | None = None,
) -> StudyPlanJson:
    return {
        "schema_version": 1,
        "study": name,
        "parameters": shape.parameters,
        "adapted_modules": len(shape.linear),
        "flops": speed,
        "stages": [_shown(stage, ledger) for stage in stages],
        "rendered": list(rendered),
        "seconds": sum(stage.seconds for stage in stages if stage.seconds is not None),
        "gib": max((s.gib for s in stages if s.gib is not None), default=None),
    }


def _shown(stage: PlannedStage, ledger: Path | None) -> PlannedStageJson:
    done = (
        ledger is not None
        and bool(stage.records)
        and all((ledger / f"{name}.json").is_file() for name in stage.records)
    )
    return {
        "name": stage.name,
        "what": stage.what,
        "tokens": stage.tokens,
        "seconds": stage.seconds,
        "gib": stage.gib,
        "finished": done,
    }


def model_shape(recipe: Recipe) -> Shape:
    """Shapes of the base. Raises RecipeError without its config, or if transformers does not know the model type."""
    return shape_of(recipe.architecture or _local_config(recipe.base))


def shape_of(config_json: Mapping[str, Any]) -> Shape:
    """Shapes of a model of this config, on the meta device: nothing is allocated. Raises RecipeError."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    raw = dict(config_json)
    try:
        config = AutoConfig.for_model(raw.pop("model_type"), **raw)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"architecture: transformers cannot build this model: {error}") from error
    linear = tuple(
        (name, module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
    )
    parameters = sum(p.numel() for p in model.parameters())
    text = config.get_text_config()
    return Shape(parameters, linear, text.num_hidden_layers, text.hidden_size, text.vocab_size)


def measured_flops() -> float:
    """Floating-point operations a second of a float32 matrix product here (bfloat16 on a GPU), in a quarter second."""
    import torch

    gpu = torch.cuda.is_available()
    size, dtype = (8192, torch.bfloat16) if gpu else (1024, torch.float32)
    matrix = torch.ones(size, size, dtype=dtype, device="cuda" if gpu else "cpu")
    torch.mm(matrix, matrix)
    if gpu:
        torch.cuda.synchronize()
    count, started = 0, time.monotonic()
    while (elapsed := time.monotonic() - started) < 0.25 or count < 2:
        torch.mm(matrix, matrix)
        if gpu:
            torch.cuda.synchronize()
        count += 1
    return 2.0 * size**3 * count / max(elapsed, 1e-9)


def _local_config(base: str) -> dict[str, Any]:
    file = Path(base) / "config.json"
    if not file.exists():
        raise RecipeError(f"base {base} is not on this machine: give its config as `architecture:` to plan without it")
    return read_json(file)


def _training(name: str, adapter: AdapterRecipe, shape: Shape, speed: float, data: Path) -> PlannedStage:
    if adapter.path is not None:
        return PlannedStage(f"adapter {name}", f"read from {adapter.path}")
    settings = adapter.train
    per_step = settings.batch_size * settings.accumulation * settings.max_length
    found = [_text_tokens(name, adapter, data) for name in adapter.sets]
    tokens = None if None in found else int(sum(filter(None, found)) * settings.epochs)
    if settings.max_steps is not None:
        tokens = min(tokens or settings.max_steps * per_step, settings.max_steps * per_step)
    width = 4 if settings.dtype == "float32" else 2
    in_flight = settings.batch_size * settings.max_length
    kept = shape.hidden * (1 if settings.checkpoint_activations else ACTIVATIONS) * shape.layers * width
    memory = shape.parameters * width + shape.lora_parameters(settings.rank) * 16 + in_flight * kept
    memory += in_flight * shape.vocabulary * 4 // 2
    work = 4.0 * shape.parameters * (tokens or 0) * (1.5 if settings.checkpoint_activations else 1.0)
    trained = count(shape.lora_parameters(settings.rank))
    return PlannedStage(
        f"train {name}",
        f"{adapter.stage} on {' and '.join(adapter.sets)}, rank {settings.rank}, {trained} trained parameters",
        tokens,
        work / (speed * EFFICIENCY["train"]) if tokens else None,
        memory / GIB,
        (f"train-{name}",),
    )


def _text_tokens(name: str, adapter: AdapterRecipe, data: Path) -> int | None:
    """Tokens of one epoch of a data set, by the length of the text; None for one that is not on this machine."""
    path = data / f"{name.removeprefix(SAMPLE)}.jsonl" if name.startswith(SAMPLE) else Path(name)
    if not path.is_file():
        hub_name(str(path))
        return None
    total = 0.0
    for example in load_examples(path, adapter.columns):
        if isinstance(example, Dialogue):
            total += TEMPLATE_TOKENS + example.characters / CHARACTERS_PER_TOKEN
        else:
            total += len(example.text) / CHARACTERS_PER_TOKEN
    return int(total)


def _evaluation(recipe: Recipe, shape: Shape, speed: float, data: Path) -> list[PlannedStage]:
    wanted = recipe.evaluation
    if wanted is None:
        return []
    variants = len(variants_of(recipe, dict.fromkeys(recipe.adapters))) + len(wanted.checkpoints)
    conditions = conditions_of(wanted.templates, wanted.decodings)
    stages = []
    for suite_name in wanted.suites:
        sampled = suite_name.startswith(SAMPLE)
        suite = load_suite(data / f"{suite_name.removeprefix(SAMPLE)}.yaml" if sampled else suite_name)
        stages.append(_asked(suite, conditions, variants, shape, speed))
    return stages


def _asked(suite: Suite, conditions: Sequence[Condition], variants: int, shape: Shape, speed: float) -> PlannedStage:
    """A suite, asked of a number of variants under some conditions."""
    asked = [len(i.question) / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS for i in suite.items]
    options = [sum(map(len, i.options)) / CHARACTERS_PER_TOKEN for i in suite.items]
    read, answers = _passes(suite, conditions)
    scored = (sum(asked) + sum(options)) * read
    # Asked again, every answer is generated twice at most.
    generated = suite.settings.max_new_tokens * len(suite.items) * answers * (1 + bool(suite.settings.sustain))
    seconds = 2.0 * shape.parameters * (scored / EFFICIENCY["score"] + generated / EFFICIENCY["generate"]) / speed
    under = f" under {len(conditions)} conditions" if len(conditions) > 1 else ""
    what = f"{len(suite.items)} {suite.settings.kind} items x {variants} variants{under}"
    tokens = int((scored + generated) * variants)
    return PlannedStage(f"evaluate {suite.settings.name}", what, tokens, seconds * variants, None, ("evaluate",))


def _passes(suite: Suite, conditions: Sequence[Condition]) -> tuple[int, int]:
    """How often a variant reads the items of a suite, and how often it answers them, under all conditions: once a seed
    for answers, once an order for options."""
    kind = suite.settings.kind
    answered = kind in ("generation", "instructions") or suite.settings.generative
    asked = cells([Variant("base", "base", {})], [suite], conditions)
    answers = sum(len(cell.condition.seeds) for cell in asked) if answered else 0
    scored = sum(cell.scored for cell in asked) if kind in ("choice", "text") else 0
    return answers + scored * (1 + suite.settings.permutations), answers
