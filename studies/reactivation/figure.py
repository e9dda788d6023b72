"""The case study's one figure: what markers count, sentences of the training texts, length, over the grid."""

from collections.abc import Callable

from answers import Cell, Results, name_of

CELL, GAP, LEFT, TOP = 46, 40, 78, 58


def _sfts(results: Results) -> tuple[float, ...]:
    """Weights of SFT, the largest first; without SFT merges were asked beside the other texts."""
    return (*reversed(results.weights), *((0.0,) if results.has("texts1") else ()))


def _panels(results: Results) -> list[tuple[str, str, dict[tuple[float, float], float], float]]:
    """Title, unit, values by (PT, SFT), and the value of the darkest cell."""
    cells = {
        (a, b): results.cell("texts1" if b == 0 and 0 < a < 1 else "grid", name_of(pt=a, sft=b))
        for a in (0.0, *results.weights)
        for b in _sfts(results)
    }

    def over(value: Callable[[Cell], float]) -> dict[tuple[float, float], float]:
        return {point: float(value(cell)) for point, cell in cells.items()}

    def blocks(cell: Cell) -> float:
        return 100 * cell.both("trace_structural").mean()

    def sentences(cell: Cell) -> float:
        return 100 * cell.both("sentences").mean()

    def tokens(cell: Cell) -> float:
        return cell.both("output_tokens").mean()

    return [
        ("a reasoning block", "% of answers", over(blocks), 100.0),
        ("sentences of the training texts", "% of answers, no block", over(sentences), 100.0),
        ("length", "tokens an answer, 160 at most", over(tokens), 160.0),
    ]


def draw(results: Results) -> str:
    """The figure as SVG, with the numbers in its cells, so that it is read without its colours."""
    panels, pts, sfts = _panels(results), (0.0, *results.weights), _sfts(results)
    width = LEFT + len(panels) * (len(pts) * CELL + GAP)
    height = TOP + len(sfts) * CELL + 66
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        "<title>Answers with a reasoning block, with sentences of the training texts, and their length, by weight of "
        "PT "
        "and SFT</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, (title, unit, values, most) in enumerate(panels):
        left = LEFT + number * (len(pts) * CELL + GAP)
        lines.append(f'<text x="{left}" y="22" font-weight="600" fill="#1a1a1a">{title}</text>')
        lines.append(f'<text x="{left}" y="42" fill="#555">{unit}</text>')
        for row, sft in enumerate(sfts):
            top = TOP + row * CELL
            if number == 0:
                lines.append(f'<text x="{LEFT - 8}" y="{top + 28}" text-anchor="end" fill="#555">SFT {sft:g}</text>')
            for column, pt in enumerate(pts):
                value = values[pt, sft]
                share = min(value / most, 1.0)
                ink = "#fff" if share > 0.55 else "#1a1a1a"
                x = left + column * CELL
                lines.append(
                    f'<rect x="{x}" y="{top}" width="{CELL - 2}" height="{CELL - 2}" fill="{_colour(share)}"/>'
                    f'<text x="{x + CELL / 2 - 1:g}" y="{top + 28}" text-anchor="middle" fill="{ink}">'
                    f"{value:.0f}</text>"
                )
        bottom = TOP + len(sfts) * CELL
        for column, pt in enumerate(pts):
            x = left + column * CELL + CELL / 2 - 1
            lines.append(f'<text x="{x:g}" y="{bottom + 16}" text-anchor="middle" fill="#555">{pt:g}</text>')
        middle = left + len(pts) * CELL / 2
        lines.append(f'<text x="{middle:g}" y="{bottom + 36}" text-anchor="middle" fill="#555">weight of PT</text>')
    note = "One training seed, 70 answers a cell, greedy, under the template that forbids reasoning."
    lines.append(f'<text x="{LEFT}" y="{height - 8}" fill="#555">{note}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _colour(share: float) -> str:
    """From near white to a dark blue."""
    light, dark = (238, 242, 247), (16, 66, 120)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(light, dark, strict=True))
