"""What merging and proving cost beside copying the files and beside PEFT: python benchmarks/core.py

Builds a Llama-shaped bfloat16 checkpoint and two rank-16 adapters in a temporary directory, runs every contender in a
process of its own (interpreter and imports included), three times each, and prints medians with ratios.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

LAYERS, HIDDEN, INNER, VOCABULARY = 16, 1024, 2816, 32_000
WEIGHTS = {"pt": 0.3, "sft": 0.7}
ROUNDS = 3

PEFT = """
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


def build(root: Path) -> None:
    """A checkpoint with random weights, and two adapters with deltas of 1% of it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        num_key_value_heads=16,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(root / "base")
    for seed, name in enumerate(WEIGHTS):
        torch.manual_seed(seed)
        tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
        for key, parameter in tuned.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=2e-5 * parameter.shape[0] ** 0.5)
        tuned.save_pretrained(root / name)
        model = tuned.unload()


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident GiB of a process that must end well."""
    started = time.monotonic()
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=silent)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.monotonic() - started, usage.ru_maxrss / 2**20


def wrong_share(root: Path, merged: Path) -> float:
    """Share of adapted elements that are not the correctly rounded sum."""
    import torch

    from crossmatch import Adapter, Checkpoint
    from crossmatch.delta import dense

    base, written = Checkpoint(root / "base"), Checkpoint(merged)
    adapters = {name: Adapter(root / name) for name in WEIGHTS}
    wrong = total = 0
    infinity = torch.tensor(float("inf"), dtype=torch.bfloat16)
    for name in adapters["pt"]:
        exact = base[name].double() + sum(w * dense(adapters[n][name]) for n, w in WEIGHTS.items())
        value = written[name]
        error = (value.double() - exact).abs()
        nearer = torch.zeros_like(error, dtype=torch.bool)
        for neighbour in (torch.nextafter(value, infinity), torch.nextafter(value, -infinity)):
            nearer |= (neighbour.double() - exact).abs() < error
        wrong, total = wrong + int(nearer.sum()), total + value.numel()
    return wrong / total


def main() -> None:
    """Build, measure, print a table in Markdown."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        # In a process of its own: children inherit the peak memory of a parent that grew.
        subprocess.run([sys.executable, __file__, scratch], check=True, stderr=subprocess.DEVNULL)
        ours, peft, plain = root / "ours", root / "peft", str(root / "base")
        claim = [x for n, w in WEIGHTS.items() for x in ("-a", f"{n}={root / n}", "-w", f"{n}={w}")]
        cli = [sys.executable, "-m", "crossmatch", "--quiet"]
        commands = {
            "cp -r": ["cp", "-r", plain, str(root / "copy")],
            "crossmatch merge (with its proof)": [
                *cli,
                "merge",
                str(root / "base"),
                *claim,
                "-o",
                str(ours),
                "--overwrite",
            ],
            "crossmatch verify": [*cli, "verify", str(ours), "--base", str(root / "base"), *claim],
            "PEFT cat + merge + save": [
                sys.executable,
                "-c",
                PEFT,
                *map(str, (root / "base", root / "pt", root / "sft", peft)),
            ],
        }
        results = {}
        for name, command in commands.items():
            runs = [measure(command) for _ in range(ROUNDS)]
            results[name] = (statistics.median(r[0] for r in runs), max(r[1] for r in runs))
        # Only now is anything heavy loaded here.
        from crossmatch import Checkpoint

        base = Checkpoint(root / "base")
        print(f"{base.parameters / 1e6:,.0f} M parameters, {base.nbytes / 1e9:.2f} GB in bfloat16, rank 16 x 2")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", end=", ")
        print(", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch", "transformers", "peft")))
        print("\n| | seconds | over `cp -r` | over PEFT | peak GiB |\n|---|---|---|---|---|")
        copy, other = results["cp -r"][0], results["PEFT cat + merge + save"][0]
        for name, (seconds, peak) in results.items():
            print(f"| {name} | {seconds:.1f} | {seconds / copy:.1f} | {seconds / other:.2f} | {peak:.2f} |")
        print(f"\nnot correctly rounded: crossmatch {wrong_share(root, ours):.1e}, PEFT {wrong_share(root, peft):.1e}")


if __name__ == "__main__":
    build(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
