"""`crossmatch inspect --json` and `vectors inspect --json`: what a directory is."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.merging import TextFactsJson
from crossmatch.results.verdict import LackJson


class InspectedCheckpointJson(TypedDict):
    """A whole model."""

    schema_version: Literal[1]
    kind: Literal["checkpoint"]
    path: str
    architecture: str
    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    tied_embeddings: bool
    quantisation: str | None
    other_weight_files: str | None
    """Weight files that some loader prefers."""
    merged_by_crossmatch: bool
    text: TextFactsJson
    digest: str
    files: dict[str, str]


class InspectedAdapterJson(TypedDict):
    """A PEFT adapter."""

    schema_version: Literal[1]
    kind: Literal["adapter"]
    path: str
    base: str | None
    modules: int
    layers: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    targets: dict[str, int]
    ranks: dict[str, int]
    scales: dict[str, int]
    rslora: bool
    fan_in_fan_out: bool
    norm: NotRequired[float | None]
    """Null: relative to the base; left out of an adapter that is not whole."""
    lacks: list[LackJson]
    remarks: str | None
    text: TextFactsJson
    digest: str
    files: dict[str, str]


class MadeFromJson(TypedDict):
    """Where an input of a vector lies, as its manifest says."""

    path: NotRequired[str]
    hub_id: NotRequired[str]
    revision: NotRequired[str]
    digest: NotRequired[str]
    weight: NotRequired[float | str]
    factor: NotRequired[float]


class InspectedVectorJson(TypedDict):
    """A stored vector."""

    schema_version: Literal[1]
    kind: Literal["vector"]
    path: str
    form: dict[str, int]
    tensors: int
    layers: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    targets: dict[str, int]
    ranks: dict[str, int] | None
    norm: float
    added_rows: dict[str, int] | None
    made_by: str | None
    made_from: dict[str, MadeFromJson]
    text: TextFactsJson
    as_written: bool | None
    """Whether the file still has the digest that its manifest gives."""
    digest: str
    files: dict[str, str]
