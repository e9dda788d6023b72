"""Files of strangers, damaged on purpose: an answer or one clear line, in time, within bounds, and never a false
`verified`.

What `verified` promises of every element of the file, whatever was done to it:

- A tensor without a delta is the base's, bit for bit.
- An adapted element M lies within half a step of the exact X = W + sum w_i D_i, a thousandth of a step for arithmetic
  aside: the honest file was rounded once, and no other rounding is taken for honest in such a file. A flip of the lowest
  bit passes only between two numbers that lie the same way off.

The number of mutations is CROSSMATCH_MUTATIONS, 60 by default; seeds begin at CROSSMATCH_MUTATIONS_FROM.
CROSSMATCH_EVERY_CELL=1 makes it 300, and spoils every module of a file that was rounded once by itself.
"""

import contextlib
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from crossmatch import Adapter, Checkpoint
from crossmatch.adapter import fit
from crossmatch.checkpoint import digest as digests
from crossmatch.cli import run
from crossmatch.delta import dense
from crossmatch.merging import merge
from crossmatch.verification import Claim, verify_claim
from helpers import make_adapter, make_llama, make_tokenizer
from mutations import mutate

EVERY = bool(os.environ.get("CROSSMATCH_EVERY_CELL"))
MUTATIONS = int(os.environ.get("CROSSMATCH_MUTATIONS", "300" if EVERY else "60"))
SECONDS = 5
MEGABYTES = 300
CLAIM = {"pt": 0.3, "sft": 0.7}
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


class TooSlow(BaseException):
    """Not an Exception, so that nothing on the way takes it for a fault of its own."""


class Watch:
    """Files that are opened, while it is on."""

    on = False
    opened: list[str] = []  # noqa: RUF012

    @classmethod
    def note(cls, path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            cls.opened.append(os.path.realpath(os.fsdecode(path)))


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if Watch.on and event == "open":
        Watch.note(arguments[0])


sys.addaudithook(_hook)


class _Watched:
    """blake3, which opens files without telling the interpreter."""

    AUTO = digests.blake3.AUTO

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._inner = _BLAKE3(*arguments, **options)

    def update_mmap(self, file: Path) -> Any:
        if Watch.on:
            Watch.note(file)
        return self._inner.update_mmap(file)

    def hexdigest(self) -> str:
        return self._inner.hexdigest()


_BLAKE3 = digests.blake3


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """given/: base, shards (the base in three files), two adapters, their merge; outside/: what nobody may open."""
    root = tmp_path_factory.mktemp("hostile")
    made = root / "given"
    make_llama(made / "base", **SHAPE)
    make_tokenizer(made / "base")
    for seed, name in enumerate(CLAIM, 1):
        make_adapter(made / "base", made / name, seed=seed, r=4, lora_alpha=8)
        make_tokenizer(made / name)
    parts = {name: (Adapter(made / name), weight) for name, weight in CLAIM.items()}
    merge(Checkpoint(made / "base"), parts, made / "merged")
    merge(Checkpoint(made / "base"), parts, made / "sharded")
    _shard(made / "sharded")
    (root / "outside").mkdir()
    shutil.copy(made / "base" / "model.safetensors", root / "outside")
    (root / "outside" / "secret").write_text('{"secret": "nobody reads this"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "blake3", _Watched)
        yield root


def _shard(directory: Path) -> None:
    """The weights in two files with an index."""
    from safetensors.torch import save_file

    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, directory / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in halves.items() for name in held}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


TARGETS: dict[str, tuple[str, ...]] = {
    "merged/model.safetensors": ("claim", "manifest", "inspect", "dry-run"),
    "merged/config.json": ("claim", "manifest", "inspect", "dry-run"),
    "merged/crossmatch.json": ("manifest", "inspect"),
    "merged/tokenizer.json": ("claim", "inspect", "dry-run"),
    "merged/tokenizer_config.json": ("claim", "inspect", "dry-run"),
    "merged/generation_config.json": ("claim", "inspect", "dry-run"),
    "merged/chat_template.jinja": ("inspect", "dry-run"),
    "sharded/model.safetensors.index.json": ("sharded", "inspect sharded"),
    "sharded/model-00001-of-00002.safetensors": ("sharded", "inspect sharded"),
    "pt/adapter_config.json": ("claim", "inspect adapter", "dry-run"),
    "pt/adapter_model.safetensors": ("claim", "inspect adapter", "dry-run"),
    "pt/tokenizer_config.json": ("inspect adapter", "dry-run"),
    "base/config.json": ("claim", "dry-run"),
    "base/model.safetensors": ("claim", "dry-run"),
}


def arguments(made: Path, command: str) -> list[str]:
    """A command line; `dry-run` merges into the mutated checkpoint."""
    pairs = [x for name, w in CLAIM.items() for x in ("-a", f"{name}={made / name}", "-w", f"{name}={w}")]
    return {
        "claim": ["verify", str(made / "merged"), "--base", str(made / "base"), *pairs],
        "sharded": ["verify", str(made / "sharded"), "--base", str(made / "base"), *pairs, "--json", "--detail"],
        "manifest": ["verify", str(made / "merged"), "--json"],
        "inspect": ["inspect", str(made / "merged")],
        "inspect sharded": ["inspect", str(made / "sharded"), "--json"],
        "inspect adapter": ["inspect", str(made / "pt"), "--json"],
        "dry-run": ["merge", str(made / "merged"), *pairs, "--dry-run", "--any-base"],
    }[command]


def bounded(made: Path, line: list[str]) -> tuple[int, str, str]:
    """Run a command line in time, within memory, inside `made`. Output is encoded as a terminal's would be."""

    def late(*_: object) -> None:
        raise TooSlow(" ".join(line))

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors=e) for e in ("strict", "backslashreplace"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Watch.opened, Watch.on = [], True
    # Work is counted in processor time, so that a busy machine does not fail; whoever waits, for a pipe, uses none.
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, 12 * SECONDS)}
    old = {number: signal.signal(number, late) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(line)
            out.flush()
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in old.items():
            signal.signal(number, handler)
        Watch.on = False
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB more"
    # The hub's client looks for its token before it asks, whatever the name.
    allowed = (
        str(made),
        str(Path("~/.cache/huggingface").expanduser()),
        sys.prefix,
        sys.base_prefix,
        str(Path(digests.__file__).parents[1]),
        "/proc",
        "/sys",
        "/usr",
    )
    # The null device is what the child that renders templates has for its errors.
    strays = [p for p in Watch.opened if not p.startswith(allowed) and Path(p).suffix not in (".py", ".pyc", ".so")]
    strays = [path for path in strays if path != os.devnull]
    assert not strays, strays
    out.seek(0)
    err.flush()
    err.seek(0)
    return code, out.read(), err.read()


def answer(made: Path, command: str) -> str:
    """One command on what lies there: `verified`, another verdict, `shown`, or the class of the error."""
    line = arguments(made, command)
    code, out, err = bounded(made, line)
    shown = [x for x in err.splitlines() if x]
    assert all(c.isprintable() or c == "\n" for c in out + err), (out, err)
    assert "Traceback" not in err
    if code == 2:
        errors = [x for x in shown if x.startswith("error: ")]
        assert len(errors) == 1, shown
        assert len(errors[0]) < 3000
        assert out == "", out
        return "error"
    assert code in (0, 1, 3), (code, err)
    if line[0] != "verify":
        return "shown"
    verdict = json.loads(out)["verdict"] if "--json" in line else out.split(maxsplit=1)[0].lower()
    assert verdict == {0: "verified", 1: "failed", 3: "inconclusive"}[code]
    if verdict == "verified":
        check_promise(made, Path(line[1]))
    return verdict


def ulp(x: torch.Tensor) -> torch.Tensor:
    """Step of bfloat16 at |x|."""
    return torch.exp2(torch.floor(torch.log2(x.abs().clamp_min(2.0**-126)))) * 2.0**-7


def check_promise(made: Path, merged: Path) -> None:
    """What the head of this file says, from the bytes, with another reader."""
    read = lambda d: {k: v for f in sorted(d.glob("model*.safetensors")) for k, v in load_file(f).items()}  # noqa: E731
    base, stored = read(made / "base"), read(merged)
    found = fit(Checkpoint(made / "base"), {name: Adapter(made / name) for name in CLAIM})
    assert set(stored) == set(base)
    for name, weight in base.items():
        deltas = [w * dense(found.vectors[k][name]) for k, w in CLAIM.items() if name in found.vectors[k]]
        if not deltas:
            assert stored[name].dtype == weight.dtype
            assert torch.equal(stored[name].view(torch.uint8), weight.view(torch.uint8)), name
            continue
        exact, moved = weight.double() + sum(deltas), sum(d.abs() for d in deltas)
        away = (stored[name].double() - exact).abs()
        bound = ulp(stored[name].double()) * 0.502 + 1e-5 * moved.max()
        assert not bool((away > bound).any()), name


@contextlib.contextmanager
def damaged(root: Path, target: str, seed: int) -> Iterator[Path]:
    """The scene with one mutation of one file, which is put right afterwards."""
    file = root / "given" / target
    whole = file.read_bytes()
    try:
        mutate(random.Random(f"{target} {seed}"), file, root / "outside" / "secret")
        yield root / "given"
    finally:
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
        file.unlink(missing_ok=True)
        file.write_bytes(whole)


def test_the_scene_is_honest(scene: Path) -> None:
    made = scene / "given"
    commands = {command for several in TARGETS.values() for command in several}
    found = {command: answer(made, command) for command in commands}
    assert {found[c] for c in ("claim", "sharded", "manifest")} == {"verified"}
    assert {v for c, v in found.items() if c not in ("claim", "sharded", "manifest")} == {"shown"}


def test_mutations(scene: Path) -> None:
    """Every file in turn, every command in turn; the seed of a failure is in its message."""
    seen: Counter[tuple[str, str]] = Counter()
    slowest = 0.0
    targets = sorted(TARGETS)
    first = int(os.environ.get("CROSSMATCH_MUTATIONS_FROM", "0"))
    failures: list[str] = []
    for seed in range(first, first + MUTATIONS):
        target = targets[seed % len(targets)]
        command = TARGETS[target][seed // len(targets) % len(TARGETS[target])]
        with damaged(scene, target, seed) as made:
            started = time.process_time()
            try:
                seen[target, answer(made, command)] += 1
            except (Exception, TooSlow) as error:
                failures.append(f"seed {seed}, {target}, {command}: {type(error).__name__} {str(error)[:600]}")
                seen[target, "BROKEN"] += 1
            slowest = max(slowest, time.process_time() - started)
    for (target, outcome), count in sorted(seen.items()):
        print(f"{target:42} {outcome:14} {count}")
    print(f"{MUTATIONS} mutations, slowest {slowest:.2f} s")
    assert not failures, f"{len(failures)} of {MUTATIONS}:\n" + "\n".join(failures)


@settings(max_examples=min(60, MUTATIONS // 6), deadline=None)
@given(target=st.sampled_from(sorted(TARGETS)), which=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_mutations_that_hypothesis_chooses(scene: Path, target: str, which: int, seed: int) -> None:
    """The same with seeds that are remembered and made small when they fail."""
    command = TARGETS[target][which % len(TARGETS[target])]
    with damaged(scene, target, seed) as made:
        # It raises where a traceback, an internal error or a file outside came of it.
        assert answer(made, command)


def claimed(made: Path, merged: Path) -> str:
    """The verdict on a file, by the library."""
    parts = {name: (Adapter(made / name), weight) for name, weight in CLAIM.items()}
    return verify_claim(merged, Claim(Checkpoint(made / "base"), parts)).verdict


def flip(file: Path, name: str, element: int, bit: int) -> None:
    """One bit of one element of bfloat16."""
    info = Checkpoint(file.parent).tensors[name]
    with file.open("r+b") as stream:
        stream.seek(info.offset + 2 * element + bit // 8)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1 << bit % 8]))


def test_flipped_bits_of_weights(scene: Path) -> None:
    """Any bit of an untouched tensor shows, and of an adapted one, but for the lowest of an element near a tie. Each of
    the 16 is flipped once at least, in a tensor that is drawn."""
    made, rng = scene / "given", random.Random(7)
    file = made / "merged" / "model.safetensors"
    whole = file.read_bytes()
    infos = Checkpoint(made / "merged").tensors
    adapted = set(Adapter(made / "pt"))
    passed: Counter[int] = Counter()
    tried: Counter[int] = Counter()
    for number in range(max(16, MUTATIONS // 5)):
        name = rng.choice(sorted(infos))
        bit = number % 16
        flip(file, name, rng.randrange(infos[name].elements), bit)
        verdict = claimed(made, made / "merged")
        if name not in adapted:
            assert verdict == "failed", (name, bit)
        else:
            tried[bit] += 1
            passed[bit] += verdict == "verified"
            if verdict == "verified":
                check_promise(made, made / "merged")
        file.write_bytes(whole)
    print({bit: f"{passed[bit]} of {tried[bit]}" for bit in sorted(tried)})
    assert not any(passed[bit] for bit in range(1, 16))


def test_a_file_that_was_rounded_once_holds_no_other_element(scene: Path) -> None:
    """Not one, in a module of any kind, although another route might have rounded it so; and not all of them."""
    made = scene / "given"
    file = made / "merged" / "model.safetensors"
    whole, tensors = file.read_bytes(), load_file(file)
    try:
        adapted = list(Adapter(made / "pt"))
        # One of each kind: those of other layers and of the same kind go the same way.
        some = adapted if EVERY else list({re.sub(r"\d+", "", name): name for name in adapted}.values())
        for name in some:
            stored = tensors[name].clone()
            # The next number up, or down: a flip of the lowest bit of the mantissa.
            stored.view(torch.int16).view(-1)[5] ^= 1
            _replace(made / "merged", tensors | {name: stored})
            assert claimed(made, made / "merged") == "failed", name
        found = fit(Checkpoint(made / "base"), {n: Adapter(made / n) for n in CLAIM})
        others = {}
        for name in found.vectors["pt"]:
            exact = load_file(made / "base" / "model.safetensors")[name].double()
            exact = exact + sum(w * dense(found.vectors[k][name]) for k, w in CLAIM.items())
            up = torch.nextafter(tensors[name], torch.tensor(float("inf"), dtype=torch.bfloat16))
            down = torch.nextafter(tensors[name], torch.tensor(float("-inf"), dtype=torch.bfloat16))
            others[name] = torch.where(tensors[name].double() < exact, up, down)
        _replace(made / "merged", tensors | others)
        assert claimed(made, made / "merged") == "failed"
    finally:
        file.write_bytes(whole)


def _replace(directory: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def forge(made: Path, change: Any) -> None:
    """The manifest of the merge with one change; `change` gets the predicate."""
    file = made / "merged" / "crossmatch.json"
    manifest = json.loads(file.read_text())
    change(manifest["predicate"])
    file.write_text(json.dumps(manifest))


@pytest.fixture
def forgery(scene: Path, tmp_path: Path) -> Path:
    """A copy of what is given, in which the merge holds other weights than its manifest says."""
    made = shutil.copytree(scene / "given", tmp_path / "given")
    manifest = (made / "merged" / "crossmatch.json").read_bytes()
    shutil.rmtree(made / "merged")
    parts = {name: (Adapter(made / name), 1.0 - weight) for name, weight in CLAIM.items()}
    merge(Checkpoint(made / "base"), parts, made / "merged")
    (made / "merged" / "crossmatch.json").write_bytes(manifest)
    return made


def test_a_manifest_that_claims_its_verdict_is_not_believed(forgery: Path) -> None:
    assert answer(forgery, "manifest") == "failed"
    forge(forgery, lambda p: p.update(verdict={"verdict": "verified", "faults": [], "notes": []}))
    assert answer(forgery, "manifest") == "failed"
    file = forgery / "merged" / "crossmatch.json"
    manifest = json.loads(file.read_text())
    # The digest of the file that lies there: true, and worth nothing.
    manifest["subject"] = [
        {"name": n, "digest": {"blake3": d}} for n, d in Checkpoint(file.parent).file_digests.items()
    ]
    file.write_text(json.dumps(manifest))
    assert answer(forgery, "manifest") == "failed"


@pytest.mark.parametrize("name", ["base", "pt"])
def test_digests_of_inputs_are_taken_anew(forgery: Path, name: str) -> None:
    """Inputs exchanged for others are found, whatever digests the manifest gives of their files."""
    other = "sft" if name == "pt" else "merged"
    target = "adapter_model.safetensors" if name == "pt" else "model.safetensors"
    shutil.copy(forgery / other / target, forgery / name / target)
    code, out, err = bounded(forgery, arguments(forgery, "manifest"))
    assert (code, out) == (2, "")
    assert "is not the one that was merged" in err
    # With the digest of what lies there, the claim is another one, and the bytes decide.
    digest = Checkpoint(forgery / "base").digest if name == "base" else Adapter(forgery / "pt").digest
    forge(forgery, lambda p: (p["base"] if name == "base" else p["adapters"]["pt"]).update(digest=digest))
    assert answer(forgery, "manifest") in ("failed", "inconclusive")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"path": "/etc"}, "an absolute path; refused"),
        ({"path": "../../../../../../../../nowhere"}, "where nothing is"),
        ({"path": "../../../../../../../../etc"}, ""),
        ({"path": "../pt"}, "is an adapter"),
        ({"path": ""}, "where nothing is"),
        ({"path": None}, "where nothing is"),
        ({"path": 3}, "where nothing is"),
        ({"path": ["../base"]}, "where nothing is"),
        ({"path": "a\x00b"}, "refused"),
        ({"path": "x" * 100_000}, "refused"),
        ({"path": "/".join(["x" * 200] * 4)}, "where nothing is"),
        ({"hub_id": "../../../etc", "revision": "main"}, "no name on the hub"),
        ({"hub_id": "/etc/x", "revision": "main"}, "no name on the hub"),
        ({"hub_id": "org/name", "revision": "../../../x"}, "no name on the hub"),
        ({"hub_id": "org/name", "revision": "a/../b"}, "no name on the hub"),
        ({"hub_id": ["org/name"], "revision": "main"}, "no name on the hub"),
        ({"hub_id": {"a": 1}}, "no name on the hub"),
        ({"hub_id": "nobody-at-all/no-such-model", "revision": "main"}, "the hub did not give it"),
        ({"hub_id": "nobody-at-all/no-such-model"}, "the hub did not give it"),
    ],
)
@pytest.mark.parametrize("name", ["base", "pt"])
def test_places_that_a_manifest_may_not_name(forgery: Path, name: str, place: dict[str, Any], message: str) -> None:
    if name == "pt" and message == "is an adapter":
        message = ""
    forge(forgery, lambda p: (p["base"] if name == "base" else p["adapters"]["pt"]).update({"hub_id": None, **place}))
    code, out, err = bounded(forgery, arguments(forgery, "manifest"))
    if name == "pt" and place.get("path") == "../pt":
        assert code == 1
        return
    assert (code, out) == (2, ""), err
    assert message in err
    assert len([x for x in err.splitlines() if x.startswith("error: ")]) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(adapters={}),
        lambda p: p.update(adapters=[]),
        lambda p: p.update(adapters={f"a{i}": p["adapters"]["pt"] for i in range(1000)}),
        lambda p: p.update(adapters={"../pt": p["adapters"]["pt"]}),
        lambda p: p.update(adapters={"\x1b[2J": p["adapters"]["pt"]}),
        lambda p: p["adapters"]["pt"].update(weight=math.nan),
        lambda p: p["adapters"]["pt"].update(weight="0.3," + "mlp:1," * 50),
        lambda p: p["adapters"]["pt"].update(weight=[0.3]),
        lambda p: p["adapters"]["pt"].update(weight="9" * 5000),
        lambda p: p.update(seed=math.inf),
        lambda p: p.update(rule="ties", parameters={"density": math.nan}),
        lambda p: p.update(rule=["linear"]),
        lambda p: p.update(parameters=[1]),
        lambda p: p.update(tied=["untie"]),
        lambda p: p.update(calibration="0" * 64),
        lambda p: p["base"].update(digest=None),
    ],
    ids=range(16),
)
def test_manifests_that_describe_no_merge(forgery: Path, change: Any) -> None:
    forge(forgery, change)
    code, out, err = bounded(forgery, arguments(forgery, "manifest"))
    assert (code, out) == (2, ""), (code, out, err)
    assert len([x for x in err.splitlines() if x.startswith("error: ")]) == 1
