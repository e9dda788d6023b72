"""One digest of a whole model, as OpenSSF Model Signing (OMS 1.0, model-signing) computes it: what statements name.

sha256 over the raw sha256 digests of all files, in the order of their names. Signatures, which sign this digest, and
what git keeps beside files are left out, as model-signing leaves them out.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from crossmatch.checkpoint.signature import SIGNATURE
from crossmatch.checkpoint.untrusted import check_links, check_regular
from crossmatch.errors import CheckpointError

METHOD = "OMS 1.0: sha256 over the sha256 digests of all files, in the order of their names"
METHOD_FILE = "sha256 of the file"
_IGNORED = frozenset((SIGNATURE, "claims.jsonl", ".git", ".gitattributes", ".github", ".gitignore"))


@dataclass(frozen=True)
class RootDigest:
    """sha256: in hex; files: name -> sha256 of each; method: how the one was made of the others."""

    sha256: str
    files: dict[str, str]
    method: str


def root_digest(model: Path) -> RootDigest:
    """The digest of a model's directory, or of a single file. Reads every byte of it. Raises CheckpointError."""
    if not model.is_dir():
        found = _sha256(model)
        return RootDigest(found, {model.name: found}, METHOD_FILE)
    check_links(model)
    files = {file.relative_to(model).as_posix(): file for file in model.rglob("*") if not file.is_dir()}
    # Of paths the parts are compared, one after the other: a/b comes before a-b.
    names = sorted((name for name in files if name.split("/")[0] not in _IGNORED), key=lambda name: name.split("/"))
    digests = {name: _sha256(files[name]) for name in names}
    whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests.values())).hexdigest()
    return RootDigest(whole, digests, METHOD)


def _sha256(file: Path) -> str:
    check_regular(file)
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
