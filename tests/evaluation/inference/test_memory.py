"""The memory budget: what is free, how it is written, and that no result depends on it."""

from pathlib import Path

import pytest
import torch

from crossmatch import Checkpoint
from crossmatch.errors import InputError, RecipeError
from crossmatch.evaluation.inference.batch_memory import Memory, cached_bytes, parse_memory, token_bytes
from crossmatch.evaluation.inference.kv_cache import Pool
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import Decoding
from crossmatch.runtime import free_memory
from crossmatch.study import load_recipe
from helpers import generated_texts, loglikelihoods, make_chat_model

MIB = 1 << 20
PROMPTS = [f"what is the {'very ' * (n % 5)}old {'blood heart cell '[: 6 * (n % 3)]}" for n in range(13)]
OPTIONS = [["heart", "the disease of the blood", "a"][: 1 + n % 3] for n in range(13)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(make_chat_model(tmp_path_factory.mktemp("memory") / "base"))


@pytest.mark.parametrize("nbytes", [1, 60_000, 300_000, 3_000_000])
def test_no_result_depends_on_it(base: Checkpoint, nbytes: int) -> None:
    plain, engine = Engine(base), Engine(base, memory=nbytes)
    assert engine.memory == Memory(nbytes)
    for decoding in (Decoding(), Decoding(1.0, 0.9)):
        assert generated_texts(engine, PROMPTS, 9, decoding) == generated_texts(plain, PROMPTS, 9, decoding)
    pairs = zip(loglikelihoods(engine, PROMPTS, OPTIONS), loglikelihoods(plain, PROMPTS, OPTIONS), strict=True)
    for one, other in pairs:
        assert one == pytest.approx(other, abs=1e-5)


def test_it_holds_what_it_says(base: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of all rows together stay within half of the budget; a small one gives fewer places."""
    capacities: list[int] = []
    start = Pool.__init__

    def watched(self: Pool, model: object, prefix: object, capacity: int, columns: int) -> None:
        assert capacity == 1 or capacity * columns * cached_bytes(model) <= budget // 2
        capacities.append(capacity)
        start(self, model, prefix, capacity, columns)  # type: ignore[arg-type]

    engines = {budget: Engine(base, memory=budget) for budget in (1, 100_000, 400_000, 1 << 30)}
    # What a trial of the model does is not counted.
    assert all(engine.ways.masks for engine in engines.values())
    monkeypatch.setattr(Pool, "__init__", watched)
    for budget, engine in engines.items():  # noqa: B007 (`watched` reads it)
        generated_texts(engine, PROMPTS, 9)
    assert capacities == sorted(capacities)
    assert (capacities[0], capacities[-1]) == (1, len(PROMPTS))
    assert 1 < capacities[1] < capacities[2]


def test_shapes_count(base: Checkpoint) -> None:
    model = Engine(base).model
    # Two layers, keys and values, two heads of 16 float32 numbers.
    assert cached_bytes(model) == 2 * 2 * 2 * 16 * 4
    assert token_bytes(model) == cached_bytes(model) + (8 * 64 + 3 * 176) * 4
    assert Memory(2 * 64 * 12 * 100).positions(model) == 100
    assert Memory(10 * 2 * 7 * token_bytes(model)).fit(model, 7) == 10
    assert Memory(1 << 40).rows(model, 100) == 5
    assert Memory(1).rows(model, 10_000, 10_000) == Memory(1).positions(model) == Memory(1).places(model, 50) == 1


def machine(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_what_is_free(tmp_path: Path) -> None:
    info = {"proc__meminfo": "MemTotal: 900 kB\nMemAvailable:   800 kB\n"}
    assert free_memory(machine(tmp_path / "bare", **info)) == 800 * 1024
    assert free_memory(tmp_path / "none") is None
    second = {
        "proc__self__cgroup": "0::/jobs/a\n",
        "sys__fs__cgroup__jobs__a__memory_dot_max": "max\n",
        "sys__fs__cgroup__jobs__a__memory_dot_current": "500\n",
        "sys__fs__cgroup__jobs__memory_dot_max": "10000\n",
        "sys__fs__cgroup__jobs__memory_dot_current": "4000\n",
    }
    assert free_memory(machine(tmp_path / "second", **info, **second)) == 6000
    # Inside a container its own group is the top.
    inside = {"sys__fs__cgroup__memory_dot_max": "7000", "sys__fs__cgroup__memory_dot_current": "8000"}
    inside["proc__self__cgroup"] = "0::/\n"
    assert free_memory(machine(tmp_path / "inside", **info, **inside)) == 0
    first = {
        "proc__self__cgroup": "12:cpu,cpuacct:/x\n9:memory:/x\n0::/\n",
        "sys__fs__cgroup__memory__x__memory_dot_limit_in_bytes": "5000\n",
        "sys__fs__cgroup__memory__x__memory_dot_usage_in_bytes": "1000\n",
        "sys__fs__cgroup__memory__memory_dot_limit_in_bytes": "9223372036854771712\n",
        "sys__fs__cgroup__memory__memory_dot_usage_in_bytes": "1000\n",
    }
    assert free_memory(machine(tmp_path / "first", **info, **first)) == 4000


def test_the_default_is_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for free, expected in (
        (40 << 30, 8 << 30),
        (33 << 30, 8 << 30),
        (16 << 30, 4 << 30),
        (0, 64 * MIB),
        (None, 1 << 30),
    ):
        monkeypatch.setattr("crossmatch.evaluation.inference.batch_memory.free_memory", lambda free=free: free)
        assert Memory.of(cpu).nbytes == expected
    assert Memory.of(cpu, 123).nbytes == 123


def test_how_it_is_written(tmp_path: Path) -> None:
    assert [parse_memory(t) for t in (None, "512MB", "4 gb", "1.5GiB")] == [None, 512 * 10**6, 4 * 10**9, 3 << 29]
    for text, message in (("4", "write it as 512MB or 4GB"), ("-1GB", "write it as"), ("3MB", "at least 64MiB")):
        with pytest.raises(InputError, match=message):
            parse_memory(text)
    recipe = "name: x\nbase: y\nadapters: {sft: {path: z}}\nmerges: [{sft: 1}]\n"
    (tmp_path / "r.yaml").write_text(recipe + "evaluation: {suites: [s.yaml], reference: sft, memory: lots}\n")
    with pytest.raises(RecipeError, match="memory lots: write it as"):
        load_recipe(tmp_path / "r.yaml")
