"""The recipe of a sweep: one YAML file, read strictly; what is not understood is refused by name."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from crossmatch.checkpoint import safe_name
from crossmatch.data.recipe_files import parse_recipe, read_recipe_file
from crossmatch.errors import InputError, RecipeError, RuleError
from crossmatch.evaluation.conditions import conditions_of
from crossmatch.evaluation.inference.batch_memory import ROWS, parse_memory
from crossmatch.executors import parse_executor
from crossmatch.rules import Calibration, bind, get_rule
from crossmatch.sweeping.space import Space, parse_dimension, weight_space

METHODS = ("grid", "tpe", "cma-es", "nsga-ii")
Method = Literal["grid", "tpe", "cma-es", "nsga-ii"]
GRID_STEP = "0..1 step 0.25"


class SweepRecipe(BaseModel):
    """A search over merge weights.

    base, adapters: directories or hub ids; suites: files or `recipe:` ones; reference: the adapter with which merges
    are compared (None: the last). space: adapter -> span, list or number, or a mapping of selectors to these (none: a
    grid of 0..1 in steps of 0.25 for each); fixed: adapter -> the weight that it keeps. rules: rule -> its parameters,
    as spans, lists or values (none: linear); calibration: of rules that need one. templates: as in an evaluation.

    goals: metrics, the first one first (none: that which stands for the first suite); constraints: in words. method:
    grid, tpe, cma-es or nsga-ii; trials: points that the last three try. halving: shares of the search items after
    which points that cannot win are dropped; finalists: points that are asked the confirmation part; confirm: its
    share of the items. executor: as in `ray:workers=4`; repair: whether to look for a repair, or of which point, by its
    number or name. shard: items of a cell at most; dtype: of the merges.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][\w.-]*$")
    base: str
    adapters: dict[str, str] = Field(min_length=1)
    suites: tuple[str, ...] = Field(min_length=1)
    reference: str | None = None
    space: dict[str, Any] = {}
    fixed: dict[str, float] = {}
    rules: dict[str, dict[str, Any]] = {}
    calibration: str | None = None
    templates: tuple[str, ...] = ("own",)
    goals: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    method: Method = "grid"
    trials: int = Field(40, ge=1, le=10_000)
    seed: int = Field(0, ge=0)
    halving: tuple[float, ...] = (0.25, 0.5)
    finalists: int = Field(3, ge=1, le=10)
    confirm: float = Field(0.5, gt=0, lt=1)
    batch_size: int = Field(ROWS, ge=1)
    memory: str | None = None
    shard: int = Field(64, ge=1)
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    executor: str | dict[str, Any] = "local"
    repair: bool | int | str = False
    allow_partial_adapter: bool = False

    @field_validator("goals", "constraints", "suites", "templates", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("halving")
    @classmethod
    def _ascending(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if list(shares) != sorted(set(shares)) or any(not 0 < share < 1 for share in shares):
            raise ValueError("give ascending shares between 0 and 1, as in [0.25, 0.5], or [] for none")
        return shares

    @field_validator("repair")
    @classmethod
    def _point(cls, wanted: bool | int | str) -> bool | int | str:
        if isinstance(wanted, str) and wanted.isdecimal():
            wanted = int(wanted)
        if wanted == "" or (wanted is not False and wanted == 0) or (isinstance(wanted, int) and wanted < 0):
            raise ValueError("give true, or the number or the name of a point")
        return wanted

    @model_validator(mode="after")
    def _belong_together(self) -> "SweepRecipe":
        for place, names in {"space": self.space, "fixed": self.fixed}.items():
            for name in names:
                if name not in self.adapters:
                    close = difflib.get_close_matches(name, self.adapters, n=1)
                    hint = f"; did you mean {close[0]}?" if close else ""
                    raise ValueError(f"{place}: {name} is no adapter of this sweep{hint}")
        both = next((name for name in self.fixed if name in self.space), None)
        if both is not None:
            raise ValueError(f"fixed: {both} is in the space too; leave it out of one of them")
        if self.reference is not None and self.reference not in self.adapters:
            raise ValueError(f"reference: {self.reference} is no adapter of this sweep")
        unsafe = next((name for name in self.adapters if not safe_name(name) or name == "base"), None)
        if unsafe is not None:
            raise ValueError(f"adapters: {unsafe!r} is no name: letters, digits, '_', '.', '-', no path, and not base")
        try:
            parse_executor(self.executor)
            parse_memory(self.memory)
            for rule in self.rules:
                get_rule(rule)
        except (InputError, RuleError) as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def sft(self) -> str:
        """The reference's name."""
        return self.reference or list(self.adapters)[-1]

    def opened_space(self) -> Space:
        """What is searched. Raises RecipeError for what cannot be."""
        unset = [name for name in self.adapters if name not in self.space and name not in self.fixed]
        spans = {**self.space, **self.fixed, **dict.fromkeys(unset, GRID_STEP if self.method == "grid" else "0..1")}
        weights = {name: weight_space(name, spans[name]) for name in self.adapters}
        calibration = Calibration(self.calibration) if self.calibration else None
        rules = {
            rule: tuple(parse_dimension(f"{rule}.{key}", value) for key, value in own.items())
            for rule, own in (self.rules or {"linear": {}}).items()
        }
        for rule, dimensions in rules.items():
            self._check_rule(rule, {d.name.partition(".")[2]: [*d.values, d.low, d.high][0] for d in dimensions})
        return Space(weights, rules, conditions_of(self.templates), self.sft, calibration)

    def _check_rule(self, rule: str, parameters: Mapping[str, Any]) -> None:
        try:
            bind(rule, parameters)
        except RuleError as error:
            raise RecipeError(f"rules: {error}") from None
        if get_rule(rule).data and not self.calibration:
            raise RecipeError(
                f"rules.{rule} needs {get_rule(rule).data}; make one with crossmatch calibrate, and give "
                "it as calibration"
            )


def load_sweep(file: str | Path) -> SweepRecipe:
    """Read a recipe; paths in it are relative to the working directory. Raises RecipeError with the field."""
    path = Path(file)
    raw = read_recipe_file(path, "give a sweep's YAML file, or BASE with -a, --suite and -o")
    return parse_sweep(raw, str(path))


def parse_sweep(raw: Mapping[str, Any], place: str) -> SweepRecipe:
    """A recipe from plain values. Raises RecipeError with the field and, for an unknown one, the closest known."""
    return parse_recipe(SweepRecipe, raw, place, lambda _: list(SweepRecipe.model_fields))


def recipe_of(
    study: str, adapters: dict[str, str], output: Path | None, given: dict[str, Any], free: dict[str, Any]
) -> SweepRecipe:
    """The recipe of a file, or of a base with options; free: what may be given beside a file, None for what is not.
    Raises InputError for other options beside one."""
    where = {name: value for name, value in free.items() if value is not None}
    if study.endswith((".yaml", ".yml")):
        beside = [*(["adapter"] if adapters else []), *given]
        if beside:
            raise InputError(
                f"{study} is a recipe: put {beside[0]} into it; -o, --executor and --repair may be beside it"
            )
        recipe = load_sweep(study)
        return parse_sweep({**recipe.model_dump(), **where}, study) if where else recipe
    if not adapters:
        raise InputError("no adapter given; add -a NAME=PATH, or give a sweep's YAML file")
    if "suites" not in given:
        raise InputError("no suite given; add --suite FILE")
    if output is None:
        raise InputError("no output given; add -o DIRECTORY")
    return parse_sweep({"base": study, "adapters": adapters, **given, **where}, "sweep")
