"""An evaluation from request to files: answers, summary, interference, page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossmatch.answers import answers_of
from crossmatch.evaluation.pipeline import Evaluation, EvaluationRequest, run_evaluation
from crossmatch.report import write_evaluation
from crossmatch.result_kinds import SAMPLES, SUMMARY
from crossmatch.results.interference import InterferenceJson
from crossmatch.runtime import Progress


def evaluate_into(
    out: Path, request: EvaluationRequest, interfere: Callable[[], InterferenceJson] | None, progress: Progress
) -> tuple[Evaluation, InterferenceJson | None]:
    """Run an evaluation and leave its files in `out`; what was found, and what `interfere` measured after it."""
    found = run_evaluation(request, out, progress=progress)
    interference = interfere() if interfere else None
    facts: dict[str, Any] = {"name": out.resolve().name, "summary": found.summary, "samples": found.samples}
    facts |= {"interference": interference} if interference else {}
    found.summary["answers"] = answers_of(facts, request.margin)
    SUMMARY.replace(out / "summary.json", found.summary)
    SAMPLES.replace(out / "samples.json", found.samples)
    write_evaluation(facts, out / "summary.html")
    return found, interference
