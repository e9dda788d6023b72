"""What a study writes: its report, the records of its stages, its data card; and what `run` prints."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from crossmatch.results.analysis import AnalysisJson
from crossmatch.results.answers import AnswerJson
from crossmatch.results.audit import AuditJson
from crossmatch.results.interference import InterferenceJson
from crossmatch.results.samples import SamplesJson
from crossmatch.results.summary import SummaryJson
from crossmatch.results.training import TrainedDataJson, TrainedTemplateJson
from crossmatch.results.verdict import VerdictJson


class OverlapModuleJson(TypedDict):
    """One tensor that both adapters change."""

    name: str
    layer: int | None
    module: str
    cosine: float | None
    cosine_null: float
    energy_ratio: float | None
    first_norm: float
    second_norm: float


class OverlapJson(TypedDict):
    """overlap.json: how the first two adapters of a study relate, at the weights of its first merge."""

    schema_version: Literal[1]
    first: str
    second: str
    weights: list[float | str]
    cosine: float | None
    modules: list[OverlapModuleJson]


class StageJson(TypedDict):
    """stages/NAME.json: a stage that ran, and what it left."""

    schema_version: Literal[1]
    fingerprint: str
    """Digest of its inputs."""
    outputs: dict[str, str]
    """File -> digest."""
    seconds: float
    result: Any
    """What the stage gave back: null, a verdict, or a data card."""


class SampleSizeJson(TypedDict):
    """Terms of the bundled sample."""

    pt_terms: int
    sft_terms: int
    define: int
    name: int
    seed: int


class SplitTermsJson(TypedDict):
    """Which terms are where."""

    held_out: list[str]
    sft: list[str]
    pt: list[str]


class ArithmeticCardJson(TypedDict):
    """The second domain of the sample."""

    source: str
    size: dict[str, int]
    operations: list[str]
    split: str
    held_out: int
    held_out_in_training: int


class DataCardJson(TypedDict):
    """data/card.json: what the sample's data hold."""

    schema_version: Literal[1]
    source: str
    version: str
    licence: str
    size: SampleSizeJson
    split: str
    held_out_terms: int
    held_out_in_sft: int
    held_out_in_pt: int
    terms: SplitTermsJson
    note: str
    unread: list[str]
    instructed: list[str]
    arithmetic: NotRequired[ArithmeticCardJson]


class SampleManifestJson(TypedDict):
    """data/crossmatch.json: whose output the directory is."""

    schema_version: Literal[1]
    kind: Literal["sample data"]
    version: str


class StudyBaseJson(TypedDict):
    """The base of a study."""

    name: str
    digest: str
    parameters: int


class StudyAdapterJson(TypedDict):
    """What training left beside an adapter; null where nothing is known of it."""

    digest: str
    stage: str | None
    data: TrainedDataJson | None
    settings: dict[str, Any] | None
    template: TrainedTemplateJson | None
    steps: int | None
    tokens_seen: int | None
    loss: list[list[float]] | None
    versions: dict[str, str] | None
    seconds: float | None


class ReportJson(TypedDict):
    """report.json: everything that the page of a study shows."""

    schema_version: Literal[1]
    study: str
    question: str
    base: StudyBaseJson
    data: DataCardJson | None
    adapters: dict[str, StudyAdapterJson]
    verdicts: dict[str, VerdictJson]
    summary: SummaryJson | None
    samples: SamplesJson | None
    overlap: OverlapJson | None
    analysis: AnalysisJson
    audit: AuditJson | None
    answers: NotRequired[list[AnswerJson]]
    interference: InterferenceJson | None
    seconds: dict[str, float]
    """By stage."""


class RunResultJson(TypedDict):
    """`crossmatch run --json`."""

    schema_version: Literal[1]
    study: str
    report: str
    verified: bool | None
    verdicts: dict[str, str]
    summary: SummaryJson | None
    answers: NotRequired[list[AnswerJson]]
    seconds: dict[str, float]
    peak_gib: float


class PlannedStageJson(TypedDict):
    """One stage of a plan; null where it cannot be told."""

    name: str
    what: str
    tokens: int | None
    seconds: float | None
    gib: float | None
    finished: bool


class StudyPlanJson(TypedDict):
    """`crossmatch run --dry-run --json`."""

    schema_version: Literal[1]
    study: str
    parameters: int
    adapted_modules: int
    flops: float
    stages: list[PlannedStageJson]
    rendered: list[str]
    seconds: float
    gib: float | None
    submission: NotRequired[str | None]
    """The command that hands the work to a cluster."""


class PageJson(TypedDict):
    """`crossmatch report --json`."""

    schema_version: Literal[1]
    report: str


class SpokenJson(TypedDict):
    """One greedy answer of a server."""

    text: str
    truncated: bool
    tokens: list[list[str | float]]
    """[token, ln P] each."""


class ServerAnswersJson(TypedDict):
    """served/server.json: what a server answered to the probes, so that another model is noticed."""

    schema_version: NotRequired[Literal[1]]
    about: list[Any]
    answers: list[SpokenJson]
