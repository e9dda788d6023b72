"""What honest quantisation leaves over, by type: the numbers behind `verification/allowance.py`.

    python benchmarks/quantised.py --ggml path/to/libggml-base.so [--kinds Q4_K,Q6_K]

Matrices of three kinds (normal; heavy-tailed, Student t of 5; rows and columns of uneven size) get the sum of two
rank-8 deltas at 0.3 and 0.7, are rounded to bfloat16 as a merge is, and quantised by llama.cpp's own encoder, with an
importance matrix where it takes one. Without --ggml the gguf library's encoders are used, for the types that it has.
"""

import argparse
import ctypes

import gguf
import numpy as np
import torch

from crossmatch.checkpoint import QuantisedTensor
from crossmatch.checkpoint.quantised.blocks import decode
from crossmatch.verification.quantised.allowance import ALLOWED
from crossmatch.verification.quantised.tensor_sums import TensorSums, add_block
from crossmatch.verification.weights.estimate import Strata, estimate

KINDS = ["Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K", "Q2_K"]
WEIGHTS = (0.3, 0.7)


def encoder(library: str | None):
    """Rows -> bytes: llama.cpp's, or the gguf library's."""
    if library is None:
        return lambda rows, kind, importance: gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])
    ggml = ctypes.CDLL(library)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *3 * [ctypes.c_int64],
        ctypes.c_void_p,
    ]

    def encode(rows: np.ndarray, kind: str, importance: np.ndarray | None) -> np.ndarray:
        block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        out = np.zeros((rows.shape[0], rows.shape[1] // block * nbytes), np.uint8)
        pointer = None if importance is None else importance.ctypes.data
        number = int(gguf.GGMLQuantizationType[kind])
        ggml.ggml_quantize_chunk(number, rows.ctypes.data, out.ctypes.data, 0, *rows.shape, pointer)
        return out

    return encode


def base(shape: str, size: int, seed: int) -> torch.Tensor:
    """A matrix on bfloat16's grid."""
    generator = torch.Generator().manual_seed(seed)
    w = 0.02 * torch.randn(size, 2 * size, generator=generator)
    if shape == "heavy":
        w /= torch.randn(size, 2 * size, 5, generator=generator).square().mean(-1).sqrt()
    if shape == "uneven":
        w *= torch.exp(0.5 * torch.randn(size, 1, generator=generator))
        w *= torch.exp(0.5 * torch.randn(1, 2 * size, generator=generator))
    return w.bfloat16()


def measure(kind: str, shape: str, relative: float, encode, importance: bool, seed: int, size: int = 512):
    """Recovered weights with errors, excess, gain, worst row, and the error that one element in a thousand exceeds."""
    w = base(shape, size, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    deltas = {}
    for i in range(2):
        d = torch.randn(size, 8, generator=generator) @ torch.randn(8, 2 * size, generator=generator)
        deltas[i] = d * (relative * w.float().norm() / d.norm())
    exact = w.float() + sum(c * d for c, d in zip(WEIGHTS, deltas.values(), strict=True))
    chi = np.random.default_rng(seed).standard_normal(2 * size).astype(np.float32) ** 2 + 0.01
    raw = encode(exact.bfloat16().float().numpy(), kind, chi if importance else None)
    values, steps = decode(raw, kind)
    sums = TensorSums(QuantisedTensor("w", tuple(w.shape), kind), (0, 1), Strata.empty(3))
    add_block(sums, w, values, steps, deltas, WEIGHTS)
    found = estimate([sums.strata], WEIGHTS)
    away = ((values - exact).abs() / steps.clamp_min(1e-30)).flatten()
    return found, sums, float(np.quantile(away.numpy(), 0.999))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ggml")
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    encode = encoder(arguments.ggml)
    print(
        "type     excess lowest-highest  gain-1 lowest-highest  worst row  1 in 1000  |error|/stderr, largest |error|"
    )
    for kind in arguments.kinds.split(","):
        excess, gain, row, away, sigmas, errors = [], [], [], [], [], []
        for shape in ("normal", "heavy", "uneven"):
            for importance in (False, True) if arguments.ggml and kind != "Q8_0" else (False,):
                for seed, relative in enumerate((1e-1, 3e-2, 1e-2)):
                    found, sums, far = measure(kind, shape, relative, encode, importance, seed)
                    excess.append(found.excess)
                    gain.append(sums.gain - 1)
                    row.append(sums.worst)
                    away.append(far)
                    off = [abs(a - b) for a, b in zip(found.weights, WEIGHTS, strict=True)]
                    sigmas += [o / e for o, e in zip(off, found.stderr, strict=True)]
                    errors += off if relative > 0.05 else []
        rms = float(np.sqrt(np.mean(np.square(sigmas))))
        print(
            f"{kind:8} {min(excess):.2f}-{max(excess):.2f}  {min(gain):+.4f} {max(gain):+.4f}  {max(row):.2f}  "
            f"{max(away):.2f}  rms {rms:.2f} {max(errors):.4f} allowed {ALLOWED[kind].low}-{ALLOWED[kind].high}",
            flush=True,
        )


if __name__ == "__main__":
    main()
