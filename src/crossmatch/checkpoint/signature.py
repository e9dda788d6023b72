"""A signature beside a checkpoint: whoever has the private key vouches for every file of the directory.

The file is `model.sig`, a Sigstore bundle as model-signing writes and reads it, with an elliptic-curve key and nothing
online. It says who made the files, which a proof of weights does not; it does not say what is inside, which a proof
does. Needs the extra `signing`.
"""

import base64
import contextlib
import importlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossmatch.checkpoint.layout import MANIFEST, find_weights
from crossmatch.checkpoint.untrusted import check_links, parse_json, read_text
from crossmatch.errors import InputError, OutputError, pip_line
from crossmatch.results.verdict import SignatureJson

SIGNATURE = "model.sig"


@dataclass(frozen=True)
class SignatureResult:
    """What a signature says of a directory.

    state: `valid`, every file is as it was signed with that key; `invalid`, it is not; `absent`, there is no signature.
    reason: what is wrong, as a sentence without its end; files: what was signed, by name, if valid.
    """

    state: Literal["valid", "invalid", "absent"]
    reason: str = ""
    files: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """True only for a signature that holds: none is not one."""
        return self.state == "valid"

    def to_dict(self) -> SignatureJson:
        """As plain JSON."""
        return {"state": self.state, "reason": self.reason, "files": list(self.files)}


def check_signature(directory: Path, public_key: Path) -> SignatureResult:
    """Check `model.sig` in a directory against a public key (PEM, P-256, P-384 or P-521); reads every file.

    The weights and the manifest must be among what was signed: a signer may leave out files, but not these. Raises
    InputError without the extra, or for a key that cannot be used; CheckpointError for a directory that is none of a
    model.
    """
    directory = directory.resolve()
    file = directory / SIGNATURE
    if not file.exists():
        return SignatureResult("absent", f"{directory} holds no {SIGNATURE}")
    verifying = _library().verifying
    check_links(directory)
    needed = {path.name for path in find_weights(directory).files}
    needed |= {MANIFEST} if (directory / MANIFEST).exists() else set()
    text = read_text(file)
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # the libraries below raise whatever their parsers do
        raise InputError(f"{public_key} is no public key of an elliptic curve in PEM: {_line(error)}") from error
    try:
        # Refused here if it would exhaust the stack of the parsers below.
        parse_json(text)
        # It may print a warning, which belongs to nobody's output.
        with contextlib.redirect_stdout(io.StringIO()):
            config.verify(directory, file)
        signed = _signed_files(text)
    except Exception as error:  # what a stranger's file makes a parser raise is not known
        return SignatureResult("invalid", _line(error))
    if left_out := sorted(needed - set(signed)):
        return SignatureResult("invalid", f"it does not cover {', '.join(left_out[:3])}")
    return SignatureResult("valid", files=signed)


def check_key(private_key: Path) -> None:
    """Raise InputError for a key that `sign` could not use, or without its extra: before the work, not after it."""
    if not private_key.is_file():
        raise InputError(f"--sign {private_key}: no such file; give a private key in PEM")
    _signer(_library(), private_key)


def sign(directory: Path, private_key: Path) -> Path:
    """Sign all files of a directory with an elliptic-curve key (PEM, no password); returns the signature file.

    To be called when everything else is written. Raises InputError without the extra or for a key that cannot be used,
    OutputError if the signature cannot be made.
    """
    # The library takes ignored paths literally: a relative directory would not match them when it is verified.
    directory = directory.resolve()
    library, file = _library(), directory / SIGNATURE
    config = _signer(library, private_key)
    hashing = library.hashing.Config().use_file_serialization().set_ignored_paths(paths=[file])
    try:
        config.set_hashing_config(hashing).sign(directory, file)
    except Exception as error:  # as above
        raise OutputError(f"{directory} was not signed: {_line(error)}") from error
    return file


def _signer(library: Any, private_key: Path) -> Any:
    try:
        return library.signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # as above
        raise InputError(f"{private_key} is no private key of an elliptic curve in PEM: {_line(error)}") from error


def _library() -> Any:
    try:
        return importlib.import_module("model_signing")
    except ImportError as error:
        raise InputError(f"a signature needs what signs: {pip_line('signing')} ({error})") from error


def _signed_files(text: str) -> tuple[str, ...]:
    """Names of the files in a bundle whose signature holds."""
    payload = json.loads(base64.b64decode(json.loads(text)["dsseEnvelope"]["payload"]))
    resources = payload["predicate"]["resources"]
    return tuple(sorted(str(entry["name"]).partition(":")[0] for entry in resources))


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"
