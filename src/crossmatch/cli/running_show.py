"""What a terminal shows of representations and attributions, 80 columns wide."""

from collections.abc import Iterator, Mapping
from typing import Any

from crossmatch.cli.console import plain


def show_texts(facts: Mapping[str, Any]) -> None:
    """Representations by layer, then the modules that a log-odds comes from."""
    for name, found in facts.get("representations", {}).items():
        for line in _layers(name, found):
            print(plain(line))
    for name, metrics in facts.get("attribution", {}).items():
        for found in metrics.values():
            for line in _modules(name, found):
                print(plain(line))


def _layers(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{name}: {found['positions']} tokens of {found['texts']} texts, less first ones and massive dimensions"
    heads = ("CKA", "SVCCA", "cos2", "rotated", "shift", "eff.rank", "random")
    yield f"{'':16}" + "".join(f"{head:>9}" for head in heads)
    for row in found["layers"]:
        if row["part"] != "residual":
            continue
        view = row["without"]
        turn = view["subspaces"][-1]
        rotated, random = _mean(turn["rotated"]), _mean([one["effective_rank"] for one in view["random"]])
        cells = [view[key]["value"] for key in ("cka", "svcca")] + [turn["cosine2"]["value"], rotated]
        cells += [view["size"]["value"], view["effective_rank"]["value"], random]
        yield f"{'layer ' + str(row['layer']):16}" + "".join(f"{_number(cell):>9}" for cell in cells)


def _modules(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{name}: log-odds, {found['metric']}: {found['items']} items"
    change, share = found["change"], found["completeness"]
    said = "complete" if found["complete"] else "NOT COMPLETE"
    yield f"change {_number(change['value'])} +- {_number(change['stderr'])}, attributed {_number(share)} of it: {said}"
    yield f"{'':44}{'attributed':>11}{'taken out':>11}{'+-':>9}"
    for row in found["removed"]["modules"]:
        label = row["name"].removesuffix(".weight")[-43:]
        measured = row["removed"]
        cells = [row["integrated"]["value"], measured["value"], measured["stderr"]]
        yield f"{label:44}" + "".join(f"{_number(cell):>{w}}" for cell, w in zip(cells, (11, 11, 9), strict=True))
    top, ranks = len(found["removed"]["modules"]), found["removed"]["spearman"]["integrated"]["top"]["value"]
    yield f"confirmed: {found['removed']['confirmed']} of {top}; rank correlation {_number(ranks)}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
