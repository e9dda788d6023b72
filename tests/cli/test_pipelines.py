"""The GitHub Action, the pre-commit hook, the image: what they run, run here."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from crossmatch.cli import app, run
from crossmatch.export.job_summary import job_summary
from crossmatch.verification import Verdict
from crossmatch.verification.verdict import Finding

ROOT = Path(__file__).parents[2]
ACTION = YAML(typ="safe").load(ROOT / "action.yml")
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}


@pytest.fixture(scope="module")
def merged(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("action") / "merged"
    parts = ["-a", f"pt={models / 'pt'}", "-w", "pt=0.3", "-a", f"sft={models / 'sft'}", "-w", "sft=0.7"]
    assert run(["merge", str(models / "base"), *parts, "-o", str(out)]) == 0
    return out


def act(tmp_path: Path, **inputs: str) -> tuple[int, dict[str, str], str]:
    """The step `Verify` as a runner has it: inputs with their defaults as variables, bash -e -o pipefail."""
    values = {
        name: inputs.get(name.replace("-", "_"), facts.get("default", "")) for name, facts in ACTION["inputs"].items()
    }
    step = STEPS["Verify"]
    found = {key: re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", text) for key, text in step["env"].items()}
    environment = {key: values[match[1]] for key, match in found.items() if match}
    assert len(environment) == len(step["env"])
    scripts = tmp_path / "bin"
    scripts.mkdir(exist_ok=True)
    command = scripts / "crossmatch"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m crossmatch "$@"\n')
    command.chmod(0o755)
    output, summary = tmp_path / "output", tmp_path / "summary"
    for file in (output, summary):
        file.write_text("")
    environment |= {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
    environment |= {"PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    script = tmp_path / "step.sh"
    script.write_text(step["run"])
    bash = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
    done = subprocess.run(bash, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True)
    lines = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return done.returncode, lines, summary.read_text() + done.stderr


def test_inputs_and_outputs_are_documented() -> None:
    assert ACTION["runs"]["using"] == "composite"
    page = (ROOT / "docs" / "pipelines.md").read_text()
    for name, facts in {**ACTION["inputs"], **ACTION["outputs"]}.items():
        assert facts["description"], name
        assert f"`{name}`" in page, name
    # No input becomes text of a script.
    assert not any("${{" in step.get("run", "") for step in ACTION["runs"]["steps"])


def test_the_action_on_a_true_model(merged: Path, tmp_path: Path) -> None:
    code, lines, said = act(tmp_path, model=str(merged), attest="claim.json", bom="bom.json")
    assert (code, lines) == (0, {"verdict": "verified", "exit-code": "0"})
    assert "## ✅ verified: " in said
    assert "| pt | 0.3 | 0." in said
    assert json.loads((tmp_path / "crossmatch.sarif").read_text())["version"] == "2.1.0"
    assert json.loads((tmp_path / "claim.json").read_text())["predicate"]["verdict"] == "verified"
    assert json.loads((tmp_path / "bom.json").read_text())["specVersion"] == "1.7"


def test_the_action_on_a_false_claim(merged: Path, models: Path, tmp_path: Path) -> None:
    adapters = f"pt={models / 'pt'}\nsft={models / 'sft'}\n"
    inputs = {"base": str(models / "base"), "adapters": adapters, "weights": "pt=0.5\nsft=0.7", "options": "--quick"}
    code, lines, said = act(tmp_path, model=str(merged), **inputs)
    assert (code, lines["verdict"]) == (1, "failed")
    assert "## ❌ failed: " in said
    assert "### " in said


def test_the_action_where_nothing_can_be_said(tmp_path: Path) -> None:
    """A name that a shell would run is a name."""
    code, lines, said = act(tmp_path, model="$(touch here); `touch here`")
    assert (code, lines) == (2, {"verdict": "error", "exit-code": "2"})
    assert "does not exist" in said
    assert not (tmp_path / "here").exists()


def test_names_in_a_summary_are_only_names() -> None:
    finding = Finding("weights-uneven", ("a|b",), "<script>[x](http://e)")
    text = job_summary(Verdict("failed", (finding,), modules={"adapted": 0}, tensors={}, rounding={}).to_dict(), "<b>m")
    assert "<script>" not in text
    assert r"\[x\](http://e)" in text
    assert r"\<b\>m" in text


def test_the_hook_runs_a_command_that_exists() -> None:
    from typer.main import get_command

    (hook,) = YAML(typ="safe").load(ROOT / ".pre-commit-hooks.yaml")
    name, command = hook["entry"].split()
    assert name == "crossmatch"
    assert command in get_command(app).commands  # type: ignore[attr-defined]
    pattern = re.compile(hook["files"])
    assert all(
        pattern.search(f) for f in ("m/model-00001-of-2.safetensors", "m/crossmatch.json", "a/adapter_config.json")
    )
    assert not pattern.search("README.md")


def dockerfile() -> list[str]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_is_made_of_what_is_there_and_runs_as_nobody_special() -> None:
    lines = dockerfile()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["crossmatch"]
    assert 'ENTRYPOINT ["crossmatch"]' in lines
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert source in allowed, source


def docker() -> str | None:
    """Why the image cannot be built here; None where it can."""
    if not shutil.which("docker"):
        return "docker is not installed"
    done = subprocess.run(["docker", "info"], capture_output=True, text=True)
    return None if done.returncode == 0 else "docker has no daemon here"


@pytest.mark.slow
def test_the_image_verifies_and_is_small(merged: Path, models: Path) -> None:
    if reason := docker():
        pytest.skip(f"the image is not built: {reason}")

    def do(*words: str) -> Any:
        return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout

    do("build", "-t", "crossmatch-test", str(ROOT))
    assert int(do("image", "inspect", "-f", "{{.Size}}", "crossmatch-test")) < 2_500_000_000
    assert do("run", "--rm", "--entrypoint", "id", "crossmatch-test", "-u").strip() != "0"
    mounts = ["-v", f"{merged}:/models/merged:ro", "-v", f"{models}:/models/parts:ro"]
    parts = ["--base", "/models/parts/base"]
    for name, weight in (("pt", "0.3"), ("sft", "0.7")):
        parts += ["-a", f"{name}=/models/parts/{name}", "-w", f"{name}={weight}"]
    said = do("run", "--rm", "--network", "none", *mounts, "crossmatch-test", "verify", "/models/merged", *parts)
    assert said.startswith("VERIFIED")
