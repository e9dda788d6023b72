"""Signatures beside a checkpoint: valid, damaged, by another key, of too few files, and without the extra."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from crossmatch.checkpoint.signature import SIGNATURE, check_signature, sign
from crossmatch.errors import InputError
from helpers import copy


@pytest.fixture
def signed(models: Path, tmp_path: Path) -> Path:
    """A signed copy of the base, with its keys beside it, and those of somebody else."""
    pytest.importorskip("model_signing", reason="the extra `signing` is not installed")
    out = copy(models / "base", tmp_path / "model")
    (out / "crossmatch.json").write_text("{}")
    for name in ("ours", "theirs"):
        make_keys(tmp_path, name)
    assert sign(out, tmp_path / "ours.key") == out / SIGNATURE
    return out


def make_keys(directory: Path, name: str) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (directory / f"{name}.key").write_bytes(pem)
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (directory / f"{name}.pub").write_bytes(public)


def test_a_signature_holds_wherever_the_directory_goes(signed: Path, tmp_path: Path) -> None:
    result = check_signature(signed, tmp_path / "ours.pub")
    assert (result.state, result.valid, result.reason) == ("valid", True, "")
    assert {"model.safetensors", "crossmatch.json", "config.json"} <= set(result.files)
    assert check_signature(signed.rename(tmp_path / "elsewhere"), tmp_path / "ours.pub").valid
    assert json.loads(json.dumps(result.to_dict()))["state"] == "valid"


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "crossmatch.json"])
def test_one_changed_byte_is_found(signed: Path, tmp_path: Path, name: str) -> None:
    flip(signed / name)
    result = check_signature(signed, tmp_path / "ours.pub")
    assert (result.state, result.valid) == ("invalid", False)
    assert name in result.reason


def test_files_that_come_or_go_are_found(signed: Path, tmp_path: Path) -> None:
    (signed / "modeling.py").write_text("import os")
    assert "Extra files found" in check_signature(signed, tmp_path / "ours.pub").reason
    (signed / "modeling.py").unlink()
    (signed / "config.json").unlink()
    assert "Missing files" in check_signature(signed, tmp_path / "ours.pub").reason


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    assert "Key mismatch" in check_signature(signed, tmp_path / "theirs.pub").reason
    sign(signed, tmp_path / "theirs.key")
    assert not check_signature(signed, tmp_path / "ours.pub").valid


def test_a_payload_that_was_exchanged_is_refused(signed: Path, tmp_path: Path) -> None:
    """The digests of the damaged file under the signature of the whole one."""
    whole = json.loads((signed / SIGNATURE).read_text())
    flip(signed / "model.safetensors")
    sign(signed, tmp_path / "theirs.key")
    forged = json.loads((signed / SIGNATURE).read_text())
    forged["verificationMaterial"] = whole["verificationMaterial"]
    (signed / SIGNATURE).write_text(json.dumps(forged))
    assert check_signature(signed, tmp_path / "ours.pub").state == "invalid"
    forged["dsseEnvelope"]["signatures"] = whole["dsseEnvelope"]["signatures"]
    (signed / SIGNATURE).write_text(json.dumps(forged))
    assert check_signature(signed, tmp_path / "ours.pub").state == "invalid"


def test_weights_must_be_among_what_was_signed(signed: Path, tmp_path: Path) -> None:
    """A signer may leave files out; a signature over nothing but the config vouches for no weights."""
    import model_signing

    left_out = [signed / SIGNATURE, signed / "model.safetensors"]
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=tmp_path / "ours.key")
    config.set_hashing_config(model_signing.hashing.Config().set_ignored_paths(paths=left_out))
    config.sign(signed, signed / SIGNATURE)
    result = check_signature(signed, tmp_path / "ours.pub")
    assert (result.state, result.reason) == ("invalid", "it does not cover model.safetensors")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"dsseEnvelope": 1}', "[" * 100_000, '{"mediaType": "x"}', "\x00", '{"a":' * 5000],
)
def test_signatures_that_are_none(signed: Path, tmp_path: Path, text: str) -> None:
    (signed / SIGNATURE).write_text(text)
    result = check_signature(signed, tmp_path / "ours.pub")
    assert result.state == "invalid"
    assert result.reason
    assert "\n" not in result.reason


def test_keys_that_are_none(signed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no public key of an elliptic curve"):
        check_signature(signed, signed / "config.json")
    with pytest.raises(InputError, match="no public key of an elliptic curve"):
        check_signature(signed, tmp_path / "none.pub")
    with pytest.raises(InputError, match="no private key of an elliptic curve"):
        sign(signed, tmp_path / "ours.pub")


def test_a_signature_that_the_command_line_of_model_signing_makes_is_read(signed: Path, tmp_path: Path) -> None:
    """Its defaults are ours."""
    import model_signing

    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=tmp_path / "ours.key")
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=[signed / SIGNATURE])
    config.set_hashing_config(hashing).sign(signed, signed / SIGNATURE)
    assert check_signature(signed, tmp_path / "ours.pub").valid
    payload = json.loads((signed / SIGNATURE).read_text())["dsseEnvelope"]["payload"]
    assert json.loads(base64.b64decode(payload))["predicateType"] == "https://model_signing/signature/v1.0"


def test_without_the_extra(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is needed to see that there is no signature; to check one it is, and the message says how to get it."""
    missing: Any = None
    monkeypatch.setitem(sys.modules, "model_signing", missing)
    out = copy(models / "base", tmp_path / "model")
    assert check_signature(out, tmp_path / "any.pub").state == "absent"
    (out / SIGNATURE).write_text("{}")
    with pytest.raises(InputError, match="pip install 'model-signing"):
        check_signature(out, tmp_path / "any.pub")
    with pytest.raises(InputError, match="pip install 'model-signing"):
        sign(out, tmp_path / "any.key")


def test_a_relative_directory_is_the_same(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(signed.parent)
    (signed / SIGNATURE).unlink()
    sign(Path(signed.name), tmp_path / "ours.key")
    assert check_signature(Path(signed.name), tmp_path / "ours.pub").valid
    assert check_signature(signed, tmp_path / "ours.pub").valid
