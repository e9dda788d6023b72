"""How a stage is trained: one frozen model, the same for the command and for recipes."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from crossmatch.checkpoint import split_pairs
from crossmatch.errors import InputError

Stage = Literal["pt", "sft"]


class TrainSettings(BaseModel):
    """Settings of one stage. Lengths are in tokens; a step is `batch_size * accumulation` sequences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    rslora: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(("all-linear",), min_length=1)
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    warmup_share: float = Field(0.05, ge=0, lt=1)
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    batch_size: int = Field(8, ge=1)
    accumulation: int = Field(1, ge=1)
    max_length: int = Field(512, ge=8)
    seed: int = Field(0, ge=0)
    save_every_steps: int = Field(25, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoint_activations: bool = False
    template: str | None = None
    """A file with a Jinja chat template; `own:NAME`: of the tokenizer's several, that one; None: its own."""
    thinking: bool | None = None
    """Value of the template's `enable_thinking` switch; None: not passed."""
    turn_end: str = Field("auto", min_length=1)
    """What training puts after a response that does not end with it. auto: the end of sequence where the template ends
    an answer with nothing; eos: always; template: never; else the text of one special token."""
    report_to: tuple[str, ...] = ()
    """Trackers of the trainer: trackio, mlflow, wandb."""

    @field_validator("targets", mode="before")
    @classmethod
    def _one_target(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


def read_settings(pairs: Sequence[str] | None) -> TrainSettings:
    """Settings from KEY=VALUE texts, as `--set` takes them. Raises InputError with the closest known key."""
    values: Mapping[str, str | tuple[str, ...]] = split_pairs(pairs, "--set")
    for key in values:
        if key not in TrainSettings.model_fields:
            close = difflib.get_close_matches(key, TrainSettings.model_fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(TrainSettings.model_fields)}"
            raise InputError(f"--set {key}: unknown setting; {hint}")
    lists = {key: tuple(values[key].split(",")) for key in ("targets", "report_to") if key in values}
    try:
        return TrainSettings.model_validate({**values, **lists})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--set {first['loc'][0]}: {first['msg']}") from None
