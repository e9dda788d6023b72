"""What analysing tuning vectors costs: adapters of a 14 B model, a full fine-tune of 1.1 B, and beside other ways.

python benchmarks/analysis.py            everything, in Markdown: about 25 minutes and 10 GB of disk where TMPDIR says
python benchmarks/analysis.py --quick    without the full fine-tune

Every run is a process of its own, interpreter and imports included. The base of 14 B is a sparse file: of every tensor
a few bytes are written, so that each is another; its directions are random ones put into the cache, as large as real
ones. weightwatcher lies in an environment of its own below benchmarks/.peers. It fits power laws to all singular values
of each matrix; what is compared is the time to get singular values of one checkpoint, its fits left out where it allows
that.
"""

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import merge

TORCH = merge.TORCH
merge.INSTALL["weightwatcher"] = [[TORCH], [TORCH, "weightwatcher==0.7.7", "transformers==5.16.1"]]
# Qwen3-14B: hidden, inner, layers, rows of q, of k and v, tokens.
HIDDEN, INNER, LAYERS, QUERY, VALUE, TOKENS = 5120, 17408, 40, 5120, 1024, 151_936
# A Llama of 0.1 B, for what compares whole decompositions.
SMALL: merge.Shape = (768, 2048, 12, 12, 12)
WATCH = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import logging; logging.disable(logging.CRITICAL)
import torch; torch.set_num_threads(2)
import weightwatcher as ww
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
started = time.perf_counter()
details = ww.WeightWatcher(model=model).analyze()
print(json.dumps({"seconds": time.perf_counter() - started, "matrices": len(details)}))
"""


def big_tensors() -> dict[str, tuple[int, int]]:
    """Name -> size of the 280 linear matrices of a 14 B model."""
    sizes = {"self_attn.q_proj": (QUERY, HIDDEN), "self_attn.o_proj": (HIDDEN, QUERY)}
    sizes |= {f"self_attn.{x}_proj": (VALUE, HIDDEN) for x in "kv"}
    sizes |= {"mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
    return {f"model.layers.{i}.{name}.weight": size for i in range(LAYERS) for name, size in sizes.items()}


def big_pair(root: Path) -> None:
    """A sparse base and two adapters of rank 16 on all its linear matrices."""
    linears = big_tensors()
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (TOKENS, HIDDEN), **linears}
    base = root / "base"
    base.mkdir()
    heads = {"num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": LAYERS}
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": TOKENS, **heads}
    (base / "config.json").write_text(json.dumps(config))
    sparse(base / "model.safetensors", sizes)
    for seed, name in enumerate(merge.WEIGHTS):
        (root / name).mkdir()
        targets = sorted({key.split(".")[-2] for key in linears})
        config = merge.LORA | {"r": merge.RANK, "lora_alpha": 2 * merge.RANK, "target_modules": targets}
        (root / name / "adapter_config.json").write_text(json.dumps(config))
        specs: dict[str, tuple[tuple[int, ...], float]] = {}
        for key, (rows, columns) in linears.items():
            stem = f"base_model.model.{key.removesuffix('.weight')}"
            specs[f"{stem}.lora_A.weight"] = ((merge.RANK, columns), 1 / math.sqrt(3 * columns))
            specs[f"{stem}.lora_B.weight"] = ((rows, merge.RANK), 1e-3)
        merge.write(root / name / "adapter_model.safetensors", specs, "bfloat16", seed + 1)


def sparse(file: Path, sizes: dict[str, tuple[int, ...]]) -> None:
    """A bfloat16 checkpoint of which only the header and eight bytes of each tensor lie on the disk."""
    header, end = {}, 0
    for name, size in sizes.items():
        start, end = end, end + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": (start, end)}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with file.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        stream.truncate(8 + len(encoded) + end)
        for number, fact in enumerate(header.values()):
            stream.seek(8 + len(encoded) + fact["data_offsets"][0])
            stream.write(number.to_bytes(8, "little"))


def fill_cache(root: Path) -> None:
    """Random directions for every matrix of the sparse base, under the names that the command will look for."""
    import torch

    from crossmatch import Adapter, Checkpoint
    from crossmatch.adapter import fit
    from crossmatch.analysis import Subspaces, Wanted
    from crossmatch.analysis.change import changes
    from crossmatch.delta import Singular

    base = Checkpoint(root / "base")
    placed = fit(base, {"pt": Adapter(root / "pt")})
    spaces = Subspaces(base, root / "cache")
    generator = torch.Generator().manual_seed(0)
    wanted = Wanted().directions(merge.RANK)
    made: dict[tuple[int, int], Singular] = {}
    for name in placed.vectors["pt"]:
        (change,) = changes(placed.vectors["pt"], name, base)
        height, width = change.place.shape
        if (height, width) not in made:
            u, v = (torch.linalg.qr(torch.randn(s, wanted, generator=generator)).Q for s in (height, width))
            s = 30 * torch.arange(1, wanted + 1).double() ** -0.4
            energy, zeros = 2 * float(s.square().sum()), torch.zeros(wanted).double()
            made[height, width] = Singular(u, s, v.T.contiguous(), zeros, energy, float(s[-1]))
        spaces.keep(change, wanted, made[height, width], most=True)


def command(root: Path, *options: str) -> list[str]:
    """The command on a pair of adapters."""
    vectors = [f"{name}={root / name}" for name in merge.WEIGHTS]
    return [*merge.CROSSMATCH, "analyse", str(root / "base"), *vectors, "--cache", str(root / "cache"), *options]


def row(name: str, runs: list[tuple[float, int, int, int]]) -> str:
    """A line of the table."""
    seconds = [run[0] for run in runs]
    memory = max(run[2] for run in runs) / 1e9
    spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
    return f"| {name} | {statistics.median(seconds):.1f} ({spread}, n = {len(runs)}) | {memory:.2f} |"


def adapters(root: Path, rounds: int) -> Iterator[str]:
    """14 B: weights of the adapters alone, then with directions from the cache."""
    big_pair(root)
    yield "| 14 B, 280 modules, two adapters of rank 16 | seconds | peak private, GB |"
    yield "|---|---|---|"
    few = command(root, "--no-alignment", "--json")
    yield row("size and overlap", [merge.measure(few, root / "log") for _ in range(rounds)])
    fill_cache(root)
    full = command(root, "--json")
    yield row("with alignment, cached", [merge.measure(full, root / "log") for _ in range(rounds)])


def tuned_pair(root: Path, shape: merge.Shape) -> None:
    """A checkpoint, and the same after a full fine-tune: every element moved a little."""
    sizes = merge.tensors(shape)
    merge.build(root, shape, merge.RANK)
    (root / "tuned").mkdir()
    shutil.copy(root / "base/config.json", root / "tuned")
    import torch

    from crossmatch import Checkpoint
    from crossmatch.checkpoint import write_tensors

    base, generator = Checkpoint(root / "base"), torch.Generator().manual_seed(9)
    moved = {}
    for name in sizes:
        weight = base[name].float()
        moved[name] = (weight + 2e-4 * torch.randn(weight.shape, generator=generator)).bfloat16()
    write_tensors(root / "tuned/model.safetensors", moved)


def full(root: Path) -> Iterator[str]:
    """1.1 B: the difference of two checkpoints, streamed, the base's directions computed and then from the cache."""
    merge.apart(tuned_pair, root, merge.TINY_LLAMA)
    yield "| 1.1 B, full fine-tune | seconds | peak private, GB |"
    yield "|---|---|---|"
    start = [*merge.CROSSMATCH, "analyse", str(root / "base"), str(root / "tuned"), "--cache", str(root / "cache")]
    yield row("size alone", [merge.measure([*start, "--json", "--no-alignment"], root / "log")])
    for name in ("all, directions computed", "all, directions cached"):
        yield row(name, [merge.measure([*start, "--json"], root / "log")])


def spectra(root: Path, rounds: int) -> Iterator[str]:
    """0.1 B, one checkpoint: leading directions by ours, every one by torch, and weightwatcher's analysis."""
    merge.apart(merge.build, root, SMALL, merge.RANK)
    reason = merge.install("weightwatcher")
    times: dict[str, list[float]] = {"ours": [], "dense": [], "weightwatcher": []}
    matrices = 0
    for _ in range(rounds):
        times["ours"].append(merge.apart(sketches, root))
        times["dense"].append(merge.apart(dense, root))
        if not reason:
            found = watch(root)
            times["weightwatcher"].append(found["seconds"])
            matrices = found["matrices"]
    ours, theirs = statistics.median(times["ours"]), statistics.median(times["dense"])
    yield "| 0.1 B, 84 matrices of layers, in process, read included | seconds | times ours |"
    yield "|---|---|---|"
    yield f"| 64 leading directions with error bounds (top_singular) | {ours:.1f} | 1 |"
    yield f"| all of them, torch.linalg.svd in float32 | {theirs:.1f} | {theirs / ours:.1f} |"
    if reason:
        yield f"| weightwatcher 0.7.7 | {reason} | |"
    else:
        theirs = statistics.median(times["weightwatcher"])
        yield f"| weightwatcher 0.7.7, analyze() of {matrices} matrices | {theirs:.1f} | {theirs / ours:.1f} |"


def sketches(root: Path) -> float:
    """Seconds for the leading directions of every matrix of the layers."""
    import torch

    from crossmatch import Checkpoint
    from crossmatch.delta import top_singular

    torch.set_num_threads(os.cpu_count() or 1)
    base, started = Checkpoint(root / "base"), time.perf_counter()
    for name in base.tensors:
        if "_proj" in name:
            top_singular(base[name], 64, generator=torch.Generator().manual_seed(0))
    return time.perf_counter() - started


def dense(root: Path) -> float:
    """Seconds for every direction."""
    import torch

    from crossmatch import Checkpoint

    torch.set_num_threads(os.cpu_count() or 1)
    base, started = Checkpoint(root / "base"), time.perf_counter()
    for name in base.tensors:
        if "_proj" in name:
            torch.linalg.svd(base[name].float(), full_matrices=False)
    return time.perf_counter() - started


def watch(root: Path) -> dict[str, Any]:
    """Seconds of weightwatcher, model loaded before."""
    python = merge.PEERS / "weightwatcher/bin/python"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [str(python), "-c", WATCH, str(root / "base")], check=True, capture_output=True, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print in Markdown."""
    parser = argparse.ArgumentParser(description="What analysing costs; the head of this file says how.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("adapters", "full", "spectra"))
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n", flush=True)
    parts = {"adapters": lambda r: adapters(r, options.rounds), "spectra": lambda r: spectra(r, options.rounds)}
    parts |= {} if options.quick else {"full": full}
    for name, part in parts.items():
        if options.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            for line in part(Path(scratch)):
                print(line, flush=True)
        print()


if __name__ == "__main__":
    sys.exit(main())
