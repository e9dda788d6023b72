"""Texts for people: safe to print, sizes, durations, fitted to columns."""

import unicodedata


def fitted(head: str, tail: str, indent: int) -> str:
    """Two parts of a row on one line where 80 columns hold both, else the second below the first."""
    line = f"{head} {tail}".rstrip()
    return line if len(line) < 80 or not tail.strip() else f"{head.rstrip()}\n{'':{indent}}{tail.strip()}"


def duration(seconds: float) -> str:
    """Seconds for people: <1 s, 48 s, 12 min, 48 h, 20 d."""
    if 0 < seconds < 0.5:
        return "<1 s"
    for limit, unit, factor in ((100, "s", 1), (6000, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} d"


def size(nbytes: float) -> str:
    """Bytes for people: 1.23 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def count(number: float) -> str:
    """Of parameters, in words: 1.24 B, 135 M, 52.3 k."""
    for unit, word in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:,.3g}{word}" if number < 1e3 * unit else f"{number / unit:,.0f}{word}"
    return f"{number:.0f}"


def plain(text: str) -> str:
    """With escapes for what does not print (control characters, marks that turn the direction of writing, halves of
    surrogate pairs), so that a name from a file can neither steer a terminal nor break a line."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    # GitHub's runner takes old-style commands anywhere in a line.
    return shown.replace("##[", "#\\x23[")


def printable(text: str) -> str:
    """A line as any terminal can show it: control characters, which could move the cursor or rename the window, and
    what has no character are escaped. A name in a stranger's file may hold them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def columns(text: str) -> int:
    """Columns of a terminal that a text takes: two for a wide character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def shortened(text: str, width: int) -> str:
    """A name in so many columns: of a longer one its middle goes."""
    if columns(text) <= width:
        return text
    head, tail = "", ""
    for place in range(len(text)):
        if columns(head) <= columns(tail):
            grown = head + text[len(head)], tail
        else:
            grown = head, text[-len(tail) - 1] + tail
        if place and columns(grown[0] + grown[1]) > width - 1:
            break
        head, tail = grown
    return f"{head}…{tail}"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """A text in so many columns, at the left or at the right."""
    space = " " * max(0, width - columns(text))
    return space + text if right else text + space


def wrapped(text: str, width: int = 80, indent: int = 0) -> list[str]:
    """A text in lines of so many columns; words that are longer are cut, as are texts without spaces."""
    lines, line = [], ""
    for word in text.split():
        room = width - (indent if lines else 0)
        if line and columns(line) + 1 + columns(word) <= room:
            line += f" {word}"
            continue
        if line:
            lines.append(" " * (indent if lines else 0) + line)
        line, room = word, width - (indent if lines else 0)
        while columns(line) > room:
            cut = next(n for n in range(len(line), 0, -1) if columns(line[:n]) <= room)
            lines.append(" " * (indent if lines else 0) + line[:cut])
            line, room = line[cut:], width - indent
    return [*lines, " " * (indent if lines else 0) + line] if line else lines


def _parted(word: str, room: int) -> list[str]:
    """A word, or a long path in pieces that end at slashes as far as they fit."""
    if columns(word) <= room or "/" not in word:
        return [word]
    pieces = [""]
    for step in word.replace("/", "/\0").split("\0"):
        if pieces[-1] and columns(pieces[-1] + step) > room:
            pieces.append("")
        pieces[-1] += step
    return [piece for piece in pieces if piece]


def paragraph(text: str, indent: int = 0, width: int = 79, *, part_paths: bool = False) -> str:
    """A text in lines of so many columns, each indented; longer words stay whole, since paths and names are copied.

    part_paths: a path that is longer than a line is parted behind its slashes.
    """
    lines: list[str] = []
    room = width - indent
    words = (part for word in text.split() for part in (_parted(word, room) if part_paths else [word]))
    for word in words:
        if lines and columns(lines[-1]) + 1 + columns(word) <= width - indent:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(" " * indent + line for line in lines)
