"""A verdict as an in-toto statement and as a bill of materials: of what was judged, and of nothing else."""

import base64
import contextlib
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from crossmatch.checkpoint import root_digest
from crossmatch.cli import run


def said(*arguments: str) -> tuple[int, str]:
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        return run(arguments), err.getvalue()


@pytest.fixture(scope="module")
def merged(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attest") / "merged"
    parts = ["-a", f"pt={models / 'pt'}", "-w", "pt=0.3", "-a", f"sft={models / 'sft'}", "-w", "sft=0.7"]
    assert said("merge", str(models / "base"), *parts, "-o", str(out))[0] == 0
    return out


def attested(merged: Path, tmp_path: Path, *more: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    files = tmp_path / "claim.json", tmp_path / "bom.json"
    code, _ = said("verify", str(merged), "--attest", str(files[0]), "--bom", str(files[1]), *more)
    statement, bom = (json.loads(file.read_text()) for file in files)
    return code, statement, bom


def valid_statement(statement: dict[str, Any]) -> None:
    """By the classes of in-toto's own package."""
    resource = pytest.importorskip("in_toto_attestation.v1.resource_descriptor")
    library = pytest.importorskip("in_toto_attestation.v1.statement")
    subjects = [resource.ResourceDescriptor(name=s["name"], digest=s["digest"]).pb for s in statement["subject"]]
    library.Statement(subjects, statement["predicateType"], statement["predicate"]).validate()
    assert statement["_type"] == library.STATEMENT_TYPE_URI


def valid_bom(bom: dict[str, Any]) -> None:
    """By the schema that CycloneDX publishes."""
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    error = validation.JsonStrictValidator(schema.SchemaVersion.V1_7).validate_str(json.dumps(bom))
    assert error is None, error


def test_a_verified_merge(merged: Path, models: Path, tmp_path: Path) -> None:
    code, statement, bom = attested(merged, tmp_path)
    assert code == 0
    valid_statement(statement)
    valid_bom(bom)
    root = root_digest(merged)
    assert statement["subject"] == [{"name": "merged", "digest": {"sha256": root.sha256}}]
    predicate = statement["predicate"]
    assert (predicate["verdict"], predicate["faults"], predicate["scope"]) == ("verified", [], "every element")
    assert predicate["claim"]["adapters"]["pt"]["weight"] == 0.3
    assert predicate["weights"]["sft"]["recovered"] == pytest.approx(0.7, abs=1e-3)
    assert predicate["weights"]["sft"]["stderr"] > 0
    assert set(predicate["inputs"]["blake3"]) >= {"merged", "base", "adapters"}
    assert (
        predicate["inputs"]["files_sha256"]["config.json"]
        == hashlib.sha256((merged / "config.json").read_bytes()).hexdigest()
    )
    # No place on this machine is told.
    assert str(models) not in json.dumps([statement, bom])
    ancestors = bom["metadata"]["component"]["pedigree"]["ancestors"]
    facts = {a["name"]: {p["name"]: p["value"] for p in a["properties"]} for a in ancestors}
    assert list(facts) == ["base", "pt", "sft"]
    assert float(facts["pt"]["crossmatch:weight:recovered"]) == predicate["weights"]["pt"]["recovered"]
    assert float(facts["pt"]["crossmatch:weight:stderr"]) == predicate["weights"]["pt"]["stderr"]


def test_the_same_inputs_give_the_same_bytes(merged: Path, tmp_path: Path) -> None:
    first = attested(merged, tmp_path)
    assert attested(merged, tmp_path) == first


def test_a_failed_verdict_is_attested_as_failed(merged: Path, tmp_path: Path) -> None:
    code, statement, bom = attested(merged, tmp_path, "-w", "pt=0.5")
    assert code == 1
    valid_statement(statement)
    valid_bom(bom)
    assert statement["predicate"]["verdict"] == "failed"
    assert statement["predicate"]["faults"]
    assert statement["predicate"]["claim"]["adapters"]["pt"]["weight"] == 0.5
    properties = {p["name"]: p["value"] for p in bom["metadata"]["component"]["properties"]}
    assert properties["crossmatch:verdict"] == "failed"


def test_a_file_that_cannot_be_read_is_attested_as_failed(merged: Path, models: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(merged, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((merged / "model.safetensors").read_bytes()[:1000])
    claim = ["--base", str(models / "base"), "-a", f"pt={models / 'pt'}", "-w", "pt=0.3"]
    code, statement, bom = attested(broken, tmp_path, *claim)
    assert (code, statement["predicate"]["verdict"]) == (1, "failed")
    valid_statement(statement)
    valid_bom(bom)


def test_what_was_not_judged_is_not_attested(models: Path, tmp_path: Path) -> None:
    """An adapter at weight 0 against itself: nothing tells whether it is there."""
    from crossmatch.cli.attest import write_statements
    from crossmatch.cli.verdict_output import Shown
    from crossmatch.verification import Verdict

    file = tmp_path / "claim.json"
    file.write_text(json.dumps({"predicateType": "urn:crossmatch:verdict:1"}))
    other = tmp_path / "other.json"
    other.write_text("{}")
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        write_statements(str(models / "base"), Verdict("inconclusive"), None, Shown(attest=file, bom=other))
    # A statement of ours from before would be taken for this one; a stranger's file is left.
    assert not file.exists()
    assert other.read_text() == "{}"
    assert "nothing was judged, and an earlier one was removed" in err.getvalue()


def test_the_digest_is_that_of_model_signing(tmp_path: Path) -> None:
    """Files in the order of their paths' parts; what git keeps, and the signature, left out."""
    model = tmp_path / "model"
    files = {"model.safetensors": "abc", "config.json": "{}", "a/b.txt": "x", "a.txt": "y", "a-b": "z", ".hidden": "h"}
    for name, text in {**files, "A": "q", ".git/x": "q", ".gitattributes": "g"}.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(text)
    found = root_digest(model)
    assert list(found.files) == [".hidden", "A", "a/b.txt", "a-b", "a.txt", "config.json", "model.safetensors"]
    # What model-signing 1.1.1 names as the subject of its signature of these files.
    assert found.sha256 == "42af9b8a76460ae57c5c588d664c19c8aca2def0b96267fb69f461c61364c651"
    (model / "model.sig").write_text("{}")
    assert root_digest(model) == found


def test_a_signed_model_has_the_digest_that_was_signed(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="the extra `signing` is not installed")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    from crossmatch.checkpoint import sign

    model, key = shutil.copytree(models / "pt", tmp_path / "model"), ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (tmp_path / "key").write_bytes(pem)
    bundle = json.loads(sign(model, tmp_path / "key").read_text())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert payload["subject"][0]["digest"] == {"sha256": root_digest(model).sha256}


def test_a_model_that_changes_meanwhile_is_not_attested(merged: Path, tmp_path: Path) -> None:
    from crossmatch.cli.attest import watched, write_statements
    from crossmatch.cli.verdict_output import Shown
    from crossmatch.errors import CheckpointError
    from crossmatch.verification import Verdict

    model, shown = shutil.copytree(merged, tmp_path / "model"), Shown(attest=tmp_path / "a.json")
    watch = watched(str(model), shown)
    (model / "config.json").write_text("{ }")
    with pytest.raises(CheckpointError, match="was changed while it was being read"):
        write_statements(str(model), Verdict("failed"), None, shown, watch)
    assert not (tmp_path / "a.json").exists()


def test_one_file_for_two_forms_is_refused(merged: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "a.json")
    code, told = said("verify", str(merged), "--attest", file, "--bom", file)
    assert code == 2
    assert "--attest and --bom need a file each" in told
