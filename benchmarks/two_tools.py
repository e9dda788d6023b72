"""What PEFT writes where one merge is not like the other: is it verified, and are its weights found?

python benchmarks/two_tools.py                     both tables, 100 files each
python benchmarks/two_tools.py --count 40 --seed 7

First, two merges one after the other by PEFT itself: the base is loaded in one dtype, an adapter merged and saved;
that is loaded in another dtype, the second adapter merged, and the file cast to a third. Base, both merges, file,
adapters and `autocast_adapter_dtype` are drawn; `verify` judges the file from the first base.

Then, merges whose weights were multiplied into factors of 16 bits before these were multiplied (`cat`, on A, on B or as
roots on both; torch's own operations, `tests/honest_programs.py`), at weights of 1 to 6 digits that nobody claims:
`identify` has to find them. Wrong: another verdict than `identified`, or a weight off by over five standard errors.
"""

import argparse
import itertools
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from crossmatch import identify, verify
from honest_models import make
from honest_programs import BF16, F16, F32, HonestProgram

DTYPES = {"float32": F32, "bfloat16": BF16, "float16": F16}


def bench(root: Path) -> None:
    """A base of three layers and two adapters, each in every dtype."""
    shape: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}
    config = LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=3, **shape)
    for name, dtype in DTYPES.items():
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(dtype).save_pretrained(root / f"base-{name}")
        for seed, adapter in enumerate(("pt", "sft"), 1):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_pretrained(root / "base-float32", dtype=F32)
            wanted = LoraConfig(r=8 // seed, lora_alpha=16 // seed, target_modules="all-linear", task_type="CAUSAL_LM")
            tuned = get_peft_model(model, wanted)
            for key, parameter in tuned.named_parameters():
                if "lora_B" in key:
                    parameter.data.normal_(0, 0.01)
                if parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)
            tuned.save_pretrained(root / f"{adapter}-{name}")


def two_merges(root: Path, rng: random.Random, count: int) -> None:
    """The first table."""
    every = list(itertools.product(DTYPES, DTYPES, DTYPES, DTYPES, DTYPES, (True, False)))
    wrong: list[str] = []
    for base, first, second, stored, kept, autocast in rng.sample(every, count):
        place = root / f"base-{base}"
        for name, dtype in (("pt", first), ("sft", second)):
            model = AutoModelForCausalLM.from_pretrained(place, dtype=DTYPES[dtype])
            tuned = PeftModel.from_pretrained(model, root / f"{name}-{kept}", autocast_adapter_dtype=autocast)
            model, place = tuned.merge_and_unload(), root / "step"
            model.save_pretrained(place)
        model.to(DTYPES[stored]).save_pretrained(root / "out")
        adapters = {name: root / f"{name}-{kept}" for name in ("pt", "sft")}
        verdict = verify(root / "out", root / f"base-{base}", adapter=adapters, weight={"pt": 1.0, "sft": 1.0})
        if not verdict.verified:
            told = f"base {base}, merged in {first}, then in {second}, stored in {stored}, adapters in {kept}"
            wrong.append(f"{told}{'' if autocast else ', not autocast'}: {verdict.verdict} {list(verdict.faults)}")
    print(f"two merges by PEFT: {len(wrong)} of {count} not verified", *wrong, sep="\n  ", flush=True)


def rounded_factors(rng: random.Random, count: int) -> None:
    """The second table."""
    wrong: list[str] = []
    for number in range(count):
        half = rng.choice((BF16, F16))
        place = rng.choice(("a", "a", "b", "roots"))
        program = HonestProgram(base=half, stored=half, factors=half, delta=half, place=place, order="cat")
        digits = rng.choice((1, 2, 3, 6))
        weights = [round(rng.uniform(0.1, 1.2), digits) for _ in range(2)]
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            size = rng.choice((0.003, 0.01, 0.05, 0.1))
            made = replace(make(random.Random(f"factors {number}"), root, program, count=2, size=size), weights=weights)
            (root / "merged").mkdir()
            (root / "merged/config.json").write_text((root / "base/config.json").read_text())
            tensors = {name: tensor.contiguous() for name, tensor in made.whole(weights).items()}
            save_file(tensors, root / "merged/model.safetensors", {"format": "pt"})
            found = identify(root / "merged", root / "base", {f"a{i}": root / f"a{i}" for i in range(2)})
        known = [found.weights[f"a{i}"] for i in range(2)]
        off = [abs((w.recovered or 0.0) - weight) / (w.stderr or 1.0) for w, weight in zip(known, weights, strict=True)]
        if found.verdict != "identified" or max(off) > 5:
            told = ", ".join(f"{w.recovered:.6f} ± {w.stderr:.1g}" for w in known if w.recovered is not None)
            wrong.append(f"{program}, {weights}: {found.verdict}, {told}")
    print(f"weights on factors of 16 bits: {len(wrong)} of {count} wrong", *wrong, sep="\n  ")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="files of each table")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        bench(Path(folder))
        two_merges(Path(folder), random.Random(asked.seed), asked.count)
    rounded_factors(random.Random(asked.seed), asked.count)


if __name__ == "__main__":
    main()
