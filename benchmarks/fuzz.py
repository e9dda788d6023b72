"""Coverage-guided fuzzing of what reads files of strangers: `python benchmarks/fuzz.py header --seconds 120`.

Needs atheris (pip install atheris), which no test needs. Targets: header (a whole file), entries (its JSON, with the
right length before it), index, adapter, manifest, pattern. An input is a finding if it raises anything but a
CrossmatchError, or takes more than five seconds; libFuzzer then stops and writes it to the working directory. `all`
runs the targets one after the other, each in a process of its own.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["crossmatch"]):
    from crossmatch.adapter import read_config
    from crossmatch.adapter.patterns import ends_in, matches
    from crossmatch.checkpoint import INDEX, MANIFEST, Checkpoint, find_weights, layer_of, read_header, write_tensors
    from crossmatch.errors import CrossmatchError
    from crossmatch.verification import claim_from_manifest

import torch

TARGETS = ("header", "entries", "index", "adapter", "manifest", "pattern")
NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.11.mlp.experts.3.down_proj", "lm_head", "a", "")
SEEDS: dict[str, list[bytes]] = {
    "index": [b'{"metadata":{},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}'],
    "adapter": [
        b'{"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q_proj"],"rank_pattern":{"q_proj":4}}',
        b'{"peft_type":"LORA","r":8,"lora_alpha":1.5,"target_modules":".*q_proj","alpha_pattern":{"a.*b":4},'
        b'"layers_to_transform":[0,1],"layers_pattern":"layers","modules_to_save":["lm_head"],"bias":"none",'
        b'"trainable_token_indices":{"embed_tokens":[1,2]},"target_parameters":["experts.down_proj"]}',
    ],
    "manifest": [
        b'{"_type":"x","predicate":{"base":{"path":"../base","hub_id":null,"revision":null,"digest":"0"},"adapters":'
        b'{"pt":{"weight":0.3,"path":"../pt","hub_id":null,"digest":"0"}},"rule":"linear","parameters":{},"seed":0,'
        b'"tied":"refuse","route":"once","calibration":null}}'
    ],
    "pattern": [
        rb"((a+)+b|[^c-e\d]{2,4}?)*$",
        rb"^(?!.*visual).*\.layers\.(\d+)\.(?:q|k)_proj(?<=j)\b",
        rb".*?(?=x|y)(?<!z)\W\S",
    ],
}
WORDS = (
    *('"dtype"', '"shape"', '"data_offsets"', '"__metadata__"', '"BF16"', '"F32"', '"I8"', '"weight_map"'),
    *("NaN", "Infinity", "-1", "1e999", "null", "true", "[[[[", '{"a":', "../", ".safetensors", "hub_id", "digest"),
    *("LORA", "lora_alpha", "rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters"),
    *("trainable_token_indices", "(?:", "(?=", "{2}"),
)


def targets(home: Path) -> dict[str, Callable[[bytes], object]]:
    """One function of bytes per target; what they need lies in `home`."""
    header, index, adapter, merged = (home / name for name in ("x.safetensors", "index", "adapter", "merged"))
    for directory in (index, adapter, merged, home / "base"):
        directory.mkdir()
    for name in ("model-1.safetensors", "model-2.safetensors"):
        write_tensors(index / name, {"a" if "1" in name else "b": torch.zeros(2)})
    for directory in (merged, home / "base"):
        write_tensors(directory / "model.safetensors", {"a": torch.zeros(2)})
    checkpoint = Checkpoint(merged)

    def of_header(data: bytes) -> None:
        header.write_bytes(data)
        infos = read_header(header)
        assert 8 + sum(info.nbytes for info in infos.values()) <= len(data)
        for name in infos:
            layer_of(name)

    def of_entries(data: bytes) -> None:
        of_header(len(data).to_bytes(8, "little") + data + bytes(26))

    def of_index(data: bytes) -> None:
        (index / INDEX).write_bytes(data)
        assert all(file.parent == index for file in find_weights(index).files)
        Checkpoint(index)

    def of_adapter(data: bytes) -> None:
        (adapter / "adapter_config.json").write_bytes(data)
        config = read_config(adapter)
        for name in NAMES:
            config.targeted(name)
            assert config.rank(name) > 0
            config.scaling(name)
            config.tokens_of(name)

    def of_manifest(data: bytes) -> None:
        (merged / MANIFEST).write_bytes(data)
        checkpoint.__dict__.pop("manifest", None)
        claim_from_manifest(checkpoint, home / "base", {})

    def of_pattern(data: bytes) -> None:
        pattern = data.decode(errors="replace")
        for name in NAMES:
            matches(pattern, name)
            ends_in(pattern, name)

    return {
        "header": of_header,
        "entries": of_entries,
        "index": of_index,
        "adapter": of_adapter,
        "manifest": of_manifest,
        "pattern": of_pattern,
    }


def seed(name: str, corpus: Path, home: Path) -> None:
    """Valid inputs to begin from."""
    if name == "header":
        write_tensors(home / "seed.safetensors", {"a": torch.zeros(2, 3), "b": torch.zeros(1, dtype=torch.bfloat16)})
        data = [(home / "seed.safetensors").read_bytes()]
    elif name == "entries":
        whole = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
        data = [json.dumps({"a": whole, "b": {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]}}).encode()]
    else:
        data = SEEDS[name]
    for number, one in enumerate(data):
        (corpus / str(number)).write_bytes(one)


def fuzz(name: str, seconds: int) -> None:
    """Run one target; does not return."""
    home = Path(tempfile.mkdtemp(prefix="crossmatch-fuzz-"))
    corpus, words = home / "corpus", home / "words"
    corpus.mkdir()
    function = targets(home)[name]
    seed(name, corpus, home)
    words.write_text("".join(f"{json.dumps(json.dumps(w)[1:-1])}\n" for w in WORDS))

    def one(data: bytes) -> None:
        # No hub is asked while fuzzing: an id in a manifest ends here.
        if name == "manifest" and b"hub_id" in data and b"/" in data.partition(b"hub_id")[2][:40]:
            return
        with contextlib.suppress(CrossmatchError):
            function(data)

    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=5", "-rss_limit_mb=4096", f"-dict={words}"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=int, default=60)
    chosen = parser.parse_args()
    if chosen.target == "all":
        for target in TARGETS:
            print(f"== {target}", flush=True)
            subprocess.run([sys.executable, __file__, target, "--seconds", str(chosen.seconds)], check=True)
    else:
        fuzz(chosen.target, chosen.seconds)
