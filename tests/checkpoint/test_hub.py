"""The hub: inputs from it and outputs to it, spoken with a small hub of our own on this machine."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from crossmatch import Adapter, Checkpoint, merge
from crossmatch.checkpoint import upload
from crossmatch.errors import OutputError

TOKEN = "hf_ours"
ROUTE = re.compile(r"/(?:api/models/)?([\w-]+/[\w-]+)(?:/(revision|tree|preupload|commit|resolve)/(\w+))?(?:/(.+))?")
Files = dict[str, bytes]


def blob(content: bytes) -> str:
    """The name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(ThreadingHTTPServer):
    """Private model repositories of `org` in memory; each a list of commits, each of those all its files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Speaker)
        self.repos: dict[str, list[tuple[str, Files]]] = {}
        self.created: list[dict[str, Any]] = []

    def commit(self, repo: str, files: Files) -> str:
        commits = self.repos.setdefault(repo, [])
        commits.append((hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest(), files))
        return commits[-1][0]


class Speaker(BaseHTTPRequestHandler):
    """What huggingface_hub asks for when it creates, commits, lists and downloads."""

    server: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        self.answer({"error": message}, status, X_Error_Message=message, **({"X_Error_Code": code} if code else {}))

    def speak(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(self.path.partition("?")[0])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refuse(401, "Invalid credentials in Authorization header")
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif (match := ROUTE.fullmatch(path)) is None or match[1] not in self.server.repos:
            self.refuse(404, "Repository not found", "RepoNotFound")
        elif match[2] in ("preupload", "commit"):
            getattr(self, match[2])(match[1], body)
        else:
            self.give(match[1], match[2], match[3] or "main", match[4] or "")

    do_GET = do_HEAD = do_POST = speak  # noqa: N815

    def create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != "org":
            self.refuse(403, f"You don't have the rights to create a model under {wanted['organization']}")
            return
        known = repo in self.server.repos
        if not known:
            self.server.created.append(wanted)
            self.server.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer({"url": f"http://{self.headers['Host']}/{repo}"}, 409 if known else 200)

    def preupload(self, repo: str, body: bytes) -> None:
        held = self.server.repos[repo][-1][1]
        names = [file["path"] for file in json.loads(body)["files"]]
        oids = {name: blob(held[name]) if name in held else None for name in names}
        modes = {"uploadMode": "regular", "shouldIgnore": False}
        self.answer({"files": [{"path": name, "oid": oid, **modes} for name, oid in oids.items()]})

    def commit(self, repo: str, body: bytes) -> None:
        files = dict(self.server.repos[repo][-1][1])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        oid = self.server.commit(repo, files)
        self.answer({"commitUrl": f"http://{self.headers['Host']}/{repo}/commit/{oid}", "commitOid": oid})

    def give(self, repo: str, what: str | None, revision: str, name: str) -> None:
        commits = self.server.repos[repo]
        oid, files = next((c for c in commits if c[0] == revision), commits[-1])
        if revision not in ("main", oid):
            self.refuse(404, "Invalid rev id", "RevisionNotFound")
        elif what == "tree":
            self.answer([{"type": "file", "path": n, "size": len(c), "oid": blob(c)} for n, c in files.items()])
        elif what == "resolve":
            self.answer(files[name], ETag=f'"{blob(files[name])}"', X_Repo_Commit=oid)
        else:
            self.answer({"id": repo, "sha": oid, "private": True, "siblings": [{"rfilename": n} for n in files]})


def content(folder: Path) -> Files:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def hub(models: Path) -> Iterator[Hub]:
    """A hub that holds a base and an adapter."""
    server = Hub()
    for name in ("base", "pt"):
        server.commit(f"org/{name}", content(models / name))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def python(server: Hub, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own that knows no hub but ours: the client reads its settings when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_OFFLINE": "0",
    }
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=kept | settings, capture_output=True, text=True, timeout=60)


# Runs the calls that it is given, and prints what each gives: a source, the text of an OutputError, or an exit code.
CALLS = """
import json, os, sys
from pathlib import Path
from crossmatch.checkpoint import locate, upload
from crossmatch.cli import run
from crossmatch.errors import OutputError

def call(name, *arguments):
    if name == "token":
        os.environ["HF_TOKEN"] = arguments[0]
    elif name == "run":
        return run(arguments)
    else:
        try:
            source = locate(*arguments) if name == "locate" else upload(Path(arguments[0]), arguments[1])
        except OutputError as error:
            return str(error)
        return [str(source.path), source.hub_id, source.revision]

print(json.dumps([call(*words) for words in json.loads(sys.argv[1])]))
"""


def calls(server: Hub, home: Path, *wanted: list[str]) -> tuple[list[Any], list[str]]:
    """What each call gave, and the lines of stderr."""
    done = python(server, home, "-c", CALLS, json.dumps(wanted))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.splitlines()


def test_a_merge_of_hub_ids_records_their_commits(hub: Hub, models: Path, tmp_path: Path) -> None:
    claim = ["org/base", "-a", "pt=org/pt", "-w", "pt=0.5"]
    done = python(hub, tmp_path / "home", "-m", "crossmatch", "merge", *claim, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    predicate = json.loads((tmp_path / "out" / "crossmatch.json").read_text())["predicate"]
    for name, origin in {"base": predicate["base"], "pt": predicate["adapters"]["pt"]}.items():
        assert (origin["hub_id"], origin["revision"]) == (f"org/{name}", hub.repos[f"org/{name}"][-1][0])
        assert origin["path"] is None
    merge(Checkpoint(models / "base"), {"pt": (Adapter(models / "pt"), 0.5)}, tmp_path / "local")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "local")]
    assert weights[0] == weights[1]


def test_a_merge_is_written_to_the_hub(hub: Hub, models: Path, tmp_path: Path) -> None:
    claim = ["org/base", "-a", "pt=org/pt", "-w", "pt=0.5"]
    done = python(hub, tmp_path / "home", "-m", "crossmatch", "merge", *claim, "-o", "hub:org/merged")
    assert done.returncode == 0, done.stderr
    commit, files = hub.repos["org/merged"][-1]
    assert done.stdout == f"org/merged@{commit}: 14 tensors merged, 7 copied; verified\n"
    assert {"model.safetensors", "config.json", "crossmatch.json", "README.md"} <= set(files)
    again = python(hub, tmp_path / "home", "-m", "crossmatch", "verify", f"org/merged@{commit}")
    assert (again.returncode, again.stdout[:8]) == (0, "VERIFIED"), again.stderr


def test_there_and_back(hub: Hub, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    for name, data in {**content(models / "base"), "README.md": b"# Card\n", "deep/more.json": b"{}"}.items():
        (folder / name).write_bytes(data)
    send = ["upload", str(folder), "org/out"]
    adapter = ["upload", str(models / "pt"), "org/out"]
    found, _ = calls(hub, tmp_path / "home", ["locate", "org/base@main"], send, ["locate", "org/out"], send, adapter)
    base, sent, back, again, mixed = found
    assert base[1:] == ["org/base", hub.repos["org/base"][-1][0]]
    assert content(Path(base[0])) == content(models / "base")
    created = hub.created.pop()
    assert created["name"] == "out"
    assert created.get("visibility") == "private" or created.get("private") is True
    assert hub.created == []
    # The one that creation makes, and ours; the same files again are no new one.
    assert len(hub.repos["org/out"]) == 2
    oid, held = hub.repos["org/out"][-1]
    assert sent == again == [str(folder), "org/out", oid]
    del held[".gitattributes"]
    assert held == content(folder)
    assert back[1:] == ["org/out", oid]
    assert content(Path(back[0])) == {k: v for k, v in held.items() if k != "README.md"}
    assert "org/out on the hub holds other weights (model.safetensors)" in mixed


def refused(server: Hub, models: Path, home: Path, *wanted: list[str]) -> list[str]:
    """All lines that were said: each call must give one, and every command exit code 2."""
    given, lines = calls(server, home, *wanted)
    assert [code for code in given if isinstance(code, int)] == [2] * len(lines)
    assert all(line.startswith("error: ") for line in lines), lines
    texts = [text for text in given if isinstance(text, str)]
    assert all(text.startswith(f"{models / 'pt'} was not uploaded to ") and "\n" not in text for text in texts), given
    assert len(lines) + len(texts) == len([w for w in wanted if w[0] != "token"])
    return lines + texts


def test_refusals_are_one_line(hub: Hub, models: Path, tmp_path: Path) -> None:
    unknown = ["run", "merge", "org/none", "-a", "pt=org/pt", "-w", "pt=1", "-o", str(tmp_path / "out")]
    known = [word.replace("org/none", "org/base") for word in unknown]
    send = ["upload", str(models / "pt")]
    said = refused(
        hub,
        models,
        tmp_path / "home",
        unknown,
        ["run", "inspect", "org/base@v2"],
        [*send, "nobody/out"],
        ["token", "hf_stolen"],
        known,
        [*send, "org/out"],
    )
    expected = [
        "no directory org/none here, and the hub did not give it: 404 Not Found: Repository not found",
        "404 Not Found: Invalid rev id",
        "no directory org/base here, and the hub did not give it: 401 Unauthorized: Invalid credentials",
        "403 Forbidden: You don't have the rights to create a model under nobody; check the name",
        "401 Unauthorized: Invalid credentials",
    ]
    assert [text in line for text, line in zip(expected, said, strict=True)] == [True] * 5, said
    assert all("token (HF_TOKEN, or hf auth login)" in line for line in said)
    assert hub.created == []
    assert not (tmp_path / "out").exists()


def test_a_hub_that_is_gone_is_one_line(models: Path, tmp_path: Path) -> None:
    gone = Hub()
    gone.server_close()
    wanted = [["run", "inspect", "org/base"], ["upload", str(models / "pt"), "org/out"]]
    for line in refused(gone, models, tmp_path / "home", *wanted):
        assert "Connection refused; check the name, the network" in line


@pytest.mark.parametrize("repo", ["out", "org/out@main", "../out", "org/out/deep"])
def test_what_is_no_repository(models: Path, tmp_path: Path, repo: str) -> None:
    with pytest.raises(OutputError, match="write it as org/name"):
        upload(models / "pt", repo)
    with pytest.raises(OutputError, match="holds no files"):
        upload(tmp_path, "org/out")
