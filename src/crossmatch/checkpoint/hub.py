"""Where a checkpoint or an adapter comes from: a local directory, or a hub id with a revision."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from crossmatch.errors import InputError, OutputError
from crossmatch.results.merging import OriginJson

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@\w[\w.-]*(/\w[\w.-]*)*)?", re.ASCII)
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py"]
_WEIGHTS = (".safetensors", ".safetensors.index.json")


@dataclass(frozen=True)
class Source:
    """A directory on this machine, and the hub id and revision that it was fetched from, if any."""

    path: Path
    hub_id: str | None = None
    revision: str | None = None

    def origin(self, home: Path | None) -> OriginJson:
        """Where this lies, for a manifest: relative to the output directory `home`, so that both can move together
        (None: that will be elsewhere, and only the hub's name is said)."""
        where = None if self.hub_id or home is None else os.path.relpath(self.path.resolve(), home.resolve())
        return {"path": where, "hub_id": self.hub_id, "revision": self.revision}


def locate(text: str | Path) -> Source:
    """The directory behind a path or a hub id `org/name[@revision]`; a local path wins.

    Raises InputError if there is neither.
    """
    path = Path(text)
    try:
        if path.exists():
            return Source(path)
    except OSError as error:
        raise InputError(f"{text} cannot be read: {error.strerror or error}") from error
    if not isinstance(text, str) or not is_hub_id(text):
        close = _beside(str(text))
        hint = f"did you mean {close}?" if close else "give a directory, or a hub id such as org/name@revision"
        raise InputError(f"{text} does not exist; {hint}")
    return _fetch(text)


def is_hub_id(text: object) -> bool:
    """Whether this is written as a hub id: org/name[@revision], nothing that could be a path up or out."""
    return isinstance(text, str) and _HUB_ID.fullmatch(text) is not None


def upload(folder: Path, repo: str) -> Source:
    """Put all files of `folder` into the hub's model repository `org/name` in one commit; a new repository is private.

    Raises OutputError if the hub refuses or is not reached, or if the repository holds weights that these would not
    replace: a loader might take them.
    """
    if not is_hub_id(repo) or "@" in repo:
        raise OutputError(f"{repo} is no repository of the hub; write it as org/name")
    from huggingface_hub import CommitOperationAdd, HfApi

    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    if not files:
        raise OutputError(f"{folder} holds no files to upload to {repo}")
    api = HfApi()
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        held = {name for name in api.list_repo_files(repo) if name.endswith(_WEIGHTS) and "/" not in name}
        if strays := ", ".join(sorted(held - files.keys())[:3]):
            raise OutputError(f"{repo} on the hub holds other weights ({strays}); remove them, or choose another name")
        # Not upload_folder: it may make several commits of one folder, and a reader could come between them.
        additions = [CommitOperationAdd(name, file) for name, file in files.items()]
        commit = api.create_commit(repo, additions, commit_message="Upload with crossmatch")
    except _hub_errors() as error:
        raise OutputError(
            f"{folder} was not uploaded to {repo}: {_reason(error)}; "
            "check the name, the network, and that your token (HF_TOKEN, or hf auth login) may write there"
        ) from error
    return Source(folder, repo, commit.oid)


def _fetch(text: str) -> Source:
    from huggingface_hub import snapshot_download

    name, _, revision = text.partition("@")
    try:
        path = Path(snapshot_download(name, revision=revision or None, allow_patterns=_WANTED))
    except _hub_errors() as error:
        close = _beside(text)
        if close is not None:
            raise InputError(
                f"no directory {text} here; did you mean {close}? (not on the hub: {_reason(error)})"
            ) from error
        raise InputError(
            f"no directory {text} here, and the hub did not give it: {_reason(error)}; "
            "check the name, the network, and your token (HF_TOKEN, or hf auth login) if it is private"
        ) from error
    # A snapshot lies in .../snapshots/<commit>.
    return Source(path, name, path.name)


def _beside(text: str) -> Path | None:
    """A directory of a similar name at the same place, if there is one."""
    place = Path(text).parent
    names = [entry.name for entry in place.iterdir() if entry.is_dir()] if place.is_dir() else []
    found = difflib.get_close_matches(Path(text).name, names, n=1)
    return place / found[0] if found else None


def _hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises; RuntimeError is that of a failed transfer."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its parent is the base of the HTTP library's own errors (connections, proxies), whichever library that is.
    return (HfHubHTTPError.__mro__[1], OSError, ValueError, RuntimeError)


def _reason(error: BaseException) -> str:
    """What the hub said, or what happened on the way to it, in one line."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # This one tells of the cache, and its cause of the hub.
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().partition("\n\n")[0]
    if isinstance(error, HfHubHTTPError) and error.server_message:
        text = f"{error.response.status_code} {error.response.reason_phrase}: {error.server_message}"
    return " ".join(text.split()).rstrip(".") or type(error).__name__
