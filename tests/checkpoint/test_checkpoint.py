"""Reading and writing checkpoints: headers to the byte, damage refused, output whole or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from crossmatch.checkpoint import (
    Checkpoint,
    atomic_directory,
    file_digest,
    input_embedding,
    layer_of,
    locate,
    module_type_of,
    output_embedding,
    read_header,
    text_facts,
    value_digest,
    write_tensors,
)
from crossmatch.errors import CheckpointError, InputError, OutputError
from helpers import make_llama


def test_reads_what_safetensors_wrote(models: Path) -> None:
    checkpoint = Checkpoint(models / "base")
    expected = load_file(models / "base" / "model.safetensors")
    assert set(checkpoint) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint[name], tensor)
        matrix = tensor.reshape(-1, tensor.shape[-1])
        assert torch.equal(checkpoint.rows(name, 0, 1), matrix[:1])
        pieces = [checkpoint.rows(name, a, b) for a, b in checkpoint.blocks(name, elements=500)]
        assert torch.equal(torch.cat(pieces), matrix)
        narrow = [checkpoint.rows(name, a, b, 16) for a, b in checkpoint.blocks(name, 16, elements=100)]
        assert torch.equal(torch.cat(narrow), tensor.reshape(-1, 16))
    assert checkpoint.parameters == sum(t.numel() for t in expected.values())
    assert checkpoint.nbytes == sum(t.numel() * t.element_size() for t in expected.values())
    assert not checkpoint.tied
    assert checkpoint.quantisation is None
    assert checkpoint.file_digests == {"model.safetensors": file_digest(models / "base" / "model.safetensors")}


def test_shards_and_ties(tmp_path: Path) -> None:
    make_llama(tmp_path / "sharded", shard="100KB")
    make_llama(tmp_path / "tied", tied=True)
    sharded, tied = Checkpoint(tmp_path / "sharded"), Checkpoint(tmp_path / "tied")
    assert len(sharded.layout.files) == 3
    assert sharded.layout.index is not None
    assert tied.tied
    assert "lm_head.weight" not in tied


def test_writes_the_expected_bytes(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    digest = write_tensors(file, {"a": torch.tensor([1.0, 2.0], dtype=torch.bfloat16), "b": torch.tensor(0.0)})
    header = (
        b'{"__metadata__":{"format":"pt"},'
        b'"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},'
        b'"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}'
    )
    header += b" " * (-len(header) % 8)
    assert file.read_bytes() == len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\x40" + b"\0" * 4
    assert digest == file_digest(file)
    loaded = load_file(file)
    assert loaded["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("keep", [0, 7, 40, 0.5, 0.999])
def test_truncated_files_are_refused(models: Path, tmp_path: Path, keep: float) -> None:
    whole = (models / "base" / "model.safetensors").read_bytes()
    file = tmp_path / "model.safetensors"
    file.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Checkpoint(tmp_path)


def raw_file(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": 1}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[8,4]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[99999999999999],"data_offsets":[0,399999999999996]}}',
        b'{"a":' + b"[" * 50_000 + b"}",
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(raw_file(header, b"\0" * 8))
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(file)


def entry(dtype: str = '"F32"', shape: str = "[2]", offsets: str = "[0,8]") -> bytes:
    return f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'.encode()


NINES = "9" * 4000
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nine million brackets": (b"[" * 9_000_000, "full of brackets"),
    "as many, within a tensor": (b'{"a":{"dtype":' + b"[" * 9_000_000, "full of brackets"),
    "closed ones": (b"[" * 4_500_000 + b"]" * 4_500_000, "full of brackets"),
    "brackets far apart": (b"[           " * 700_000, "recursion"),
    "braces far apart": (b'{"              ":' * 700_000, "recursion"),
    "UTF-16": (entry().decode().encode("utf-16"), "utf-8"),
    "half a pair": (b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "surrogates"),
    "negative offsets": (entry(offsets="[-8,0]"), "cannot lie in bytes -8 to 0"),
    "offsets backwards": (entry(offsets="[8,0]"), "cannot lie in bytes 8 to 0"),
    "offsets beyond the file": (entry(offsets="[8,16]"), "begins at byte"),
    "offsets beyond all files": (entry(offsets=f"[{2**63},{2**63 + 8}]"), "too large"),
    "three offsets": (entry(offsets="[0,4,8]"), "no dtype, shape and two data_offsets"),
    "a fraction of a byte": (entry(offsets="[0.5,8.5]"), "whole numbers"),
    "a shape in words": (entry(shape='["2"]'), "whole numbers"),
    "a true shape": (entry(shape="[2,true]"), "whole numbers"),
    "an infinite shape": (entry(shape="[1e999]"), "whole numbers"),
    "a negative shape": (entry(shape="[-1,-2]"), "cannot lie"),
    "a huge shape": (entry(shape=f"[{','.join([NINES] * 2000)}]"), "too large"),
    "a shape of many axes": (entry(shape=f"[2{',1' * 100}]"), "too large"),
    "an unknown dtype": (entry(dtype='"F6_E3M2"'), "dtype F6_E3M2, which is not judged"),
    "no dtype": (entry(dtype="[]"), "dtype \\[\\], which is not supported"),
    "not an object": (b'{"a":1}', "no dtype, shape and two data_offsets"),
    "escape codes": (entry(dtype='"\\u001b[31m\\n"'), r"dtype '\\x1b\[31m\\n', which"),
    "a long name": (entry().replace(b'"a"', b'"' + b"a" * 5_000_000 + b'"').replace(b"[0,8]", b"[0,4]"), "is called"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_headers_are_one_short_error_at_once(tmp_path: Path, kind: str) -> None:
    header, message = HOSTILE[kind]
    file = tmp_path / "model.safetensors"
    file.write_bytes(raw_file(header, b"\0" * 8))
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint(tmp_path)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 9])
def test_lengths_that_lie_are_refused(tmp_path: Path, length: int) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + b"{}      ")
    with pytest.raises(CheckpointError, match=f"16 bytes long and announces a header of {length};"):
        read_header(file)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_one_changed_header_byte_never_crashes(
    models: Path, tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    data = bytearray((models / "base" / "model.safetensors").read_bytes())
    data[position] = value
    file = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    file.write_bytes(data)
    try:
        infos = read_header(file)
    except CheckpointError:
        return
    assert sum(info.nbytes for info in infos.values()) <= len(data)


def test_what_a_directory_may_not_be(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="not a directory"):
        Checkpoint(models / "base" / "config.json")
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        Checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match="pickled weights.*convert them"):
        Checkpoint(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no loader would find"):
        Checkpoint(tmp_path)


def test_indexes_that_lie_are_refused(tmp_path: Path) -> None:
    make_llama(tmp_path / "m", shard="100KB")
    file = tmp_path / "m" / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    name, shard = next(iter(index["weight_map"].items()))
    for bad, message in ((f"../{shard}", "not a plain file name"), ("gone.safetensors", "export is incomplete")):
        file.write_text(json.dumps({"weight_map": {**index["weight_map"], name: bad}}))
        with pytest.raises(CheckpointError, match=message):
            Checkpoint(tmp_path / "m")
    other = next(s for s in index["weight_map"].values() if s != shard)
    file.write_text(json.dumps({"weight_map": {**index["weight_map"], name: other}}))
    with pytest.raises(CheckpointError, match="does not hold it"):
        Checkpoint(tmp_path / "m")
    file.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        Checkpoint(tmp_path / "m")


def test_hub_ids_are_tried_after_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no directory nobody-at-all/no-such-model@main here, and the hub"):
        locate("nobody-at-all/no-such-model@main")
    with pytest.raises(InputError, match="give a directory, or a hub id"):
        locate("a/b/c/d")
    assert locate(str(tmp_path)).hub_id is None


def test_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Boom(Exception):
        pass

    def fail() -> None:
        with atomic_directory(out) as partial:
            (partial / "x").write_text("half")
            raise Boom

    with pytest.raises(Boom):
        fail()
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(out) as partial:
        (partial / "x").write_text("whole")
    assert (out / "x").read_text() == "whole"
    with pytest.raises(OutputError, match="not empty"), atomic_directory(out):
        pass
    with pytest.raises(OutputError, match="no earlier output"), atomic_directory(out, overwrite=True):
        pass
    (out / "crossmatch.json").write_text("{}")
    with atomic_directory(out, overwrite=True) as partial:
        (partial / "y").write_text("new")
    assert [p.name for p in out.iterdir()] == ["y"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OutputError, match="is a file"), atomic_directory(out / "y"):
        pass


def test_names(models: Path, tmp_path: Path) -> None:
    assert layer_of("model.layers.12.mlp.up_proj.weight") == 12
    assert layer_of("model.norm.weight") is None
    llama = ("lm_head.weight", "model.layers.61.embed_tokens.weight", "model.embed_tokens.weight")
    assert (input_embedding(llama), output_embedding(llama)) == ("model.embed_tokens.weight", "lm_head.weight")
    neox = ("gpt_neox.embed_in.weight", "gpt_neox.layers.0.attention.dense.weight", "embed_out.weight")
    assert (input_embedding(neox), output_embedding(neox)) == (neox[0], neox[2])
    others = ("bert.encoder.layer.0.output.weight", "word_embeddings.bias")
    assert (input_embedding(others), output_embedding(others)) == (None, None)
    assert module_type_of("model.layers.12.mlp.up_proj.weight") == "up_proj"
    assert value_digest({"b": 1, "a": 2}) == value_digest({"a": 2, "b": 1})
    shutil.copy(models / "base" / "config.json", tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    facts = text_facts(tmp_path)
    assert facts.template is not None
    assert facts.tokenizer is None
    assert facts.eos_config is not None


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_directory(out) as partial:
        (partial / "x").write_text("first")
        with pytest.raises(OutputError, match="another process is writing"), atomic_directory(out):
            pass
        assert (partial / "x").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".out.crossmatch-partial"
    (left / "sub").mkdir(parents=True)
    (left / "half").write_text("x")
    with atomic_directory(tmp_path / "out") as partial:
        assert list(partial.iterdir()) == []
        (partial / "x").write_text("whole")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x"]


def test_links_may_not_lead_out(models: Path, tmp_path: Path) -> None:
    """A stranger's link would have a file of this machine read, or copied into an output; the hub's cache is links."""
    (tmp_path / "secret").write_text("{}")
    for name in ("config.json", "tokenizer.json", "anything"):
        out = shutil.copytree(models / "base", tmp_path / f"links-{name}")
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to(tmp_path / "secret")
        with pytest.raises(CheckpointError, match="leads out of its directory"):
            Checkpoint(out)
    cache = tmp_path / "models--org--name"
    snapshot = shutil.copytree(models / "base", cache / "snapshots" / "0123")
    (cache / "blobs").mkdir()
    for file in list(snapshot.iterdir()):
        file.rename(cache / "blobs" / file.name)
        file.symlink_to(f"../../blobs/{file.name}")
    assert Checkpoint(snapshot).tensors
    (tmp_path / "direct").symlink_to(snapshot)
    assert Checkpoint(tmp_path / "direct").tensors
    (snapshot / "more").symlink_to("../../../secret")
    with pytest.raises(CheckpointError, match="leads out of its directory"):
        Checkpoint(snapshot)


def test_numbers_and_names_that_no_model_has_are_refused(tmp_path: Path) -> None:
    """What other readers refuse must not mean something here; what is huge must not be worked on."""
    file = tmp_path / "x.safetensors"
    entry = '"dtype":"U8","shape":[8],"data_offsets":[0,8]'
    for header in (
        '{"a":{"dtype":"U8","shape":["8"],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"U8","shape":"8","data_offsets":[0,8]}}',
        '{"a":{"dtype":"U8","shape":[8.0],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"U8","shape":[8],"data_offsets":[false,8]}}',
        '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8,8]}}',
        '{"a":{"dtype":"U8","shape":[8' + ",1" * 40 + '],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"U8","shape":[0,' + ",".join(["9" * 4000] * 2000) + '],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":NaN}}',
        f'{{"__metadata__":[],"a":{{{entry}}}}}',
        f'{{"__metadata__":{{"format":1}},"a":{{{entry}}}}}',
        f'{{"":{{{entry}}}}}',
        f'{{"a\\u001b[2J":{{{entry}}}}}',
        f'{{"\\ud800":{{{entry}}}}}',
        f'{{"{"x" * 2000}":{{{entry}}}}}',
    ):
        file.write_bytes(raw_file(header.encode(), b"\0" * 8))
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            read_header(file)
    file.write_bytes(raw_file(f'{{"a":{{{entry}}}}}'.encode("utf-16"), b"\0" * 8))
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(file)
    file.write_bytes(raw_file(f'{{"a":{{{entry}}}}}'.encode(), b"\0" * 8))
    assert read_header(file)["a"].shape == (8,)
