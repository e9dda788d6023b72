"""Every prompt of a suite, and every training row, rendered before anything else is done: what a chat template refuses,
or leaves out, is known before a model is loaded, with file and line."""

from collections.abc import Iterable, Mapping
from typing import Any

from crossmatch.data.chat_templates import render
from crossmatch.data.prompt_templates import Template
from crossmatch.data.suites import Item, Suite
from crossmatch.data.training_sets import Dialogue, Example
from crossmatch.errors import DataError


def render_item(suite: Suite, item: Item, template: Template, tokenizer: Any) -> str:
    """An item, with its options as they stand, as a model reads it. Raises DataError if it cannot be rendered."""
    if suite.settings.kind == "text":
        return item.question
    if not suite.settings.chat:
        return suite.prompt_text(item)
    return template.prompt(tokenizer, suite.messages(item))


def render_suite(suite: Suite, template: Template, tokenizer: Any) -> dict[str, str]:
    """All items by id. Raises DataError, with suite, file and line, for the first that cannot be rendered or is empty,
    and how many more there are."""
    found, problems = {}, []
    for item in suite.items:
        try:
            found[item.id] = render_item(suite, item, template, tokenizer)
            if not found[item.id].strip():
                raise DataError(f"a prompt is empty under template {template.name}")
        except DataError as error:
            problems.append((suite.places.get(item.id) or f"item {item.id}", error))
    if problems:
        place, error = problems[0]
        more = f" (and {len(problems) - 1} more items)" if problems[1:] else ""
        raise DataError(f"suite {suite.settings.name}, {place}: {error}{more}")
    return found


def days_of(tokenizer: Any, templates: Mapping[str, Template]) -> dict[str, str]:
    """Name -> the day that a chat template was given as today; those that write no date are left out."""
    found = {}
    for name, template in templates.items():
        if template.source is not None or tokenizer.chat_template is not None:
            found[name] = template.day(tokenizer)
    return {name: day for name, day in found.items() if day is not None}


def render_rows(examples: Iterable[Example], source: str, tokenizer: Any, thinking: bool | None) -> int:
    """Render all dialogues of a training set, and return how many there are. Raises DataError for the first that the
    tokenizer's template cannot render, and how many more there are."""
    count, problems = 0, []
    for number, example in enumerate(examples, 1):
        if not isinstance(example, Dialogue):
            continue
        count += 1
        try:
            render(tokenizer, example.messages(), thinking, answered=True)
        except DataError as error:
            problems.append(f"{source}, example {number}: {error}")
    if problems:
        raise DataError(problems[0] + (f" (and {len(problems) - 1} more rows)" if problems[1:] else ""))
    return count
