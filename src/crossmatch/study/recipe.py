"""The recipe of a study: one YAML file, read strictly; what is not understood is refused by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from crossmatch.answers import MARGIN
from crossmatch.checkpoint import safe_name
from crossmatch.data.recipe_files import parse_recipe, read_recipe_file
from crossmatch.errors import DataError, InputError, RuleError
from crossmatch.evaluation.conditions import conditions_of
from crossmatch.evaluation.inference.batch_memory import ROWS, parse_memory
from crossmatch.evaluation.variants.strengths import MOST, parse_strengths
from crossmatch.rules import Weight, parse_weight
from crossmatch.study.sample import ArithmeticSize, SampleSize
from crossmatch.training import Stage, TrainSettings

SAMPLE = "sample:"


def _strengths(value: Any) -> tuple[float, ...]:
    try:
        return parse_strengths(value)
    except InputError as error:
        raise ValueError(str(error)) from None


Merges = tuple[dict[str, FiniteFloat | str], ...]
"""Weights by adapter name, of each merge."""
Strengths = Annotated[tuple[float, ...], BeforeValidator(_strengths)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AdapterRecipe(_Strict):
    """Where an adapter comes from: trained here (stage, data, train), or a directory or hub id (path).

    data: one data set, or several on which it is trained jointly, shuffled by the seed of `train`.
    """

    path: str | None = None
    stage: Stage | None = None
    data: str | tuple[str, ...] | None = None
    columns: dict[str, str] = {}
    train: TrainSettings = TrainSettings.model_validate({})

    @property
    def sets(self) -> tuple[str, ...]:
        """The data sets that it is trained on; none for an adapter from elsewhere."""
        return (self.data,) if isinstance(self.data, str) else self.data or ()

    @model_validator(mode="after")
    def _one_origin(self) -> "AdapterRecipe":
        trained = self.stage is not None and self.data is not None
        if (self.path is not None) == trained:
            raise ValueError("give either path, or stage and data")
        if self.data is not None and (not self.sets or len(set(self.sets)) < len(self.sets)):
            raise ValueError("data: one data set, or a list of different ones")
        return self


class CombinationRecipe(_Strict):
    """Sums of vectors over a grid. domains: adapter -> the suites of its domain, the first of which stands for it;
    joint: an adapter that was trained on all of them; strengths: of each vector, each with each."""

    domains: dict[str, tuple[str, ...]] = Field(min_length=2)
    joint: str | None = None
    strengths: Strengths = (0.5, 0.75, 1.0)

    @model_validator(mode="after")
    def _sensible(self) -> "CombinationRecipe":
        if self.joint in self.domains:
            raise ValueError(f"joint: {self.joint} is the vector of one domain; give the one trained on all of them")
        empty = next((name for name, suites in self.domains.items() if not suites), None)
        if empty is not None:
            raise ValueError(f"domains.{empty}: give a suite of its domain")
        if not all(self.strengths):
            raise ValueError("strengths: a strength of 0 combines nothing; the single vectors are measured anyway")
        if len(self.strengths) ** len(self.domains) > MOST:
            raise ValueError(f"strengths: more than {MOST} sums; give fewer")
        return self


class EvaluationRecipe(_Strict):
    """What is measured: suites (files, `recipe:` or `sample:` ones), against which variant, under which conditions.

    strengths: adapter -> strengths at which it is measured, as in -0.5:1.5:0.25 or a list, and with nulls whether it is
    critical; combination: sums of vectors over a grid, judged in every vector's domain.

    templates: own, think, nothink, chatml, chatml-empty, chatml-open, strict, or Jinja files; decodings: greedy, or
    temperature and nucleus as in T0.6p0.8 (five seeds; x10 for ten). Every suite runs under every template with every
    decoding. merges: those that are measured in place only, without a file and its proof, as a grid of weights is;
    nulls: variants in which the reference's partners are random deltas of the same spectrum; checkpoints: written ones
    by name, asked the same prompts; kl: items of each generation suite on which KL to the reference and to the base is
    taken, 0 for none; interference: items on which it is measured, 0 for none; memory: for batches, as in 4GB (None: a
    quarter of what is free); margin: points of a score from 0 to 100, or percent of a perplexity, that a variant may
    lose and still be as good as what it is compared with.
    """

    suites: tuple[str, ...] = Field(min_length=1)
    reference: str
    templates: tuple[str, ...] = ("own",)
    decodings: tuple[str, ...] = ("greedy",)
    merges: Merges = ()
    nulls: int = Field(0, ge=0, le=16)
    strengths: dict[str, Strengths] = {}
    combination: CombinationRecipe | None = None
    checkpoints: dict[str, str] = {}
    kl: int = Field(0, ge=0, le=1024)
    interference: int = Field(0, ge=0, le=256)
    batch_size: int = Field(ROWS, ge=1)
    memory: str | None = None
    margin: FiniteFloat = Field(MARGIN, gt=0, le=100)

    @model_validator(mode="after")
    def _known_suites(self) -> "EvaluationRecipe":
        domains = self.combination.domains if self.combination else {}
        unknown = next((s for suites in domains.values() for s in suites if s not in self.suites), None)
        if unknown is not None:
            raise ValueError(f"combination.domains: {unknown} is none of the suites {', '.join(self.suites)}")
        return self

    @model_validator(mode="after")
    def _known_conditions(self) -> "EvaluationRecipe":
        if not self.templates or not self.decodings:
            raise ValueError("a template and a decoding are needed; leave the field out for own and greedy")
        if self.interference == 1:
            raise ValueError("interference: 0 for none, or 2 items at least; one item has no standard error")
        unsafe = next((name for name in self.checkpoints if not safe_name(name)), None)
        if unsafe is not None:
            raise ValueError(f"checkpoints: {unsafe!r} is no name: letters, digits, '_', '.', '-', no path")
        try:
            conditions_of((), self.decodings)
            parse_memory(self.memory)
        except (DataError, InputError) as error:
            raise ValueError(str(error)) from None
        return self


class Recipe(_Strict):
    """A whole study.

    base: directory, hub id or `sample:smollm2`; adapters: by name; merges: those that are written and proved, weights
    by adapter name, numbers or texts such as `0.3,mlp:0.2`; dtype: of the merged checkpoints (None: the base's);
    allow_partial_adapter: merge truncated or untrained adapters as they are; architecture: the base's config, so that
    a plan needs no download.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    question: str = "What does merging these adapters gain and lose?"
    base: str
    architecture: dict[str, Any] | None = None
    adapters: dict[str, AdapterRecipe] = Field(min_length=1)
    merges: Merges = ()
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    allow_partial_adapter: bool = False
    evaluation: EvaluationRecipe | None = None
    sample: SampleSize | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> "Recipe":
        if not self.measured:
            raise ValueError("merges: none; name the weights of one at least, here or in evaluation.merges")
        for name in self.adapters:
            if not safe_name(name):
                raise ValueError(f"adapters: {name!r} is no name: letters, digits, '_', '.', '-', no path")
        for place, merges in self._all_merges():
            for weights in merges:
                unknown = set(weights) - set(self.adapters)
                if unknown or not weights:
                    raise ValueError(
                        f"{place}: {min(unknown) if unknown else 'an empty merge'} is no adapter of this recipe"
                    )
            try:
                _mixtures(merges)
            except RuleError as error:
                raise ValueError(f"{place}: {error}") from None
        if self.evaluation and self.evaluation.reference not in self.adapters:
            raise ValueError(f"evaluation.reference: {self.evaluation.reference} is no adapter of this recipe")
        for place, name in self._named():
            if name not in self.adapters:
                raise ValueError(f"evaluation.{place}: {name} is no adapter of this recipe")
        return self

    def _all_merges(self) -> Iterator[tuple[str, Merges]]:
        """The merges that are written and those that are only measured, with where they stand."""
        yield "merges", self.merges
        yield "evaluation.merges", self.evaluation.merges if self.evaluation else ()

    def _named(self) -> list[tuple[str, str]]:
        """Adapters that the evaluation names, with the place where."""
        if self.evaluation is None:
            return []
        named = [("strengths", name) for name in self.evaluation.strengths]
        if wanted := self.evaluation.combination:
            named += [("combination.domains", name) for name in wanted.domains]
            named += [("combination.joint", wanted.joint)] if wanted.joint is not None else []
        return named

    @property
    def mixtures(self) -> list[dict[str, Weight]]:
        """The merges that are written, their weights read."""
        return _mixtures(self.merges)

    @property
    def measured(self) -> list[dict[str, Weight]]:
        """All merges that are measured: those that are written, and those of the evaluation alone."""
        return [mixture for _, merges in self._all_merges() for mixture in _mixtures(merges)]


def _mixtures(merges: Merges) -> list[dict[str, Weight]]:
    return [{name: parse_weight(weight) for name, weight in merge.items()} for merge in merges]


def load_recipe(file: str | Path) -> Recipe:
    """Read a recipe; paths in it are relative to the working directory.

    Raises RecipeError with the field and, for an unknown one, the closest known.
    """
    path = Path(file)
    return parse_recipe(Recipe, read_recipe_file(path, "give a study's YAML file"), str(path), _fields)


def with_margin(recipe: Recipe, margin: float) -> Recipe:
    """The recipe with another margin. Raises InputError for one that measures nothing."""
    if recipe.evaluation is None:
        raise InputError(f"--margin {margin:g}: the recipe has no `evaluation:` that it could be a margin of")
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"margin": margin})})


def _fields(place: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that may stand where an unknown key stands."""
    parent: list[str] = [str(part) for part in place[:-1] if isinstance(part, str)]
    models: dict[str, type[BaseModel]] = {
        "train": TrainSettings,
        "evaluation": EvaluationRecipe,
        "sample": SampleSize,
        "arithmetic": ArithmeticSize,
        "combination": CombinationRecipe,
    }
    if parent and parent[-1] in models:
        return list(models[parent[-1]].model_fields)
    return list((AdapterRecipe if parent[:1] == ["adapters"] else Recipe).model_fields)


def local_path(recipe: Recipe, root: Path, name: str, suffix: str) -> str:
    """A path from the recipe: `sample:x` lies in the run's data directory."""
    if not name.startswith(SAMPLE):
        return name
    if recipe.sample is None:
        raise InputError(f"{name} needs a `sample:` section in the recipe")
    return str(root / "data" / (name.removeprefix(SAMPLE) + suffix))
