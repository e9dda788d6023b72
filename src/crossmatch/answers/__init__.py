"""Questions that a user may ask, answered from the facts of a study, an evaluation, an audit or an analysis.

Every rule has three outcomes: yes, no, and cannot tell, with the items that would decide. The same sentences stand on
the terminal, on the page, in model cards and in `--json`, under `answers`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.answers.analysis import analysis_answers, interference_answer
from crossmatch.answers.answer import Answer
from crossmatch.answers.audit import audited_in, clean_answer
from crossmatch.answers.decisions import MARGIN, check_margin
from crossmatch.answers.evaluation import evaluation_answers
from crossmatch.answers.proof import claim_answer
from crossmatch.results.answers import AnswerJson

Json = Mapping[str, Any]


def answers_of(facts: Json, margin: float = MARGIN) -> list[AnswerJson]:
    """All answers that the facts of a study or an evaluation (`report.json`: verdicts, summary, audit, interference,
    analysis) hold, as plain JSON: what is missing there is not asked.

    margin: points of a score from 0 to 100, or percent of a perplexity, that a variant may lose and still be as good.
    """
    found: list[Answer] = [claim_answer(name, verdict) for name, verdict in (facts.get("verdicts") or {}).items()]
    summary = facts.get("summary")
    audit = facts.get("audit") or (audited_in(summary) if summary else None)
    if summary:
        found += evaluation_answers(summary, margin=margin, audited=(audit or {}).get("held_out"))
    if audit and (clean := clean_answer(audit)) is not None:
        found.append(clean)
    if facts.get("interference"):
        found.append(interference_answer(facts["interference"], margin))
    if facts.get("analysis"):
        found += analysis_answers(facts["analysis"])
    return to_json(found)


def to_json(answers: Sequence[Answer]) -> list[AnswerJson]:
    """Answers as plain JSON."""
    return [answer.to_dict() for answer in answers]


__all__ = ["MARGIN", "Answer", "analysis_answers", "answers_of", "check_margin", "clean_answer", "to_json"]
