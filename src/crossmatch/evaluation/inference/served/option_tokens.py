"""Which tokens of prompt + option are the option's, told from the tokens alone.

A token may hold the end of the prompt and the beginning of an option ("straddle"). Then the score of every option of
that prompt begins with that token, so that all of them score the same text: ln P(tail of the prompt + option | what is
before). Parts of characters (of byte-level tokenizers) have no text of their own; where they hide the boundary, the
tokens of the prompt alone tell it.
"""

from collections.abc import Sequence

from crossmatch.evaluation.inference.served.http import ServerError
from crossmatch.evaluation.inference.served.replies import AGREE, Echo, Token, check_exclusive, check_same


def by_text(echoes: Sequence[Echo], options: Sequence[str]) -> list[int] | None:
    """The index of the first scored token for each option, by the characters of the tokens from the end; None: hidden.

    Reaches the same number of characters into the prompt with every option: none, if no token straddles.
    """
    places = [_from_the_end(echo) for echo in echoes]
    reach = 0
    while True:
        found = []
        for here, option in zip(places, options, strict=True):
            size = min((n for n in here if n >= len(option) + reach), default=None)
            if size is None or here[size] is None:
                return None
            found.append(size - len(option))
        if max(found) == reach:
            starts = [here[len(option) + reach] for here, option in zip(places, options, strict=True)]
            return [start for start in starts if start is not None]
        reach = max(found)


def by_prompt(echoes: Sequence[Echo], alone: Echo) -> list[int]:
    """The same by what the tokens share with those of the prompt alone.

    Raises ServerError if the server left out tokens, or read the shared ones otherwise.
    """
    for echo in [alone, *echoes]:
        if len(echo.tokens) != echo.asked:
            raise ServerError(
                f"{len(echo.tokens)} log-probabilities came for {echo.asked} tokens; the option's cannot be told",
                again=False,
            )
    start = min(_shared(echo.tokens, alone.tokens) for echo in echoes)
    for echo in echoes:
        check_same(alone.tokens[:start], echo.tokens[:start], "the prompt")
    return [start] * len(echoes)


def cut(echoes: Sequence[Echo], starts: Sequence[int]) -> list[tuple[Token, ...]]:
    """The scored tokens of each option.

    Raises ServerError if what is before them was not read alike with every option, if there is nothing to score, or
    if the options' first tokens have more than probability one together.
    """
    for echo, start in zip(echoes, starts, strict=True):
        check_same(echoes[0].tokens[: starts[0]], echo.tokens[:start], "the prompt")
    scored = [echo.tokens[start:] for echo, start in zip(echoes, starts, strict=True)]
    if not all(scored) or any(token.value is None for tokens in scored for token in tokens):
        raise ServerError("an option's first token has no log-probability: nothing is before it", again=False)
    check_exclusive([tokens[0] for tokens in scored])
    return scored


def _from_the_end(echo: Echo) -> dict[int, int | None]:
    """Characters from the end of the text -> index of the token that begins there; None where several do."""
    found: dict[int, int | None] = {0: len(echo.tokens)}
    size = 0
    for index in range(len(echo.tokens) - 1, -1, -1):
        text = echo.tokens[index].text
        size += len(text)
        if not echo.text.endswith(text, 0, len(echo.text) - size + len(text)) or size > len(echo.text):
            break
        found[size] = index if text else None
    return found


def _shared(tokens: Sequence[Token], alone: Sequence[Token]) -> int:
    """How many tokens two texts begin with alike.

    Different tokens may have one text, where both are parts of characters: the last shared one must also agree in
    its log-probability.
    """
    count = 0
    for ours, theirs in zip(tokens, alone, strict=False):
        if ours.text != theirs.text:
            break
        count += 1
    if count:
        ours, theirs = tokens[count - 1].value, alone[count - 1].value
        if ours is not None and theirs is not None and abs(ours - theirs) > 5 * AGREE:
            count -= 1
    return count
