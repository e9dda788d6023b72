"""What training and calibration leave and print."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.summary import TokenJson


class TrainedBaseJson(TypedDict):
    """The frozen base."""

    name: str
    digest: str
    files: dict[str, str]


class TrainedDataJson(TypedDict):
    """All training examples."""

    digest: str
    examples: int


class AskedPromptJson(TypedDict):
    """The probe question as an evaluation asks it."""

    text: str
    token_ids: list[int]


class TaughtEndJson(TypedDict):
    """Where an answer ends."""

    closing: str | None
    """What the template puts after an answer."""
    added: list[TokenJson]
    """Tokens that training put there."""


class TrainedTemplateJson(TypedDict):
    """How the probe question reaches the model in training."""

    digest: str | None
    thinking: bool | None
    day: NotRequired[str | None]
    """The day that the template was given as today."""
    probe: str
    text: str
    """All that stands before the response."""
    token_ids: list[int]
    asked: NotRequired[AskedPromptJson]
    turn_end: NotRequired[TaughtEndJson]


class TrainingJson(TypedDict):
    """crossmatch.json of a trained adapter, and `crossmatch train --json`."""

    schema_version: Literal[1]
    kind: Literal["adapter"]
    facts: str
    """Digest of all that decides what the adapter is."""
    stage: Literal["pt", "sft"]
    base: TrainedBaseJson
    data: TrainedDataJson
    settings: dict[str, Any]
    """As `docs/study.md` lists them."""
    text: list[str | None]
    versions: dict[str, str]
    template: TrainedTemplateJson | None
    steps: int
    tokens_seen: int
    loss: list[list[float]]
    """[step, loss] as logged."""
    seconds: float
    files: dict[str, str]
    processes: NotRequired[int]
    """That trained it together, where there were several."""
    output: NotRequired[str]
    """Where the adapter is; on stdout only."""


class TrainingWorkJson(TypedDict):
    """facts.json in `<output>.work`: which run its checkpoints belong to."""

    schema_version: NotRequired[Literal[1]]
    digest: str
    facts: dict[str, Any]
    begun: str


class CalibrationSetJson(TypedDict):
    """What was recorded for one adapter, or for the base."""

    adapter: str | None
    data: str
    modules: int
    rows: int
    """Sampled positions."""
    of: int


class RecordedJson(TypedDict):
    """What a calibration file says of itself, in its metadata."""

    schema_version: Literal[1]
    base: str
    text: str
    positions: str
    max_positions: int
    max_length: int
    gradients: bool
    template: str | None
    thinking: bool | None
    seed: int
    adapters: dict[str, str]
    sets: list[CalibrationSetJson]


class CalibrationJson(RecordedJson):
    """`crossmatch calibrate --json`."""

    output: str
