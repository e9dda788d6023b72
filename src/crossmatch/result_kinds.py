"""The kinds of JSON that crossmatch writes, by name: what each is, how it is checked, written and read.

Within one `schema_version` fields are added, never renamed or removed; a reader passes over fields that it does not
know, and what it writes is exactly what is declared.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crossmatch.errors import DataError
from crossmatch.results.analysis import ANALYSIS_VERSION, AnalysisJson
from crossmatch.results.audit import AuditJson
from crossmatch.results.comparison import RunComparisonJson
from crossmatch.results.inspection import InspectedAdapterJson, InspectedCheckpointJson, InspectedVectorJson
from crossmatch.results.interference import InterferenceJson
from crossmatch.results.merging import MergeManifestJson, MergePlanJson, MergeResultJson
from crossmatch.results.record import RECORD_VERSION, RecordJson
from crossmatch.results.samples import SamplesJson
from crossmatch.results.start import DoctorJson, InitJson
from crossmatch.results.statement import StatementJson
from crossmatch.results.study import (
    DataCardJson,
    OverlapJson,
    PageJson,
    ReportJson,
    RunResultJson,
    SampleManifestJson,
    ServerAnswersJson,
    StageJson,
    StudyPlanJson,
)
from crossmatch.results.summary import SUMMARY_VERSION, SummaryJson
from crossmatch.results.sweep import (
    PredictJson,
    SweepGatesJson,
    SweepJson,
    SweepPlanJson,
    SweepSecondsJson,
    SweepStudyJson,
)
from crossmatch.results.training import CalibrationJson, TrainingJson, TrainingWorkJson
from crossmatch.results.vectors import AppliedJson, GridManifestJson, ScaledJson, VectorManifestJson, VectorResultJson
from crossmatch.results.verdict import VERDICT_VERSION, VerdictJson

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
# Set by the tests: everything that is written is held to its model, and a field that is not declared is an error.
CHECK_VARIABLE = "CROSSMATCH_CHECK_RESULTS"


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of JSON.

    name: as `crossmatch schema` knows it; model: its TypedDict (or a union of some); says: what it is, in one sentence;
    again: what writes it again, for messages; version: the `schema_version` of this crossmatch; versioned: False if
    files of earlier releases have no `schema_version`, which are read as of this one.
    """

    name: str
    model: Any
    says: str
    again: str
    version: int = 1
    versioned: bool = True

    def schema(self) -> dict[str, Any]:
        """Its JSON Schema, draft 2020-12."""
        found = _adapter(self, described=True).json_schema()
        head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:crossmatch:schema:{self.name}"}
        return {**head, "title": self.name, **_canonical(found), "description": self.says}

    def check(self, text: str) -> None:
        """Raise ValueError if a document to be written is not exactly as declared, naming the first field that is not;
        does nothing outside of tests (`CHECK_VARIABLE`)."""
        if not os.environ.get(CHECK_VARIABLE):
            return
        from pydantic import ValidationError

        try:
            _adapter(self).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{self.name}: {place}: {first['msg']} (declared in crossmatch/results)") from None

    def write(self, file: Path, value: T) -> None:
        """Write a document."""
        from crossmatch.checkpoint import json_text, write_json

        self.check(json_text(value))
        write_json(file, value)

    def replace(self, file: Path, value: T) -> None:
        """Write a document beside `file` and rename it there: a reader sees the old or the new one."""
        from crossmatch.checkpoint import json_text, replace_json

        self.check(json_text(value))
        replace_json(file, value)

    def read(self, file: Path, say: Callable[[str], None] | None = None) -> T:
        """A document from a file. say: told of a file without a `schema_version`.

        Raises CheckpointError for what is no JSON object; DataError, with the field and what to do, for another version
        or a document that is not of this kind.
        """
        from crossmatch.checkpoint import read_json

        return self.known(read_json(file), str(file), say)

    def known(self, value: Mapping[str, Any], where: str, say: Callable[[str], None] | None = None) -> T:
        """A parsed document as one of this kind; where: for messages. Raises as `read` does."""
        version = _version(value)
        if version is not None and version != self.version:
            later = isinstance(version, int) and version > self.version
            advice = "update crossmatch" if later else self.again
            raise DataError(
                f"{where}: schema_version is {version!r}, this crossmatch reads {self.name} of version {self.version}; "
                f"{advice}"
            )
        problems, old = self._problems(value)
        if problems:
            place, message = problems[0]
            raise DataError(f"{where} is no {self.name}: {place}: {message}; {self.again}")
        if old and say is not None:
            say(f"note: {where} has no schema_version (of an earlier crossmatch); read as version {self.version}")
        return value  # type: ignore[return-value]

    def _problems(self, value: Mapping[str, Any]) -> tuple[list[tuple[str, str]], bool]:
        """What is not as declared, as (field, message), fields that are not declared aside; and whether a version is
        missing where earlier releases had none."""
        from pydantic import ValidationError

        try:
            _adapter(self).validate_python(dict(value), strict=True)
        except ValidationError as error:
            found = [e for e in error.errors(include_url=False, include_input=False) if e["type"] != "extra_forbidden"]
            unversioned = [e for e in found if e["type"] == "missing" and e["loc"][-1:] == ("schema_version",)]
            excused = [e for e in unversioned if len(e["loc"]) > 1 or not self.versioned]
            rest = [e for e in found if e not in excused]
            return [(".".join(map(str, e["loc"])), _plain(e["msg"])) for e in rest], bool(excused)
        return [], not self.versioned and _version(value) is None


def _plain(message: str) -> str:
    return message[:1].lower() + message[1:]


def _version(value: Mapping[str, Any]) -> Any:
    """Of a statement the version is in its predicate."""
    predicate = value.get("predicate")
    inside = predicate.get("schema_version") if isinstance(predicate, Mapping) else None
    return value.get("schema_version", inside)


@lru_cache(maxsize=128)
def _adapter(kind: Kind[Any], *, described: bool = False) -> "TypeAdapter[Any]":
    """What validates a kind; described: with the descriptions of fields, which takes long."""
    from pydantic import TypeAdapter

    # What is inside of a model takes its settings from it, unless it is another kind's model and has its own.
    for each in (*KINDS.values(), kind) if described else (kind,):
        for model in getattr(each.model, "__args__", ()) or (each.model,):
            if not hasattr(model, "model_config"):
                model.__pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": described}
    return TypeAdapter(kind.model)


def _canonical(schema: Any) -> Any:
    """Without titles that only repeat a field's name, open for fields that a later version adds, and with alternatives
    in one order: `typing` keeps whichever of two equal unions or literals was made first in the process, so theirs
    depends on what else is imported."""
    if isinstance(schema, list):
        return [_canonical(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: {name: _canonical(item) for name, item in value.items()}
        if key in ("properties", "$defs")
        else _canonical(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "additionalProperties" and value is False)
    }
    if "anyOf" in found:
        found["anyOf"] = sorted(found["anyOf"], key=lambda one: (one == {"type": "null"}, json.dumps(one)))
    if "enum" in found:
        found["enum"] = sorted(found["enum"], key=str)
    return found


_EVALUATE = "run crossmatch evaluate again"
_RUN = "run the study again"

RECORD: Kind[RecordJson] = Kind(
    "record",
    RecordJson,
    "One answer of one variant to one item: a line of DIR/<variant>/<suite>.<condition>.jsonl.",
    "evaluate again into another directory",
    RECORD_VERSION,
    versioned=False,
)
SUMMARY: Kind[SummaryJson] = Kind(
    "summary",
    SummaryJson,
    "Figures and paired differences of an evaluation: summary.json, evaluate --json.",
    _EVALUATE,
    SUMMARY_VERSION,
)
SAMPLES: Kind[SamplesJson] = Kind(
    "samples", SamplesJson, "Answers side by side: samples.json of an evaluation.", _EVALUATE, versioned=False
)
INTERFERENCE: Kind[InterferenceJson] = Kind(
    "interference",
    InterferenceJson,
    "What one adapter does to the other's task, predicted and measured: interference.json.",
    _EVALUATE,
)
COMPARISON: Kind[RunComparisonJson] = Kind(
    "comparison", RunComparisonJson, "Two finished runs, document by document: compare --json.", "compare again"
)
AUDIT: Kind[AuditJson] = Kind(
    "audit",
    AuditJson,
    "Held-out items in training data: audit -o, audit --json, audit.json of a study.",
    "write one by crossmatch audit -o",
)
VERDICT: Kind[VerdictJson] = Kind(
    "verdict",
    VerdictJson,
    "What is inside a merged checkpoint: verify --json, identify --json, verify/NAME.json of a study.",
    "run crossmatch verify again",
    VERDICT_VERSION,
)
STATEMENT: Kind[StatementJson] = Kind(
    "statement",
    StatementJson,
    "A verdict as an in-toto statement: verify --attest FILE.",
    "verify again",
    versioned=False,
)
ANALYSIS: Kind[AnalysisJson] = Kind(
    "analysis",
    AnalysisJson,
    "What fine-tuning changed in the weights: analysis.json, analyse --json.",
    "run crossmatch analyse again",
    ANALYSIS_VERSION,
)
MERGE: Kind[MergeResultJson] = Kind(
    "merge", MergeResultJson, "What a merge wrote: merge --json.", "run crossmatch merge again"
)
MERGE_PLAN: Kind[MergePlanJson] = Kind(
    "merge-plan", MergePlanJson, "What a merge would write: merge --dry-run --json.", "plan again"
)
MERGE_MANIFEST: Kind[MergeManifestJson] = Kind(
    "merge-manifest",
    MergeManifestJson,
    "From what and how a merge was made: crossmatch.json beside it, an in-toto Statement v1.",
    "run crossmatch merge again",
)
TRAINING: Kind[TrainingJson] = Kind(
    "training",
    TrainingJson,
    "How an adapter was trained: crossmatch.json beside it, train --json.",
    "train again into another directory",
)
TRAINING_WORK: Kind[TrainingWorkJson] = Kind(
    "training-work",
    TrainingWorkJson,
    "Which training run some checkpoints belong to: facts.json in OUT.work.",
    "remove the directory to begin again",
    versioned=False,
)
CALIBRATION: Kind[CalibrationJson] = Kind(
    "calibration",
    CalibrationJson,
    "What activations were recorded: calibrate --json.",
    "run crossmatch calibrate again",
)
INSPECTION: Kind[InspectedCheckpointJson | InspectedAdapterJson | InspectedVectorJson] = Kind(
    "inspect",
    InspectedCheckpointJson | InspectedAdapterJson | InspectedVectorJson,
    "What a checkpoint, an adapter or a vector is: inspect --json, vectors inspect --json.",
    "inspect again",
)
VECTOR: Kind[VectorResultJson] = Kind(
    "vector",
    VectorResultJson,
    "What was extracted or added: vectors extract --json, vectors add --json.",
    "run it again",
)
VECTOR_MANIFEST: Kind[VectorManifestJson] = Kind(
    "vector-manifest",
    VectorManifestJson,
    "From what and how a vector was made: crossmatch.json beside it, an in-toto Statement v1.",
    "make the vector again",
)
SCALED: Kind[ScaledJson] = Kind(
    "scaled", ScaledJson, "A vector at several strengths: vectors scale --json.", "run it again"
)
APPLIED: Kind[AppliedJson] = Kind(
    "applied", AppliedJson, "A vector on a checkpoint: vectors apply --json, vectors remove --json.", "run it again"
)
STRENGTHS: Kind[GridManifestJson] = Kind(
    "strengths", GridManifestJson, "Which directory holds which strength: crossmatch.json above them.", "run it again"
)
REPORT: Kind[ReportJson] = Kind("report", ReportJson, "Everything that a study's page shows: report.json.", _RUN)
RUN: Kind[RunResultJson] = Kind("run", RunResultJson, "What a study found: run --json.", _RUN)
STUDY_PLAN: Kind[StudyPlanJson] = Kind(
    "study-plan", StudyPlanJson, "What a study would do and take: run --dry-run --json.", "plan again"
)
STAGE: Kind[StageJson] = Kind(
    "stage",
    StageJson,
    "That a stage of a study ran, and what it left: stages/NAME.json.",
    "remove it, and run the study again",
    versioned=False,
)
OVERLAP: Kind[OverlapJson] = Kind(
    "overlap", OverlapJson, "How two adapters of a study relate: overlap.json.", _RUN, versioned=False
)
DATA_CARD: Kind[DataCardJson] = Kind(
    "data-card", DataCardJson, "What the bundled sample's data hold: data/card.json.", _RUN, versioned=False
)
SAMPLE_MANIFEST: Kind[SampleManifestJson] = Kind(
    "sample-data", SampleManifestJson, "Whose output data/ is: data/crossmatch.json.", _RUN, versioned=False
)
SERVER: Kind[ServerAnswersJson] = Kind(
    "server", ServerAnswersJson, "What a server answered to the probes: served/server.json.", _EVALUATE, versioned=False
)
SWEEP_STUDY: Kind[SweepStudyJson] = Kind(
    "sweep-study",
    SweepStudyJson,
    "What decides a sweep, with digests of all that it reads: study.json.",
    "choose another directory",
)
SWEEP: Kind[SweepJson] = Kind(
    "sweep",
    SweepJson,
    "Weights that were searched, confirmed and recommended: sweep.json, sweep --json.",
    "run the sweep again",
)
SWEEP_GATES: Kind[SweepGatesJson] = Kind(
    "sweep-gates", SweepGatesJson, "What gates foretell of a merge to repair: gates.json.", "run the sweep again"
)
SWEEP_PLAN: Kind[SweepPlanJson] = Kind(
    "sweep-plan", SweepPlanJson, "What a sweep would ask: sweep --dry-run --json.", "plan again"
)
SWEEP_SECONDS: Kind[SweepSecondsJson] = Kind(
    "sweep-seconds", SweepSecondsJson, "How long a sweep took: seconds.json.", "run the sweep again", versioned=False
)
PREDICT: Kind[PredictJson] = Kind(
    "predict", PredictJson, "What the weights alone say of a merge: predict --json.", "predict again"
)
INIT: Kind[InitJson] = Kind(
    "init", InitJson, "Which recipe was written, and what was guessed: init --json.", "run it again"
)
DOCTOR: Kind[DoctorJson] = Kind(
    "doctor", DoctorJson, "What of the machine, the base and the adapters is fit: doctor --json.", "run it again"
)
PAGE: Kind[PageJson] = Kind("page", PageJson, "Where a page was written: report --json.", "run crossmatch report again")


def _named(kinds: Iterable[Kind[Any]]) -> dict[str, Kind[Any]]:
    return {kind.name: kind for kind in kinds}


KINDS = _named(value for value in list(globals().values()) if isinstance(value, Kind))
"""Every kind by its name, in the order above."""
