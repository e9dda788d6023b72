"""The released tools whose routes are called honest, each in its own environment below benchmarks/.peers.

`make bench-merge` installs them. Their files must be verified, and be what our emulations write, byte for byte.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from faults.build import CLAIM, Bench, one_by_one, state
from faults.honest import arithmetic
from faults.registry import Claimed, ask

PEERS = Path(__file__).parents[2] / "benchmarks" / ".peers"
AXOLOTL = "import sys; from axolotl.cli.utils import lora_merge as m; m.merge_lora_sharded_efficient(*sys.argv[1:])"
pytestmark = pytest.mark.slow


def call(program: Path, *arguments: object) -> None:
    """Run a tool of another environment. Skips the test where it is not installed."""
    if not program.exists():
        pytest.skip(f"{program.parent.parent.name} is not installed; make bench-merge does that")
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**plain, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def same(first: Path, second: Path) -> bool:
    ours, theirs = state(first), state(second)
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("dtype", "size"), [("bf16", 1e-1), ("bf16", 1e-3), ("fp16", 1e-2)])
def test_mergekit(tmp_path: Path, dtype: str, size: float) -> None:
    bench, out = Bench(tmp_path, "llama", dtype, size), tmp_path / "out"
    models = [{"model": f"{bench.base}+{bench.adapter(n)}", "parameters": {"weight": w}} for n, w in CLAIM.items()]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(bench.base), "models": models}
    # JSON is YAML.
    name = str(bench.dtype).split(".")[-1]
    (tmp_path / "recipe.yaml").write_text(json.dumps({**recipe, "dtype": name}))
    options = ("--lora-merge-cache", tmp_path / "cache", "--no-copy-tokenizer")
    call(PEERS / "mergekit/bin/mergekit-yaml", tmp_path / "recipe.yaml", out, *options)
    assert same(out, arithmetic(bench, tmp_path / "emulated"))
    answer = ask(bench, out, Claimed())
    assert (answer.verdict, answer.faults) == ("verified", ()), answer


@pytest.mark.parametrize(("family", "size"), [("llama", 1e-2), ("shards", 1e-3)])
def test_axolotl(tmp_path: Path, family: str, size: float) -> None:
    bench, out = Bench(tmp_path, family, "bf16", size), tmp_path / "out"
    call(PEERS / "axolotl/bin/python", "-c", AXOLOTL, bench.base, bench.adapter("pt"), out)
    assert same(out, one_by_one(bench, tmp_path / "emulated", {"pt": 1.0}))
    answer = ask(bench, out, Claimed({"pt": 1.0}))
    assert (answer.verdict, answer.faults) == ("verified", ()), answer
