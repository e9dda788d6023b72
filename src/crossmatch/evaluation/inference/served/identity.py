"""Which model a server runs: its greedy answers to a few probes, beside those of a model here and those of before.

What a server says of itself is a name. Its answers, and their log-probabilities where it gives them, tell its weights.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossmatch.checkpoint import value_digest
from crossmatch.data.prompt_templates import TEMPLATES
from crossmatch.errors import DataError, InputError
from crossmatch.evaluation.inference.protocol import Decoding, Generated
from crossmatch.evaluation.inference.served.model import ServedModel, Spoken
from crossmatch.result_kinds import SERVER
from crossmatch.results.study import SpokenJson
from crossmatch.runtime import SILENT, Progress

if TYPE_CHECKING:
    from crossmatch.evaluation.inference.local_model import Engine

PROBES = (
    "The most common cause of iron deficiency anaemia in adults is",
    "Question: Which organ makes insulin?\nAnswer:",
    "1, 1, 2, 3, 5, 8, 13,",
    "Once upon a time there was a",
    "高血压的常见原因包括",
    "def fibonacci(n):\n",
)
# One model of 135M parameters, in 4 bits by llama-server and in float32 here, agrees in 0.85; with noise of a twentieth
# of its weights' spread in 0.62, of a tenth in 0.29.
SAME, OTHER = 0.8, 0.5
# Nats a token, of a merge of 135M parameters in float32: rounded to bfloat16 it differs from itself by 0.011, in 8 bits
# by 0.017; from its base by 0.30, from one adapter alone by 0.05 and 0.11, from a merge with weights 0.1 away by 0.017.
NEAR, FAR = 0.03, 0.15
# The same token by token: in bfloat16, asked alone and beside others, 0.028; from a merge with weights 0.2 away 0.053.
NOISE = 0.05
# Places of one answer from which the server goes on, and characters that must be left to compare with.
CUTS, REST = 6, 24
# Tokens of an answer here, of the server's going on from one of its places, and of the server's own answers.
LOCAL, STEP, OWN = 32, 4, 8

_QUESTIONS = ("What is anaemia?", "Name three organs of the human body.")

Verdict = Literal["same", "other", "unknown"]


def probes_of(tokenizer: Any) -> tuple[str, ...]:
    """Plain probes, and two questions in the tokenizer's own chat template, if it has one: adapters differ most."""
    own = TEMPLATES["own"]
    try:
        return *PROBES, *(own.prompt(tokenizer, [{"role": "user", "content": text}]) for text in _QUESTIONS)
    except DataError:
        return PROBES


def ask_own(served: ServedModel, prompts: Sequence[str] = PROBES, progress: Progress = SILENT) -> list[Spoken]:
    """The server's own greedy answers to probes, of eight tokens, one after the other. Raises InputError if it does
    not answer, or does not list the model."""
    served.server.require()
    found = []
    with progress.task("probe the server", len(prompts)) as task:
        for prompt in prompts:
            found.append(served.greedy(prompt, OWN))
            task.advance()
    return found


def check_still(served: ServedModel, own: Sequence[Spoken], prompts: Sequence[str]) -> str | None:
    """Raise InputError if a server does not answer as it did before: what came between is of two models.

    Returns what a reader must know where that could not be checked: it has gone, as its failed items show.
    """
    try:
        again = ask_own(served, prompts)
    except InputError as error:
        return f"whether the server still runs the same model could not be checked: {error}"
    if alike(own, again):
        return None
    raise InputError(
        f"{served.url} changed its model while it was asked, or does not give the same answer twice; "
        "the same command asks it anew"
    )


def alike(first: Sequence[Spoken], second: Sequence[Spoken]) -> bool:
    """Whether one model can have given both sets of answers to the same probes.

    The log-probabilities of the tokens, up to and with the first that differs, differ by less than NOISE nats in the
    mean: where two tokens are near a tie, rounding decides which one comes, and both have about the same. Without
    log-probabilities the texts must be equal.
    """
    if len(first) != len(second):
        return False
    gaps: list[float] = []
    for mine, theirs in zip(first, second, strict=True):
        pairs = list(zip(mine.tokens, theirs.tokens, strict=False))
        if not pairs and mine != theirs:
            return False
        shared = len(list(takewhile(lambda pair: pair[0][0] == pair[1][0], pairs)))
        gaps += [abs(a[1] - b[1]) for a, b in pairs[: shared + 1]]
    return not gaps or sum(gaps) / len(gaps) < NOISE


def settled(file: Path, about: Any, own: Sequence[Spoken]) -> str:
    """A digest of `about` (plain JSON) and of a server's own answers, or of those like them that `file` holds.

    What is not like them takes their place in the file; then the digest is another, and all is asked anew.
    """
    found = SERVER.read(file) if file.exists() else None
    answers = found["answers"] if found else []
    if found is None or found["about"] != about or not alike(_spoken(answers), own):
        answers = [answer.to_dict() for answer in own]
        file.parent.mkdir(parents=True, exist_ok=True)
        SERVER.replace(file, {"schema_version": 1, "about": about, "answers": answers})
    # Of what was answered, whatever the version of the file.
    return value_digest({"about": about, "answers": answers})


def _spoken(rows: Sequence[SpokenJson]) -> list[Spoken]:
    return [Spoken(r["text"], r["truncated"], tuple((str(t), float(v)) for t, v in r["tokens"])) for r in rows]


@dataclass(frozen=True)
class Local:
    """A model here, to compare with: its greedy answers to the probes, and (tokens, ln P) of a text after a prompt."""

    answers: tuple[str, ...]
    score: Callable[[str, str], tuple[int, float]]

    @classmethod
    def of(cls, engine: "Engine", prompts: Sequence[str] = PROBES) -> "Local":
        """Of a loaded model."""
        found: dict[int, str] = {}

        def keep(index: int, answer: Generated) -> None:
            found[index] = answer.text

        def score(prompt: str, text: str) -> tuple[int, float]:
            values: list[float] = []
            engine.loglikelihoods([prompt], [[text]], lambda _, scores: values.extend(scores))
            return len(engine.token_ids(prompt, text)[1]), values[0]

        engine.generate(prompts, LOCAL, Decoding(), [0] * len(prompts), keep)
        return cls(tuple(found[index] for index in range(len(prompts))), score)


@dataclass(frozen=True)
class Identity:
    """Whether a server runs the model that it is said to run.

    verdict: `same`, `other`, or `unknown` (nothing to compare with, or answers neither alike nor unlike); agreement:
    mean share of the characters of its greedy continuations up to the first difference, over `probes` of them; gap:
    mean difference of ln P per token of its own answers, there and here, in nats (None: nothing compared, or the server
    does not tell); line: the finding in one line.

    Near relatives can give the same greedy answers, so that without a gap `same` excludes another model, not another
    weight.
    """

    verdict: Verdict
    agreement: float | None
    gap: float | None
    probes: int
    line: str


def identify(
    served: ServedModel,
    own: Sequence[Spoken],
    local: Local | None = None,
    prompts: Sequence[str] = PROBES,
    progress: Progress = SILENT,
) -> Identity:
    """Compare a server, of which `own` are the answers to `prompts`, with a model here.

    The server goes on from the prompts, and from some places of the answers here. Raises InputError if it does not
    answer.
    """
    named = (
        f"{served.url} {'lists' if served.server.facts.names else 'lists no models; it is asked for'} {served.model}"
    )
    if local is None:
        return Identity("unknown", None, None, 0, f"{named}; its weights were compared with nothing")
    asked = [
        (prompt + start, rest)
        for prompt, text in zip(prompts, local.answers, strict=True)
        for start, rest in _cuts(text)
    ]
    found: list[float] = []
    with progress.task("compare the server's answers", len(asked)) as task:
        for prompt, rest in asked:
            found.append(_share(served.greedy(prompt, STEP), rest))
            task.advance()
    agreement = sum(found) / len(found)
    gaps = [_gap(local, prompt, answer) for prompt, answer in zip(prompts, own, strict=True)]
    told = [gap for gap in gaps if gap is not None]
    gap = sum(told) / len(told) if 2 * len(told) >= len(gaps) else None
    verdict, why = _verdict(agreement, gap, served.model)
    return Identity(verdict, agreement, gap, len(found), f"{named}; its greedy answers agree {why}")


def _cuts(answer: str) -> list[tuple[str, str]]:
    """An answer cut before some of its words, (start, rest): the server goes on from places where both still agree.

    Answers compared only from their beginning differ throughout after the first near tie.
    """
    places = [0, *(m.start() for m in re.finditer(r"(?<=\w) (?=\w)", answer) if len(answer) - m.start() >= REST)]
    return [(answer[:place], answer[place:]) for place in places[:: max(1, len(places) // CUTS)][:CUTS]]


def _share(served: Spoken, local: str) -> float:
    """Share of the served answer up to its first difference from the local one, which may go on where this was cut."""
    # Whether a continuation shows the space that it begins with depends on the tokenizer.
    ours, theirs = served.text.lstrip(), local.lstrip()
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
    whole = len(ours) if served.truncated else max(len(ours), len(theirs))
    return same / whole if whole else 1.0


def _gap(local: Local, prompt: str, answer: Spoken) -> float | None:
    """Difference of ln P per token of one answer, there and here; None where the tokens are not known to be the same
    (a character in parts, a text that is read as other tokens than those that it was made of)."""
    if not answer.text or not answer.tokens or "\ufffd" in answer.text:
        return None
    count, here = local.score(prompt, answer.text)
    # The end of the turn is a token without text.
    if len(answer.tokens) - count not in ((0,) if answer.truncated else (0, 1)):
        return None
    return abs(sum(value for _, value in answer.tokens[:count]) - here) / count


def _verdict(agreement: float, gap: float | None, model: str) -> tuple[Verdict, str]:
    told = f"with those of the local checkpoint in {agreement:.0%} of their characters"
    told += f", their log-probabilities differ by {gap:.3f} nats a token" if gap is not None else ""
    # Log-probabilities of the same tokens tell more than which continuation follows a text: this may be read as other
    # tokens than it was made of.
    if gap is not None:
        other, same = gap > FAR, gap <= NEAR and agreement >= OTHER
    else:
        other, same = agreement < OTHER, agreement >= SAME
    if other:
        return "other", f"{told}: {model} there has other weights, or far fewer bits of them"
    return ("same", told) if same else ("unknown", f"{told}: too little for the same weights, too much for others")
