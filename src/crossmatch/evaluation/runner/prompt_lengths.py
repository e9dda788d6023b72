"""Whether every prompt fits into a model's positions with what follows it: known before a model is loaded."""

from collections.abc import Iterator, Sequence

from crossmatch.data.suites import Item
from crossmatch.data.token_ids import encode, encode_pairs, opening_ids
from crossmatch.errors import DataError
from crossmatch.evaluation.metrics.reasoning_traces import openers
from crossmatch.evaluation.runner.questions import Questions
from crossmatch.positions import Positions

Asked = tuple[Item, list[int], int]
"""An item, its prompt's token ids, and how many tokens may follow."""


def check_lengths(questions: Questions, most: int | None) -> str | None:
    """Hold every way in which the items of a suite are asked against `most` positions (None: there is no limit).

    A note on prompts that are cut, as the suite says; None if none is. Raises DataError, with suite, file and line, for
    the first that does not fit, and how many more there are. What `sustain` adds below a question follows from an
    answer, and is not known beforehand.
    """
    suite, tokenizer = questions.suite, questions.tokenizer
    if most is None or suite.settings.kind == "text":
        return None
    room = Positions(most, suite.settings.too_long, opening_ids(tokenizer))
    cut: set[str] = set()
    problems: dict[str, DataError] = {}
    for item, ids, following in _every_way(questions):
        if not room.fits(ids, following):
            try:
                room.fitted(ids, following, tokenizer)
                cut.add(item.id)
            except DataError as error:
                problems.setdefault(item.id, error)
    name = suite.settings.name
    if problems:
        first, more = next(iter(problems)), len(problems) - 1
        told = f" (and {more} more items)" if more else ""
        raise DataError(f"suite {name}, {suite.places.get(first) or f'item {first}'}: {problems[first]}{told}")
    if not cut:
        return None
    return f"suite {name}: {len(cut)} of {len(suite.items)} prompts lose their beginning (too_long: cut)"


def _every_way(questions: Questions) -> Iterator[Asked]:
    settings, scored = questions.suite.settings, questions.scored
    if settings.kind != "choice" or settings.generative:
        yield from _generated(questions, openers(settings.language) if scored and settings.kind != "choice" else ())
    if settings.kind == "choice" and scored:
        items = questions.suite.items
        pairs = [questions.scorable(questions.prompts[item.id], item) for item in items]
        yield from _continued(questions, items, pairs)
    if settings.kind == "generation" and scored:
        items = questions.suite.items[: questions.compared]
        answered = [(one.prompt, [one.answer]) for one in questions.answered(items)]
        yield from _continued(questions, items, answered)


def _generated(questions: Questions, openings: Sequence[str]) -> Iterator[Asked]:
    """Items that are answered, and at whose end openings of traces are scored."""
    settings, items, tokenizer = questions.suite.settings, questions.suite.items, questions.tokenizer
    first = tokenizer(list(openings), add_special_tokens=False)["input_ids"] if openings else []
    following = max(settings.max_new_tokens, *map(len, first), 0)
    prompts = encode(tokenizer, [questions.prompts[item.id] for item in items])
    yield from ((item, ids, following) for item, ids in zip(items, prompts, strict=True))


def _continued(
    questions: Questions, items: Sequence[Item], pairs: Sequence[tuple[str, Sequence[str]]]
) -> Iterator[Asked]:
    """Items behind whose prompts texts are scored."""
    before, after = encode_pairs(questions.tokenizer, [prompt for prompt, _ in pairs], [texts for _, texts in pairs])
    lengths = [max(map(len, group), default=1) for group in after]
    yield from zip(items, before, lengths, strict=True)
