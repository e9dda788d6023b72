"""Quantised exports for the tests: GGUF as llama.cpp's converter lays it out, FP8 and int8 as their tools do."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

Floats = NDArray[np.float32]


def write_gguf(model: Path, out: Path, kind: str, *, kinds: Mapping[str, str] | None = None, **options: Any) -> Path:
    """`model` as a GGUF file: matrices as `kind` (or as `kinds` says by GGUF name), vectors as F32.

    options: arch, permute, drop (GGUF names), extra (GGUF name -> array), split (number of files), metadata.
    """
    config = json.loads((model / "config.json").read_text())
    arch = options.get("arch", "llama")
    writer = gguf.GGUFWriter(out, arch, split_max_tensors=options.get("split", 0))
    for add, key in (
        (writer.add_block_count, "num_hidden_layers"),
        (writer.add_embedding_length, "hidden_size"),
        (writer.add_feed_forward_length, "intermediate_size"),
        (writer.add_head_count, "num_attention_heads"),
        (writer.add_head_count_kv, "num_key_value_heads"),
        (writer.add_layer_norm_rms_eps, "rms_norm_eps"),
        (writer.add_vocab_size, "vocab_size"),
    ):
        add(options.get("metadata", {}).get(key, config[key]))
    writer.add_token_list([f"token {i}" for i in range(config["vocab_size"])])
    names = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch], config["num_hidden_layers"]
    )
    arrays: dict[str, Floats] = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        array = tensor.float().numpy()
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if f".{part}." in name and options.get("permute", True):
                array = permute(array, config[heads])
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        arrays[stored] = array
    arrays |= options.get("extra", {})
    for name, array in arrays.items():
        if name not in options.get("drop", ()):
            which = (kinds or {}).get(name, kind if array.ndim > 1 else "F32")
            writer.add_tensor(name, encode(array, which), raw_dtype=gguf.GGMLQuantizationType[which])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def permute(weights: Floats, heads: int) -> Floats:
    """The order of rows that llama.cpp wants for rotary positions."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def encode(array: Floats, kind: str) -> NDArray[Any]:
    """Rows quantised by the gguf library, or by the plain encoders below for what it can only read."""
    own = {"Q4_K": q4_k, "Q6_K": q6_k}.get(kind)
    if own is None:
        return gguf.quants.quantize(np.ascontiguousarray(array), gguf.GGMLQuantizationType[kind])
    blocks = own(np.ascontiguousarray(array).reshape(-1, 256))
    return blocks.reshape(array.shape[0], -1)


def q4_k(blocks: Floats) -> NDArray[np.uint8]:
    """Q4_K by the format, scales from the extremes of each 32 without a search."""
    sub = blocks.reshape(-1, 8, 32)
    low = np.minimum(sub.min(-1), 0.0)
    scale, offset = (sub.max(-1) - low) / 15, -low
    d = (scale.max(-1, keepdims=True) / 63).astype(np.float16)
    dmin = (offset.max(-1, keepdims=True) / 63).astype(np.float16)
    wide, wide_min = d.astype(np.float32), dmin.astype(np.float32)
    sc = np.round(scale / np.where(wide > 0, wide, 1)).clip(0, 63).astype(np.uint8)
    mn = np.round(offset / np.where(wide_min > 0, wide_min, 1)).clip(0, 63).astype(np.uint8)
    step = (wide * sc)[..., None]
    q = np.round((sub + (wide_min * mn)[..., None]) / np.where(step > 0, step, 1)).clip(0, 15).astype(np.uint8)
    packed = np.concatenate(
        [
            (sc[:, :4] & 63) | ((sc[:, 4:] >> 4) << 6),
            (mn[:, :4] & 63) | ((mn[:, 4:] >> 4) << 6),
            (sc[:, 4:] & 15) | ((mn[:, 4:] & 15) << 4),
        ],
        axis=1,
    )
    pairs = q.reshape(-1, 4, 2, 32)
    quants = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), packed, quants], axis=1)


def q6_k(blocks: Floats) -> NDArray[np.uint8]:
    """Q6_K by the format, scales from the largest of each 16 without a search."""
    sub = blocks.reshape(-1, 16, 16)
    peak = np.take_along_axis(sub, np.abs(sub).argmax(-1)[..., None], -1)[..., 0]
    scale = peak / -32
    largest = np.take_along_axis(scale, np.abs(scale).argmax(-1)[:, None], -1)
    d = (largest / -128).astype(np.float16)
    wide = d.astype(np.float32)
    sc = np.round(scale / np.where(wide != 0, wide, 1)).clip(-128, 127).astype(np.int8)
    step = (wide * sc)[..., None]
    q = (np.round(sub / np.where(step != 0, step, 1)).clip(-32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = q & 15, q >> 4
    qh = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    ql = np.stack([low[:, :, 0] | (low[:, :, 2] << 4), low[:, :, 1] | (low[:, :, 3] << 4)], axis=2)
    return np.concatenate([ql.reshape(-1, 128), qh.reshape(-1, 64), sc.view(np.uint8), d.view(np.uint8)], axis=1)


def write_scaled(model: Path, out: Path, layout: str) -> Path:
    """`model` with the layers' matrices in 8 bits.

    layout: tensor, channel or block of float8_e4m3fn; plain: without scales; e5m2; int8: as bitsandbytes lays it out;
    group: int8 with a scale for 16 elements, as compressed-tensors does.
    """
    shutil.copytree(model, out)
    result: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        if "_proj" in name:
            result |= scaled(name, tensor.float(), layout)
        else:
            result[name] = tensor
    save_file(result, out / "model.safetensors", metadata={"format": "pt"})
    return out


def scaled(name: str, weight: torch.Tensor, layout: str) -> dict[str, torch.Tensor]:
    """One matrix and its scales."""
    stem = name.removesuffix("weight")
    dtype = {"int8": torch.int8, "group": torch.int8, "e5m2": torch.float8_e5m2}.get(layout, torch.float8_e4m3fn)
    limit = 127.0 if dtype == torch.int8 else torch.finfo(dtype).max
    rows, columns = weight.shape
    height, width = {"tensor": (rows, columns), "block": (128, 128), "group": (1, 16)}.get(layout, (1, columns))
    padded = torch.zeros(-(-rows // height) * height, -(-columns // width) * width)
    padded[:rows, :columns] = weight.abs()
    scale = padded.reshape(len(padded) // height, height, -1, width).amax((1, 3)) / limit
    if layout == "plain":
        scale = torch.ones(1, 1)
        height, width = rows, columns
    spread = scale.repeat_interleave(height, 0).repeat_interleave(width, 1)[:rows, :columns]
    ratio = weight / spread
    stored = ratio.round().to(dtype) if dtype == torch.int8 else ratio.clamp(-limit, limit).to(dtype)
    if layout == "int8":
        kind = torch.tensor(0, dtype=torch.uint8)
        return {name: stored, stem + "SCB": scale[:, 0].contiguous() * 127, stem + "weight_format": kind}
    if layout == "plain":
        return {name: stored}
    key = "weight_scale_inv" if layout == "block" else "weight_scale"
    return {name: stored, stem + key: scale.reshape(()) if layout == "tensor" else scale}
