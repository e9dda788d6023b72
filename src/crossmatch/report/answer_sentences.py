"""Answers as few sentences, for a terminal's first screen and the top of a page. No number is made here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.report.text import columns, plain

Json = Mapping[str, Any]
WIDTH = 80
# Of more variants than this it is told how many have an answer.
_FEW = 2


def sentences(answers: Sequence[Json]) -> Iterator[str]:
    """The answers as few sentences: is it what it claims to be, how it compares, what cannot be told, is the test
    clean, then all others."""
    yield from _claims([a for a in answers if a["id"] == "is-as-claimed"])
    compared = [a for a in answers if a["against"] is not None and a["condition"] is not None]
    conditions = list(dict.fromkeys(a["condition"] for a in compared))
    first = [a for a in compared if a["condition"] == conditions[0]] if conditions else []
    several = len({a["about"] for a in first}) > _FEW
    blocks = [[a for a in first if a["against"] == other] for other in dict.fromkeys(a["against"] for a in first)]
    told = [list(_counted(block) if several else _against(block)) for block in blocks]
    clean = [a["sentence"] for a in answers if a["id"] == "test-set-clean"]
    yield from (told[0] if told else [])
    yield from clean
    if len(conditions) > 1:
        yield _otherwise(compared, conditions)
    for more in told[1:]:
        yield from more
    apart = ("is-as-claimed", "test-set-clean")
    yield from (a["short"] for a in answers if a["condition"] is None and a["id"] not in apart)


def _against(block: Sequence[Json]) -> Iterator[str]:
    """Of each variant what is decided, then what is not."""
    variants, other = list(dict.fromkeys(a["about"] for a in block)), plain(block[0]["against"])
    for variant in variants:
        it = "it" if len(variants) == 1 else plain(variant)
        decided = [a["short"] for a in block if a["about"] == variant and a["outcome"] != "cannot tell"]
        open_ = [a["short"] for a in block if a["about"] == variant and a["outcome"] == "cannot tell"]
        if decided:
            yield f"Against {other} {it} {_list(decided)}."
        if open_:
            yield f"Too few items (asked of needed) to tell whether, against {other}, {it} {_list(open_)}."


def _counted(block: Sequence[Json]) -> Iterator[str]:
    """Of many variants how many have each answer, and which, if they are few."""
    count, groups = len({a["about"] for a in block}), {}
    for answer in block:
        verb = answer["short"].partition(" (")[0]
        groups.setdefault((answer["outcome"] == "cannot tell", verb), []).append(plain(answer["about"]))
    other = plain(block[0]["against"])
    for undecided, head in ((False, f"Against {other}"), (True, f"Too few items to tell against {other}")):
        parts = [
            f"{verb} {len(names)} of {count}{f' ({_list(names)})' if len(names) <= _FEW < count else ''}"
            for (open_, verb), names in groups.items()
            if open_ is undecided
        ]
        if parts:
            yield f"{head}: {', '.join(parts)}."


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _claims(answers: Sequence[Json]) -> Iterator[str]:
    """One sentence each of what is not so; of several that are, one for all."""
    fine = [a for a in answers if a["outcome"] == "yes"]
    yield from (a["sentence"] for a in answers if a["outcome"] != "yes")
    if len(fine) > _FEW:
        yield (
            f"All {len(fine)} merges are what they claim to be."
            if len(fine) == len(answers)
            else (f"{len(fine)} of {len(answers)} merges are what they claim to be.")
        )
    elif len(fine) > 1:
        yield f"{_list([plain(a['about']) for a in fine])} are what they claim to be."
    else:
        yield from (a["sentence"] for a in fine)


def _otherwise(answers: Sequence[Json], conditions: Sequence[str]) -> str:
    """Under how many other conditions an answer is another one."""
    by: dict[str, dict[tuple[str, str, str], str]] = {name: {} for name in conditions}
    for a in answers:
        by[a["condition"]][a["id"], a["about"], a["against"]] = a["outcome"]
    first, others = by[conditions[0]], conditions[1:]
    differ = [c for c in others if any(first.get(key, outcome) != outcome for key, outcome in by[c].items())]
    text = f"This is under {plain(conditions[0])}"
    if not differ:
        return f"{text}; under {len(others)} other condition{'s' if len(others) > 1 else ''} the answers are the same."
    return f"{text}; answers differ under {', '.join(map(plain, differ))}."


def next_step(answers: Sequence[Json]) -> str | None:
    """What to do about what is not as it should be; else what would decide. One line of a terminal at most."""
    wrong = [a["next"] for a in answers if a["next"] and a["outcome"] not in (a["good"], "cannot tell")]
    open_ = [a["next"] for a in answers if a["next"] and a["outcome"] == "cannot tell"]
    fine = [a["next"] for a in answers if a["next"] and a["outcome"] == a["good"]]
    steps = list(dict.fromkeys(wrong or _largest(open_, answers) or fine))
    if not steps:
        return None
    line = f"next: {steps[0]}"
    for step in steps[1:]:
        if columns(line) + 2 + columns(step) <= WIDTH:
            line += f"; {step}"
    return line if columns(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _largest(steps: Sequence[str], answers: Sequence[Json]) -> list[str]:
    """Of several numbers of items of one suite the largest."""
    by_suite: dict[str, tuple[int, str]] = {}
    for answer in answers:
        if answer["next"] in steps and answer["outcome"] == "cannot tell":
            suite = answer["next"].rsplit(" ", 1)[-1]
            needed = answer["needed"] or 0
            if needed >= by_suite.get(suite, (0, ""))[0]:
                by_suite[suite] = needed, answer["next"]
    return [step for _, step in by_suite.values()]
