"""Is everything that a suite says, and that its data hold, put to use? What is not is refused, or said."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossmatch.errors import DataError

if TYPE_CHECKING:
    from crossmatch.data.suite_config import SuiteSettings

_ALL = ("id", "subject")
# Kind of a suite -> the fields that it reads.
READ = {
    "generation": (*_ALL, "question", "context", "reference"),
    "choice": (*_ALL, "question", "context", "options", "answer"),
    "instructions": (*_ALL, "question", "context", "checks"),
    "text": (*_ALL, "text"),
}
# Columns that change a question where a data set has them.
_TELLING = ("system", "context", "passage", "input", "history")


def check_fields(settings: "SuiteSettings") -> None:
    """Raise ValueError for a field or a setting that a suite of this kind does not read: it would do nothing."""
    kind, read = settings.kind, READ[settings.kind]
    idle = next((name for name in sorted(settings.fields.model_fields_set) if name not in read), None)
    if idle is not None:
        raise ValueError(f"fields.{idle} is not read: a suite of kind {kind} reads {', '.join(read)}")
    several = settings.fields.subject is not None or (settings.hub is not None and len(settings.hub.names) > 1)
    needs = {
        "option_line": (kind == "choice", "choice suites"),
        "window": (kind == "text", "text suites"),
        "overlap": (kind == "text", "text suites"),
        "fewshot_order": (settings.fewshot > 0, "solved examples, and fewshot is 0"),
        "subjects": (several, "data with subjects, and fields.subject names no column"),
    }
    for name, (used, purpose) in needs.items():
        if not used and getattr(settings, name) != type(settings).model_fields[name].default:
            raise ValueError(f"{name} is for {purpose}")


def unused_columns(rows: Sequence[Mapping[str, Any]], settings: "SuiteSettings", source: str) -> tuple[str, ...]:
    """Columns of the data that the suite does not read, in their order.

    Raises DataError for one that would change the question, unless the suite names it in `ignored`.
    """
    # Of a column that is empty in every row nothing is lost.
    full = (str(name) for row in rows for name, value in row.items() if value not in (None, "", [], {}))
    names = list(dict.fromkeys(full))
    used = {*_read(settings), *settings.where, *(column.split(".")[0] for column in settings.where)}
    left = [name for name in names if name not in {*used, *settings.ignored}]
    wrong = next((name for name in settings.ignored if name not in names), None)
    if wrong is not None:
        from crossmatch.data.suite_config import closest

        raise DataError(f"ignored: no row of {source} has {wrong!r}{closest(wrong, names)}")
    asked = settings.kind != "text"
    telling = next((name for name in left if asked and name in _TELLING), None)
    if telling is not None:
        use = f"map it, as `fields: {{..., context: {telling}}}` with {{context}} in the prompt"
        use = "give it as `system: TEXT` if it is the same for all" if telling == "system" else use
        raise DataError(
            f"{source}: the suite does not use {telling!r} of its data; {use}; or add `ignored: [{telling}]`"
        )
    context = settings.fields.context
    unasked = context.columns if asked and context is not None and "{context}" not in settings.prompt else ()
    return (*(f"{name} (the prompt has no {{context}})" for name in unasked), *left)


def _read(settings: "SuiteSettings") -> Iterable[str]:
    """Columns that the fields of this kind name: whole, and the outer one of `a.b`."""
    named: Sequence[str] = [name for name in READ[settings.kind] if getattr(settings.fields, name) is not None]
    if settings.fields.context is None and "{context}" in settings.prompt:
        yield "context"
    for name in named:
        for column in getattr(settings.fields, name).columns:
            yield from (column, column.removesuffix("?"), column.removesuffix("?").split(".")[0])
