"""An analysis from request to files, for the command line and Python alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossmatch.analysis.analyse import assemble, open_vectors
from crossmatch.analysis.output import check_output, try_output, write_result
from crossmatch.analysis.texts import TextRequest, read_material, run_texts
from crossmatch.analysis.weights.tables import Wanted
from crossmatch.answers import analysis_answers, to_json
from crossmatch.results.analysis import AnalysisJson
from crossmatch.runtime import Progress


@dataclass(frozen=True)
class AnalysisRequest:
    """What is analysed. sources: name -> adapter, stored vector or tuned checkpoint; wanted: of the weights; texts: on
    which the models are run as well; output: directory of the result and its page (None: written nowhere); pictures:
    each as a file there, too."""

    base: str | Path
    sources: Mapping[str, str | Path]
    wanted: Wanted
    texts: TextRequest
    output: Path | None = None
    pictures: bool = False


def run_analysis(request: AnalysisRequest, progress: Progress) -> AnalysisJson:
    """Try the output, open, analyse, answer, write. Raises InputError for what does not fit together, OutputError for a
    place that cannot be written, EqualError for a checkpoint that is the base itself."""
    try_output(request.output, pictures=request.pictures)
    with progress.task("open"):
        opened = open_vectors(request.base, request.sources)
    check_output(request.output, opened)
    material = read_material(opened, request.texts, progress)
    facts = assemble(opened, request.wanted, progress=progress)
    run_texts(opened, material, facts, progress)
    facts["answers"] = to_json(analysis_answers(facts))
    if request.output is not None:
        write_result(request.output, facts, progress, pictures=request.pictures)
    return facts
