"""One answer record: a line of `<variant>/<suite>.<condition>.jsonl`, as `crossmatch evaluate` and `run` write it."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

RECORD_VERSION = 1


class TraceJson(TypedDict):
    """The reasoning trace of an output."""

    state: Literal["none", "closed", "empty", "unclosed", "close_only", "untagged"]
    """Which markers of a reasoning block there are."""
    lexical: bool
    """Whether the answer begins with a reasoning phrase."""
    share: float
    """Share of the output's characters that are trace."""


class KlJson(TypedDict):
    """KL(variant || other) in nats on the reference answer."""

    first: float
    """At the answer's first token."""
    nats: float
    """Summed along the reference answer."""
    tokens: int
    """Tokens of the reference answer."""


class KlByRoleJson(TypedDict):
    """KL to the variants that this one is compared with; null where their logits cannot be compared."""

    reference: NotRequired[KlJson | None]
    base: NotRequired[KlJson | None]


class SustainJson(TypedDict):
    """The same question asked again, with constraints that the first answer met already."""

    before: NotRequired[float]
    """Score of the first answer, 0 to 1."""
    after: NotRequired[float | None]
    """Score of the second; null where there was nothing to lose."""
    met: NotRequired[int]
    """Constraints that the second answer meets."""
    constraints: NotRequired[list[list[Any]]]
    """Each as [kind, arguments]."""
    prompt_digest: NotRequired[str]
    output: NotRequired[str]
    truncated: NotRequired[bool]
    tokens: NotRequired[int | None]
    ended: NotRequired[str]
    failed: NotRequired[str]


class GeneratedChoiceJson(TypedDict):
    """The text that a model wrote to a question with options."""

    seed: int
    output: str
    truncated: bool
    tokens: int | None
    ended: NotRequired[str]
    """The token or text at which the answer ended."""
    opened: NotRequired[str]
    """Reasoning format whose block the prompt left open."""
    chosen: int | None
    """The option that the text names, counted from 0; null: none, or several."""
    answer_entropy: NotRequired[float | None]
    answer_margin: NotRequired[float | None]


class RecordJson(TypedDict):
    """One answer of one variant to one item of a suite under one condition.

    Which fields there are depends on the suite's kind; `failed` stands in place of an answer.
    """

    schema_version: NotRequired[int]
    """1; records of earlier versions have none."""
    variant: str
    suite: str
    suite_version: int
    condition: str
    """Template and decoding, as in `own.greedy`."""
    model_digest: str
    """Of the weights that answered."""
    id: str
    """The item's."""
    question: str
    """The item's question; of a document its beginning."""
    prompt_digest: str
    """blake3 of the prompt as the model read it."""
    failed: NotRequired[str]
    """Why there is no answer."""

    seed: NotRequired[int]
    """Of the answer, under sampled decoding."""
    reference: NotRequired[str]
    """The right answer (generation)."""
    checks: NotRequired[list[list[Any]]]
    """Instructions to follow, each as [kind, arguments]."""
    output: NotRequired[str]
    """All that the model wrote."""
    answer: NotRequired[str]
    """The output without its trace."""
    truncated: NotRequired[bool]
    """Whether the output was cut at the token limit."""
    tokens: NotRequired[int | None]
    """Tokens of the output, or of a document; null where a server does not tell."""
    ended: NotRequired[str]
    """The token or text at which the answer ended."""
    opened: NotRequired[str]
    """Reasoning format whose block the prompt left open."""
    trace: NotRequired[TraceJson]
    sustain: NotRequired[SustainJson]
    opener_loglikelihoods: NotRequired[dict[str, float]]
    """ln P that the output begins with each opener of a reasoning trace."""
    entropy: NotRequired[float | None]
    """Of the first token behind the prompt, in nats."""
    margin: NotRequired[float | None]
    """Probability by which the first token is ahead of the second."""
    answer_entropy: NotRequired[float | None]
    """Entropy where the answer begins, behind a trace."""
    answer_margin: NotRequired[float | None]
    kl: NotRequired[KlByRoleJson]

    options: NotRequired[list[str]]
    """Of a choice, in the order shown."""
    right: NotRequired[int]
    """The right option, counted from 0."""
    loglikelihoods: NotRequired[list[float]]
    """ln P of every option."""
    chosen: NotRequired[int]
    """The option of the highest log-likelihood."""
    chosen_norm: NotRequired[int]
    """The same, divided by the option's length in characters."""
    orders: NotRequired[list[int]]
    """The chosen option under every order of the options."""
    generated: NotRequired[list[GeneratedChoiceJson]]
    """Answers in words, one a seed."""

    bytes: NotRequired[int]
    """Of a document, in UTF-8."""
    nats: NotRequired[float]
    """Negative log-likelihood of a document."""
    windows: NotRequired[int]
    """Windows in which a document was read."""
