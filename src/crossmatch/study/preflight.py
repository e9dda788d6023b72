"""What can be known to be wrong before hours of training begin."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import TOKENIZER_FILES, Checkpoint
from crossmatch.data.chat_templates import OWN, check_training, open_tokenizer
from crossmatch.data.prompt_templates import Template, find_template
from crossmatch.data.responses import read_as
from crossmatch.data.rows import hub_name, is_cached
from crossmatch.data.suite_rendering import render_rows, render_suite
from crossmatch.data.training_sets import dialogues, documents, notes
from crossmatch.errors import RecipeError
from crossmatch.evaluation import Suite, Variant, load_suite, merge_name
from crossmatch.evaluation.comparison.combination import Combination
from crossmatch.evaluation.conditions import Condition
from crossmatch.evaluation.runner.prompt_lengths import check_lengths
from crossmatch.evaluation.runner.questions import Questions
from crossmatch.evaluation.variants.strengths import all_variants
from crossmatch.positions import check_blocks, fewest_positions
from crossmatch.rules import Weight
from crossmatch.study.recipe import SAMPLE, AdapterRecipe, Recipe, local_path
from crossmatch.training import load_examples


def check_recipe(recipe: Recipe) -> None:
    """Read every local file that the study will need: data, suites, adapters, templates.

    Raises what reading them raises, RecipeError for merges or suites of one name, RuleError for variants of one name.
    """
    for name, adapter in recipe.adapters.items():
        if adapter.path is not None:
            Adapter(adapter.path)
        for data in adapter.sets:
            if not data.startswith(SAMPLE) and _is_local(data):
                examples = load_examples(data, adapter.columns)
                if adapter.stage == "sft":
                    dialogues(examples, data)
        template = adapter.train.template
        if template is not None and not template.startswith(OWN) and not Path(template).is_file():
            raise RecipeError(
                f"adapters.{name}.train.template: {template} does not exist; give a Jinja file, or own:NAME"
            )
    _check_names(recipe)
    wanted = recipe.evaluation
    if wanted is None:
        return
    for template in wanted.templates:
        find_template(template)
    names = [suite if suite.startswith(SAMPLE) else load_suite(suite).settings.name for suite in wanted.suites]
    if len({name.removeprefix(SAMPLE) for name in names}) < len(names):
        raise RecipeError("evaluation.suites: two suites have one name; their answers would overwrite each other")
    for path in wanted.checkpoints.values():
        Checkpoint(path)
    variants_of(recipe, dict.fromkeys(recipe.adapters))


def render_all(recipe: Recipe, root: Path) -> list[str]:
    """Render every prompt of every suite under every template, and every training dialogue, where base and data are on
    this machine; a line for each, and for what cannot be rendered yet.

    root: the study's directory, where base and data of the sample are made. Raises DataError, with file and line, for
    the first that a chat template refuses or leaves out.
    """
    base = root / "base" if recipe.base.startswith(SAMPLE) else Path(recipe.base)
    if not (base / "config.json").is_file():
        return [f"prompts are not rendered: base {recipe.base} is not on this machine yet"]
    if not any((base / file).is_file() for file in TOKENIZER_FILES):
        return [f"prompts are not rendered: base {recipe.base} has no tokenizer"]
    lines = []
    for name, adapter in recipe.adapters.items():
        if adapter.path is None:
            places = {data: local_path(recipe, root, data, ".jsonl") for data in adapter.sets}
            lines += [f"adapter {name}: {line}" for line in rendered_sets(adapter, base, places)]
    if recipe.evaluation is None:
        return lines
    suites = []
    for suite_name in recipe.evaluation.suites:
        file = local_path(recipe, root, suite_name, ".yaml")
        if suite_name.startswith(SAMPLE) and not Path(file).is_file():
            lines.append(f"suite {suite_name} is not rendered, it is not on this machine yet")
        else:
            suites.append(load_suite(file))
    templates = [find_template(name) for name in recipe.evaluation.templates]
    models = [base, *(Checkpoint(path).path for path in recipe.evaluation.checkpoints.values())]
    return [*lines, *rendered_suites(suites, templates, base, models, recipe.evaluation.kl)]


def rendered_suites(
    suites: Sequence[Suite], templates: Sequence[Template], base: Path, models: Sequence[Path], kl: int
) -> Iterator[str]:
    """A line for each suite, every prompt of which is rendered under every template, and for what is cut of prompts.

    models: directories of the models that are asked here, whose positions hold the prompts; kl: items of each
    generation suite on whose references models are compared. Raises DataError for a prompt that is refused.
    """
    tokenizer, most = open_tokenizer(base), fewest_positions(models)
    for suite in suites:
        cut = {}
        for template in templates:
            prompts = render_suite(suite, template, tokenizer)
            questions = Questions(suite, Condition(template), tokenizer, compared=kl, known=prompts)
            cut[check_lengths(questions, most)] = None
        under = ", ".join(sorted({template.name for template in templates}))
        yield f"suite {suite.settings.name}: {len(suite.items)} prompts rendered under {under}"
        yield from (note for note in cut if note is not None)
        if suite.unused:
            yield f"suite {suite.settings.name}: columns that are not read: {', '.join(suite.unused)}"


def rendered_sets(adapter: AdapterRecipe, base: Path, places: Mapping[str, str] | None = None) -> Iterator[str]:
    """A line for each training set of an adapter: how many rows were read as they will be in training, or why none.

    places: where a set lies, if that is not its name. Raises DataError for a bad row.
    """
    settings, reading, most = adapter.train, None, fewest_positions([base])
    if adapter.stage == "pt":
        check_blocks(settings.max_length, most)
    if adapter.stage == "sft":
        check_training(base, settings.template, settings.thinking)
        tokenizer = open_tokenizer(base)
        reading, note = read_as(tokenizer, settings.template, settings.thinking, settings.turn_end)
        if note:
            yield note
    for data in adapter.sets:
        file = (places or {}).get(data, data)
        if not Path(file).is_file() and data.startswith(SAMPLE):
            yield f"{data} was not looked at: it is made in the first stage of the run"
        elif not Path(file).is_file() and not is_cached(data):
            yield f"{data} was not looked at: it is on the hub and was never read on this machine; training reads it"
        else:
            examples = load_examples(file, adapter.columns)
            yield from notes(examples)
            if reading is None:
                yield f"{len(documents(examples)):,} texts of {data} read; PT has no template"
                continue
            rendered = render_rows(examples, data, reading, (settings.max_length, most))
            yield f"{len(examples):,} dialogues of {data} rendered"
            yield from rendered


def variants_of(recipe: Recipe, adapters: Mapping[str, object]) -> list[Variant]:
    """All that a recipe's evaluation measures, written checkpoints aside. Raises RuleError for two of one name."""
    wanted = recipe.evaluation
    assert wanted is not None
    sums = combination_of(recipe, {name: name for name in wanted.suites})
    return all_variants(
        adapters,
        recipe.measured,
        wanted.reference,
        strengths=wanted.strengths,
        nulls=wanted.nulls,
        more=sums.variants() if sums else (),
    )


def combination_of(recipe: Recipe, names: Mapping[str, str]) -> Combination | None:
    """What a recipe combines; names: what it calls a suite -> the suite's own name."""
    wanted = recipe.evaluation.combination if recipe.evaluation else None
    if wanted is None:
        return None
    domains = {domain: tuple(names[suite] for suite in suites) for domain, suites in wanted.domains.items()}
    return Combination(domains, wanted.strengths, wanted.joint)


def _check_names(recipe: Recipe) -> None:
    """Raise RecipeError if two merges would have one name, which is that of a directory and of a variant."""
    named: dict[str, Mapping[str, Weight]] = {}
    for weights in recipe.measured:
        name = merge_name(weights)
        if named.setdefault(name, weights) != weights:
            raise RecipeError(f"merges: two different ones would both be called {name}; rename an adapter")


def _is_local(data: str) -> bool:
    """Whether data lies on this machine; a hub id is read when its turn comes."""
    if not Path(data).is_file():
        hub_name(data)
    return Path(data).is_file()
