"""The rules by which deltas are combined, found by name."""

import difflib
from collections.abc import Callable, Mapping, Sequence

from crossmatch.delta import Delta, linear
from crossmatch.errors import RuleError

Rule = Callable[[Sequence[Delta], Sequence[float]], Delta]

RULES: Mapping[str, Rule] = {"linear": linear}


def get_rule(name: str) -> Rule:
    """The rule of that name. Raises RuleError with the names there are."""
    if name in RULES:
        return RULES[name]
    close = difflib.get_close_matches(name, RULES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(RULES)}"
    raise RuleError(f"no rule is called {name!r}; {hint}")
