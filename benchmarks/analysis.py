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
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import merge

TORCH = merge.TORCH
merge.INSTALL["weightwatcher"] = [[TORCH], [TORCH, "weightwatcher==0.7.7", "safetensors"]]
# Qwen3-14B: hidden, inner, layers, rows of q, of k and v, tokens.
HIDDEN, INNER, LAYERS, QUERY, VALUE, TOKENS = 5120, 17408, 40, 5120, 1024, 151_936
# Four layers of a Llama of 0.1 B, for what compares whole decompositions.
SMALL: merge.Shape = (768, 2048, 4, 12, 12)
WATCH = """
import json, logging, sys, time, warnings
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
import torch, weightwatcher
from safetensors.torch import load_file
torch.set_num_threads(int(sys.argv[2]))
model = torch.nn.ModuleDict()
for name, weight in load_file(sys.argv[1]).items():
    if "_proj" in name:
        layer = model[name.replace(".", "_")] = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight.float()
watcher = weightwatcher.WeightWatcher(model=model)
started = (time.perf_counter(), time.process_time())
watcher.analyze()
print(json.dumps([time.perf_counter() - started[0], time.process_time() - started[1]]))
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
    from crossmatch.analysis.weights.delta_matrix import changes
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


Run = tuple[float, float, int]
"""Seconds, CPU seconds, and peak private bytes of a command."""


def measured(arguments: list[str], root: Path, rounds: int = 1) -> list[Run]:
    """Runs of a command. CPU seconds stay when others use the machine, seconds do not."""
    runs = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, _, private, _ = merge.measure(arguments, root / "log")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        runs.append((seconds, cpu, private))
    return runs


def row(name: str, runs: list[Run]) -> str:
    """A line of the table."""
    seconds, cpu = ([run[column] for run in runs] for column in (0, 1))
    return f"| {name} | {spread(seconds)} | {spread(cpu)} | {max(run[2] for run in runs) / 1e9:.2f} |"


def spread(values: list[float]) -> str:
    """Median, and from where to where."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def adapters(root: Path, rounds: int) -> Iterator[str]:
    """14 B: weights of the adapters alone, then with directions from the cache."""
    big_pair(root)
    yield f"| 14 B, 280 modules, two adapters of rank 16, n = {rounds} | seconds | CPU seconds | peak private, GB |"
    yield "|---|---|---|---|"
    few = command(root, "--no-alignment", "--json")
    yield row("size and overlap", measured(few, root, rounds))
    fill_cache(root)
    full = command(root, "--json")
    yield row("with alignment, cached", measured(full, root, rounds))


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
    yield "| 1.1 B, full fine-tune | seconds | CPU seconds | peak private, GB |"
    yield "|---|---|---|---|"
    start = [*merge.CROSSMATCH, "analyse", str(root / "base"), str(root / "tuned"), "--cache", str(root / "cache")]
    yield row("size alone", measured([*start, "--json", "--no-alignment"], root))
    for name in ("all, directions computed", "all, directions cached"):
        yield row(name, measured([*start, "--json"], root))


def spectra(root: Path, rounds: int, threads: int) -> Iterator[str]:
    """One checkpoint: leading directions by ours, every one by torch and by ours, weightwatcher's analysis."""
    merge.apart(merge.build, root, SMALL, merge.RANK)
    reason = merge.install("weightwatcher")
    ways = {
        "64 leading directions, residuals, bound (top_singular)": sketch,
        "all directions (top_singular)": whole,
        "all directions, torch.linalg.svd in float32": dense,
    }
    watcher = "weightwatcher 0.7.7, analyze(): all singular values and its fits"
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in [*ways, watcher]}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(merge.apart(timed, way, root, threads))
        if not reason:
            times[watcher].append(watch(root, threads))
    ours = statistics.median(cpu for _, cpu in times[next(iter(ways))])
    yield f"| 28 matrices of 768 and 2048, {threads} threads, n = {rounds} | seconds | CPU seconds | of the first |"
    yield "|---|---|---|---|"
    for name, runs in times.items():
        if not runs:
            yield f"| {name} | {reason} | | |"
            continue
        seconds, cpu = ([run[column] for run in runs] for column in (0, 1))
        yield f"| {name} | {spread(seconds)} | {spread(cpu)} | {statistics.median(cpu) / ours:.1f} |"


def timed(way: Callable[[Any], object], root: Path, threads: int) -> tuple[float, float]:
    """Seconds and CPU seconds for every matrix of the layers, read included."""
    import torch

    from crossmatch import Checkpoint

    torch.set_num_threads(threads)
    base, started = Checkpoint(root / "base"), (time.perf_counter(), time.process_time())
    for name in base.tensors:
        if "_proj" in name:
            way(base[name])
    return time.perf_counter() - started[0], time.process_time() - started[1]


def sketch(weight: Any) -> object:
    """The leading directions."""
    import torch

    from crossmatch.delta import top_singular

    return top_singular(weight, 64, generator=torch.Generator().manual_seed(0))


def whole(weight: Any) -> object:
    """Every direction, ours."""
    import torch

    from crossmatch.delta import top_singular

    return top_singular(weight, min(weight.shape), generator=torch.Generator().manual_seed(0))


def dense(weight: Any) -> object:
    """Every direction, torch's."""
    import torch

    return torch.linalg.svd(weight.float(), full_matrices=False)


def watch(root: Path, threads: int) -> tuple[float, float]:
    """Seconds and CPU seconds of weightwatcher's analysis, the model in memory before."""
    python, file = merge.PEERS / "weightwatcher/bin/python", root / "base/model.safetensors"
    command = [str(python), "-c", WATCH, str(file), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, cpu = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu


def main() -> None:
    """Print in Markdown."""
    parser = argparse.ArgumentParser(description="What analysing costs; the head of this file says how.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the comparison in process")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("adapters", "full", "spectra"))
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n", flush=True)
    parts = {
        "adapters": lambda r: adapters(r, options.rounds),
        "spectra": lambda r: spectra(r, options.rounds, options.threads),
    }
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
