"""What merging two adapters into a 1.1 B checkpoint, and judging it, costs beside copying it and beside other tools.

python benchmarks/merge.py             every contender, three rounds, a table in Markdown
python benchmarks/merge.py --quick     one round, without the tools that need an environment of their own
python benchmarks/merge.py --scaling   our merge alone, over sizes and ranks; draws docs/merge-scaling.svg

Every contender runs in a process of its own, interpreter and imports included, with its inputs in the page cache, its
output removed, and nothing left to write back. The scratch directory lies where TMPDIR says: on a disk, with room for
12 GB (--scaling: 32 GB). Other tools are installed once, each into a virtual environment below benchmarks/.peers.

peak RSS: of the process or of one it waited for, with the pages of mapped files, which the kernel drops when it must.
peak private: RssAnon (heap, and pages of private mappings once written to) of the process and its children together,
read every 50 ms: a shorter peak can be missed. written: bytes that the kernel counts as made dirty by the process.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS = REPOSITORY / "benchmarks/.peers"
CONSTRAINTS = REPOSITORY / "constraints.txt"
TORCH = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
# What pip is given, step by step. torch goes first and is named again: nothing may bring in another build of it.
INSTALL = {
    "mergekit": [[TORCH], [TORCH, "mergekit==0.1.5", f"--constraint={CONSTRAINTS}"]],
    # It declares what training on CUDA needs; these, at the versions it pins, are what its merge imports.
    "axolotl": [
        [TORCH],
        [TORCH, "peft==0.20.0", "transformers==5.16.1", "accelerate==1.13.0", "huggingface_hub==1.17.0"],
        ["click", "colorama", "numpy", "pydantic==2.12.5", "PyYAML==6.0.3", "requests"],
        ["--no-deps", "axolotl==0.19.0"],
    ],
}
RUN_PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, pt, sft, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, pt, adapter_name="pt")
model.load_adapter(sft, adapter_name="sft")
model.add_weighted_adapter(["pt", "sft"], [0.3, 0.7], "both", combination_type="cat")
model.set_adapter("both")
model.merge_and_unload().save_pretrained(out)
"""
RUN_AXOLOTL = "import sys; from axolotl.cli.utils import lora_merge as m; m.merge_lora_sharded_efficient(*sys.argv[1:])"
CROSSMATCH = [sys.executable, "-m", "crossmatch", "--quiet"]
WEIGHTS = {"pt": 0.3, "sft": 0.7}
RANK, ROUNDS, SAMPLE, BLOCK = 16, 3, 20, 2**24
VOCABULARY, STD, SCALE = 32_000, 0.02, 2
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16"}
LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "lora_dropout": 0.0, "inference_mode": True}
COPY, START, MERGE = "cp -r", "python -c 'import torch'", "crossmatch merge, with its proof"
PEFT, MERGEKIT = "PEFT cat + merge + save", "mergekit 0.1.5, task_arithmetic"

# Hidden and inner size, layers, heads, heads of keys and values.
Shape = tuple[int, int, int, int, int]
TINY_LLAMA: Shape = (2048, 5632, 22, 32, 4)
# With the ranks that --scaling takes. The rest: about 0.1, 0.3, 3 (OpenLLaMA) and 7 (Llama) B parameters.
SCALING: dict[Shape, tuple[int, ...]] = {
    (768, 2048, 12, 12, 12): (RANK,),
    (1024, 2816, 18, 16, 16): (RANK,),
    TINY_LLAMA: (8, RANK, 64, 128),
    (3200, 8640, 26, 32, 32): (RANK,),
    (4096, 11008, 32, 32, 32): (RANK,),
}


@dataclass
class Contender:
    """A command that writes ROOT/out; the weighted sum that it claims to write; what was measured, or why not.

    A run is: seconds, then peak RSS, peak private and written in bytes.
    """

    name: str
    command: list[str]
    claim: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    runs: list[tuple[float, int, int, int]] = field(default_factory=list)
    wrong: float | None = None

    @property
    def seconds(self) -> float:
        return statistics.median(run[0] for run in self.runs)

    def megabytes(self, column: int) -> float:
        return max(run[column] for run in self.runs) / 1e6


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """The call's result, made in a process of its own: children inherit the peak memory of a parent that grew."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> size of every tensor of a Llama."""
    hidden, inner, layers, heads, kv_heads = shape
    kv = hidden // heads * kv_heads
    layer: dict[str, tuple[int, ...]] = {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
    layer |= {f"self_attn.{x}_proj": (rows, hidden) for x, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden))}
    layer |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    ends = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (VOCABULARY, hidden))
    inside = {f"model.layers.{i}.{name}.weight": size for i in range(layers) for name, size in layer.items()}
    return {**ends, **inside, "model.norm.weight": (hidden,)}


def parameters(shape: Shape) -> int:
    """Number of elements."""
    return sum(math.prod(size) for size in tensors(shape).values())


def build(root: Path, shape: Shape, rank: int) -> None:
    """A checkpoint in one file, unless it is there, and adapters on its linear layers with deltas of 1% of its norm."""
    sizes, base = tensors(shape), root / "base"
    if not base.exists():
        base.mkdir()
        keys = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads vocab_size"
        config = LLAMA | dict(zip(keys.split(), (*shape, VOCABULARY), strict=True))
        (base / "config.json").write_text(json.dumps(config))
        specs = {name: (size, STD if len(size) > 1 else 0.0) for name, size in sizes.items()}
        write(base / "model.safetensors", specs, "bfloat16", 0)
    linears = {name.removesuffix(".weight"): size for name, size in sizes.items() if "_proj" in name}
    targets = sorted({name.rsplit(".", 1)[1] for name in linears})
    config = LORA | {"r": rank, "lora_alpha": SCALE * rank, "target_modules": targets}
    for seed, adapter in enumerate(WEIGHTS):
        (root / adapter).mkdir(exist_ok=True)
        (root / adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
        specs = {}
        for name, (rows, columns) in linears.items():
            # |B A| = sqrt(rank rows columns) std(A) std(B) in the mean.
            std = 1 / math.sqrt(3 * columns)
            specs[f"base_model.model.{name}.lora_A.weight"] = ((rank, columns), std)
            specs[f"base_model.model.{name}.lora_B.weight"] = ((rows, rank), 0.01 * STD / SCALE / math.sqrt(rank) / std)
        write(root / adapter / "adapter_model.safetensors", specs, "float32", seed + 1)


def write(file: Path, specs: dict[str, tuple[tuple[int, ...], float]], dtype: str, seed: int) -> None:
    """A safetensors file of normal tensors, by name -> (size, std); ones for std 0.

    Once a tensor a block is drawn, and repeated where the tensor is longer: memory stays small, 7 B take no minutes.
    """
    import torch

    torch.manual_seed(seed)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    kind, end = getattr(torch, dtype), 0
    for name, (size, _) in specs.items():
        start, end = end, end + math.prod(size) * kind.itemsize
        code = {"bfloat16": "BF16", "float32": "F32"}[dtype]
        header[name] = {"dtype": code, "shape": size, "data_offsets": (start, end)}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with file.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for size, std in specs.values():
            left = math.prod(size)
            block = torch.empty(min(left, BLOCK), dtype=kind).normal_(0, std) if std else torch.ones(left, dtype=kind)
            for start in range(0, left, BLOCK):
                stream.write(block[: left - start].view(torch.uint8).numpy().data)


def wrong_share(root: Path, claim: dict[str, float]) -> float:
    """Share of elements that are not the correctly rounded float64 sum, in a sample of the adapted matrices.

    Read with safetensors and summed here, so that no contender is its own judge.
    """
    import torch
    from safetensors import safe_open

    def opened(directory: Path) -> Callable[[str], Any]:
        files = [safe_open(file, "pt") for file in sorted(directory.glob("*.safetensors"))]
        holders = {key: file for file in files for key in file.keys()}  # noqa: SIM118 -- it is no mapping
        return lambda key: holders[key].get_tensor(key)

    base, written, adapters = opened(root / "base"), opened(root / "out"), {n: opened(root / n) for n in claim}
    names = sorted(name for name in tensors(TINY_LLAMA) if "_proj" in name)
    infinity = torch.tensor(float("inf"), dtype=torch.bfloat16)
    wrong = total = 0
    for name in random.Random(0).sample(names, SAMPLE):
        exact, stem = base(name).double(), f"base_model.model.{name.removesuffix('.weight')}"
        for adapter, weight in claim.items():
            a, b = (adapters[adapter](f"{stem}.lora_{x}.weight").double() for x in "AB")
            exact += b * (SCALE * weight) @ a
        value = written(name)
        error = (value.double() - exact).abs()
        nearer = torch.zeros_like(error, dtype=torch.bool)
        for neighbour in (torch.nextafter(value, infinity), torch.nextafter(value, -infinity)):
            nearer |= (neighbour.double() - exact).abs() < error
        wrong, total = wrong + int(nearer.sum()), total + value.numel()
    return wrong / total


def install(peer: str) -> str:
    """Install another tool into its own environment, unless that is done; in one line why it cannot be, or nothing."""
    home, marker = PEERS / peer, PEERS / peer / ".installed"
    if marker.exists() and marker.read_text() == repr(INSTALL[peer]):
        return ""
    print(f"installing {peer}", file=sys.stderr)
    pip = [str(home / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
    for command in [[sys.executable, "-m", "venv", "--clear", str(home)], *([*pip, *step] for step in INSTALL[peer])]:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return f"does not install: {last_line(done.stderr)}"
    marker.write_text(repr(INSTALL[peer]))
    return ""


def last_line(text: str) -> str:
    """The last line with a letter in it: rich draws boxes around messages."""
    return next((line.strip(" │") for line in reversed(text.splitlines()) if any(map(str.isalpha, line))), "no message")


def private(pid: int) -> int:
    """Anonymous resident bytes of a process and its children, now; 0 for what has ended."""
    total = 0
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        total += sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(private(int(child)) for child in children.read_text().split())
    return total


def measure(command: list[str], log: Path) -> tuple[float, int, int, int]:
    """One run of a contender. Raises RuntimeError with its last line if it fails."""
    silent = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    logged = (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    ended, peak = threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, private(pid))

    watcher = threading.Thread(target=watch)
    started = time.monotonic()
    # Offline: nothing is looked up while the clock runs.
    pid = os.posix_spawnp(command[0], command, {**os.environ, "HF_HUB_OFFLINE": "1"}, file_actions=[silent, logged])
    watcher.start()
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    ended.set()
    watcher.join()
    if status != 0:
        raise RuntimeError(f"exit {os.waitstatus_to_exitcode(status)}, {last_line(log.read_text(errors='replace'))}")
    return seconds, usage.ru_maxrss * 1024, peak, usage.ru_oublock * 512


def compete(contenders: list[Contender], root: Path, rounds: int, judged: bool = True) -> None:
    """Measure in turn, round by round: a slow minute of the machine then meets more than one contender."""
    buffer = bytearray(BLOCK)
    for turn in range(rounds):
        for contender in (c for c in contenders if not c.reason):
            for file in (file for name in ("base", "merged", *WEIGHTS) for file in (root / name).glob("*")):
                with file.open("rb", buffering=0) as stream:
                    while stream.readinto(buffer):
                        pass
            os.sync()
            try:
                contender.runs.append(measure(contender.command, root / "log"))
                print(f"{turn + 1}/{rounds} {contender.name}: {contender.runs[-1][0]:.1f} s", file=sys.stderr)
                if judged and contender.claim and turn == rounds - 1:
                    contender.wrong = apart(wrong_share, root, contender.claim)
            except RuntimeError as error:
                contender.reason = f"does not run: {error}"
            for name in ("out", "cache"):
                shutil.rmtree(root / name, ignore_errors=True)


def given(root: Path, claim: dict[str, float]) -> list[str]:
    """Adapters and weights, as our commands take them."""
    return [x for n, w in claim.items() for x in ("-a", f"{n}={root / n}", "-w", f"{n}={w}")]


def ours(root: Path, name: str, claim: dict[str, float], *flags: str) -> Contender:
    """The merge under test."""
    command = [*CROSSMATCH, "merge", str(root / "base"), *given(root, claim), *flags]
    return Contender(name, [*command, "-o", str(root / "out")], claim)


def all_contenders(root: Path, quick: bool) -> list[Contender]:
    """Copying, starting, merging, judging a merge that lies in ROOT/merged; mergekit merges each adapter by itself
    first, into a cache that starts empty."""
    base, out, merged = (str(root / name) for name in ("base", "out", "merged"))
    paths = [str(root / name) for name in WEIGHTS]
    found = [
        Contender(COPY, ["cp", "-r", base, out]),
        Contender(START, [sys.executable, "-c", "import torch"]),
        ours(root, MERGE, WEIGHTS),
        ours(root, "crossmatch merge --no-verify", WEIGHTS, "--no-verify"),
        ours(root, "crossmatch merge, with its proof, one adapter", {"pt": 1.0}),
        Contender("crossmatch verify", [*CROSSMATCH, "verify", merged, "--base", base, *given(root, WEIGHTS)]),
        Contender(PEFT, [sys.executable, "-c", RUN_PEFT, base, *paths, out], WEIGHTS),
    ]
    if quick:
        return found
    models = [{"model": f"{base}+{root / n}", "parameters": {"weight": w}} for n, w in WEIGHTS.items()]
    recipe = {"merge_method": "task_arithmetic", "base_model": base, "models": models, "dtype": "bfloat16"}
    # JSON is YAML.
    (root / "recipe.yaml").write_text(json.dumps(recipe))
    kit = [str(PEERS / "mergekit/bin/mergekit-yaml"), str(root / "recipe.yaml"), out]
    axolotl = [str(PEERS / "axolotl/bin/python"), "-c", RUN_AXOLOTL, base, paths[0], out]
    return [
        *found,
        Contender(MERGEKIT, [*kit, "--lora-merge-cache", str(root / "cache")], WEIGHTS, install("mergekit")),
        Contender("axolotl 0.19.0, shard by shard (here one), one adapter", axolotl, {"pt": 1.0}, install("axolotl")),
    ]


def table(contenders: list[Contender]) -> Iterator[str]:
    """The comparison, line by line."""
    known = {contender.name: contender for contender in contenders if not contender.reason}
    if not {COPY, START} <= set(known):
        raise SystemExit("no comparison: " + "; ".join(c.reason for c in contenders[:2]))
    copy, start = known[COPY].seconds, known[START].seconds
    heads = "seconds, over `cp -r`, (seconds - start-up) over `cp -r`, over PEFT, over mergekit, peak RSS MB"
    yield f"| | {' | '.join(heads.split(', '))} | peak private MB | written MB | not correctly rounded |"
    yield "|---" * 10 + "|"
    for c in contenders:
        cells = [c.reason.replace("|", "/"), *[""] * 8]
        if not c.reason:
            cells = [f"{c.seconds:.1f}", f"{c.seconds / copy:.1f}"]
            cells.append(f"{(c.seconds - start) / copy:.1f}" if c.claim else "")
            cells += [f"{c.seconds / known[x].seconds:.2f}" if c.claim and x in known else "" for x in (PEFT, MERGEKIT)]
            cells += [f"{c.megabytes(column):,.0f}" for column in (1, 2, 3)]
            cells.append("" if c.wrong is None else f"{c.wrong:.1e}" if c.wrong else "0")
        yield f"| {c.name} | {' | '.join(cells)} |"


def scale(root: Path) -> Iterator[str]:
    """Our merge and cp -r over sizes and ranks, line by line; then the plot."""
    rows: list[dict[str, Any]] = []
    yield "| parameters | rank | rounds | seconds | `cp -r` | ratio | private MB |"
    yield "|---" * 7 + "|"
    for shape, ranks in SCALING.items():
        billions = parameters(shape) / 1e9
        # Base and output in 16 bits, adapters, and a margin.
        if shutil.disk_usage(root).free < 4.4e9 * billions + 3e9:
            yield f"| {billions:.2f} B | skipped: the disk has no room |" + " |" * 5
            continue
        for rank in ranks:
            apart(build, root, shape, rank)
            # Once where the page cache cannot hold everything: there the disk decides, and minutes add up.
            rounds = ROUNDS if billions < 2 else 1
            copy, merge = pair = [c for c in all_contenders(root, quick=True) if c.name in (COPY, MERGE)]
            compete(pair, root, rounds, judged=False)
            if copy.reason or merge.reason:
                raise SystemExit(copy.reason or merge.reason)
            where = {"size": billions, "rank": rank}
            rows += [{"what": c.name, **where, "seconds": c.seconds, "private MB": c.megabytes(2)} for c in pair]
            ratio, memory = merge.seconds / copy.seconds, merge.megabytes(2)
            cells = f"{merge.seconds:.1f} | {copy.seconds:.1f} | {ratio:.1f} | {memory:,.0f}"
            yield f"| {billions:.2f} B | {rank} | {rounds} | {cells} |"
        shutil.rmtree(root / "base")
    draw(rows, REPOSITORY / "docs/merge-scaling.svg")


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Seconds and private memory against size and rank."""
    import altair as alt

    panels: list[Any] = []
    sizes = [row for row in rows if row["rank"] == RANK]
    ranks = [row for row in rows if row["size"] == parameters(TINY_LLAMA) / 1e9]
    colour = alt.Color("what:N", title=None, scale=alt.Scale(range=["#d55e00", "#0072b2"]))
    for y in ("seconds", "private MB"):
        for x, title, part in (("size", "billion parameters (rank 16)", sizes), ("rank", "rank (1.1 billion)", ranks)):
            line = alt.Chart(alt.Data(values=part), width=260, height=150).mark_line(point=True)
            panels.append(line.encode(x=alt.X(f"{x}:Q", title=title), y=f"{y}:Q", color=colour))
    alt.concat(*panels, columns=2).configure(background="white").configure_legend(orient="top").save(file)


def main() -> None:
    """Build, measure, print in Markdown."""
    parser = argparse.ArgumentParser(description="What a merge costs; the head of this file says how it is measured.")
    parser.add_argument("--quick", action="store_true", help="one round, no other tools' environments")
    parser.add_argument("--scaling", action="store_true", help="our merge alone, over sizes and ranks")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch", "transformers", "peft"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if options.scaling:
            for line in scale(root):
                print(line, flush=True)
            return
        contenders = all_contenders(root, options.quick)
        apart(build, root, TINY_LLAMA, RANK)
        merge = [*CROSSMATCH, "merge", str(root / "base"), *given(root, WEIGHTS), "-o", str(root / "merged")]
        subprocess.run(merge, check=True, stdout=subprocess.DEVNULL)
        compete(contenders, root, 1 if options.quick else ROUNDS)
        total = parameters(TINY_LLAMA)
        print(f"{total / 1e6:,.0f} M parameters, {total * 2e-9:.2f} GB in one file, two adapters of rank {RANK}\n")
        print("\n".join(table(contenders)))


if __name__ == "__main__":
    main()
