"""Configs resolved by one child process for many tests: it takes seconds to start, and one config none."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossmatch.verification.files.config import resolve
from crossmatch.verification.files.sandbox import Resolution

# Of one child, whose time is limited.
_MOST = 60


@dataclass
class OneChild:
    """In the place of `resolve`; others: configs that other tests will ask about, resolved in the same go."""

    others: Callable[[], Iterable[dict[str, Any]]]
    known: dict[str, Resolution] = field(default_factory=dict)

    def __call__(self, asked: Sequence[dict[str, Any]]) -> tuple[Resolution, ...]:
        texts = [json.dumps(config, sort_keys=True) for config in asked]
        if not set(texts) <= set(self.known):
            every = {json.dumps(config, sort_keys=True): config for config in (*self.others(), *asked)}
            missing = {text: config for text, config in every.items() if text not in self.known}
            some = list(missing)
            for start in range(0, len(some), _MOST):
                part = some[start : start + _MOST]
                self.known |= zip(part, resolve([missing[text] for text in part]), strict=True)
        return tuple(self.known[text] for text in texts)
