"""Texts for people: safe to print, sizes, durations, fitted to columns."""


def fitted(head: str, tail: str, indent: int) -> str:
    """Two parts of a row on one line where 80 columns hold both, else the second below the first."""
    line = f"{head} {tail}".rstrip()
    return line if len(line) < 80 or not tail.strip() else f"{head.rstrip()}\n{'':{indent}}{tail.strip()}"


def duration(seconds: float) -> str:
    """Seconds for people: 48 s, 12 min, 3.5 h, 20 d."""
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
