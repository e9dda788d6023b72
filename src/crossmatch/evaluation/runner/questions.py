"""A suite under a condition: what is asked of each item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crossmatch.data.suite_rendering import render_item, render_suite
from crossmatch.data.suites import Item, Suite
from crossmatch.data.token_ids import move_spaces
from crossmatch.data.trace_blocks import opened_by
from crossmatch.data.turn_ends import Stops
from crossmatch.evaluation.conditions import Condition
from crossmatch.evaluation.inference.protocol import EOS
from crossmatch.evaluation.runner.kl import Answered, Comparison
from crossmatch.evaluation.runner.sustain_probe import Again


@dataclass(frozen=True)
class Questions:
    """A suite under a condition.

    scored: whether options and openers are scored; once per template is enough. kl: how a variant is compared with
    others on the reference answers of the first `compared` items (None: it is not); known: prompts that have been
    rendered already, by the item's id; ends: where an answer ends under this condition.
    """

    suite: Suite
    condition: Condition
    tokenizer: Any
    scored: bool = True
    kl: Comparison | None = None
    compared: int = 0
    known: Mapping[str, str] | None = None
    ends: Stops = EOS

    @property
    def parts(self) -> list[str]:
        """What is asked of every item: `answer N` by seed, `sustain`, `opening`, `kl`, `options`, `order N`, `text`,
        `steps`."""
        settings, seeds = self.suite.settings, self.condition.seeds
        answers = [f"answer {seed}" for seed in seeds]
        if settings.kind == "text":
            return ["text"]
        if settings.kind == "choice":
            orders = [f"order {number}" for number in range(settings.permutations)]
            generated = [*answers, *self._again, "steps"] if settings.generative else []
            return [*(["options", *orders] if self.scored else []), *generated]
        compared = self.scored and self.kl is not None and settings.kind == "generation"
        asked = [*answers, *self._again]
        return [*asked, *(["opening"] if self.scored else []), "steps", *(["kl"] if compared else [])]

    @property
    def _again(self) -> list[str]:
        """Asked after the answers: the same with constraints that these meet already; of several seeds the first."""
        return ["sustain"] if self.suite.settings.sustain else []

    def items(self, part: str) -> tuple[Item, ...]:
        """The items of which a part is asked."""
        return self.suite.items[: self.compared] if part == "kl" else self.suite.items

    @property
    def renderer(self) -> Again:
        """How an item is asked again."""
        return Again(self.suite, self.condition, self.tokenizer, self.stops)

    @property
    def stops(self) -> Stops:
        """Where an answer ends: behind a prompt without a template no text of one ends it, but its tokens do."""
        return self.ends if self.suite.settings.chat else Stops(self.ends.tokens)

    def answered(self, items: Sequence[Item]) -> list[Answered]:
        """Items with their reference answers, as these go on from the prompt."""
        between, chat = self.suite.settings.between, self.suite.settings.chat
        found = []
        for item in items:
            prompt, moved = move_spaces(self.prompts[item.id], chat=chat)
            found.append(Answered(item.id, prompt, moved + between + item.reference))
        return found

    def scorable(self, prompt: str, item: Item) -> tuple[str, Sequence[str]]:
        """A prompt and its options as they are scored: white space at its end belongs to them (`move_spaces`)."""
        prompt, moved = move_spaces(prompt, chat=self.suite.settings.chat)
        return prompt, [moved + text for text in self.suite.continuations(item)]

    def prepare(self) -> None:
        """Have what others must be asked for."""
        if self.kl is not None and "kl" in self.parts:
            self.kl.prepare(self.answered(self.items("kl")))

    @property
    def count(self) -> int:
        """How much there is to ask."""
        return sum(len(self.items(part)) for part in self.parts)

    @cached_property
    def prompts(self) -> Mapping[str, str]:
        """Every item as the model reads it, by its id. Raises DataError, with file and line, if the template cannot
        render one."""
        return (
            self.known if self.known is not None else render_suite(self.suite, self.condition.template, self.tokenizer)
        )

    def prompt(self, item: Item) -> str:
        """An item, with its options as they stand, as the model reads it. Raises DataError if it cannot be rendered."""
        return render_item(self.suite, item, self.condition.template, self.tokenizer)

    def opened(self, item: Item) -> str | None:
        """The reasoning format whose block the prompt of an item leaves open, so that its output begins inside it."""
        return opened_by(self.prompts[item.id], self.suite.settings.reasoning_formats)
