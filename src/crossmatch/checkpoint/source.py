"""Where a checkpoint or an adapter comes from: a local directory, or a hub id with a revision."""

import re
from dataclasses import dataclass
from pathlib import Path

from crossmatch.errors import InputError

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?$")
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py"]


@dataclass(frozen=True)
class Source:
    """A directory on this machine, and the hub id and revision that it was fetched from, if any."""

    path: Path
    hub_id: str | None = None
    revision: str | None = None


def locate(text: str | Path) -> Source:
    """The directory behind a path or a hub id `org/name[@revision]`; a local path wins.

    Raises InputError if there is neither.
    """
    path = Path(text)
    if path.exists():
        return Source(path)
    if not isinstance(text, str) or not _HUB_ID.match(text):
        raise InputError(f"{text} does not exist; give a directory, or a hub id such as org/name@revision")
    return _fetch(text)


def _fetch(text: str) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    name, _, revision = text.partition("@")
    try:
        path = Path(snapshot_download(name, revision=revision or None, allow_patterns=_WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = reason.removeprefix("Got: ")
        raise InputError(f"no directory {text} here, and the hub did not give it: {reason}") from error
    # A snapshot lies in .../snapshots/<commit>.
    return Source(path, name, path.name)
