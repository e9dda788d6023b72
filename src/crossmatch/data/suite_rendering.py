"""Every prompt of a suite, and every training row, rendered before anything else is done: what a chat template refuses,
or leaves out, is known before a model is loaded, with file and line."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.data.prompt_templates import Template
from crossmatch.data.responses import Reading, read_responses
from crossmatch.data.row_checks import check_dialogues
from crossmatch.data.suites import Item, Suite
from crossmatch.data.training_sets import Example, dialogues
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


def render_rows(examples: Sequence[Example], source: str, reading: Reading, room: tuple[int, int | None]) -> list[str]:
    """Render all rows of a training set as SFT will read them; notes on what it will not see as it is asked for.

    Refused is what training refuses: what the template cannot render or leaves out, and dialogues for which there is no
    room (`read_responses`). Raises DataError for the first such row, with file and line, and how many more there are.
    """
    spoken = dialogues(examples, source)
    checked = check_dialogues(reading.tokenizer, spoken, reading.switch().variables)

    def place(number: int) -> str:
        return spoken[number].place or f"{source}, example {number + 1}"

    _, differing = read_responses(reading, checked.dialogues, room, place)
    return [*checked.notes, *([differing] if differing else [])]
