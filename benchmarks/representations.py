"""How often the 95% intervals of the representation figures hold the truth, on made-up activations.

python benchmarks/representations.py                200 samples of every number of texts: about 8 minutes
python benchmarks/representations.py --count 40     fewer

Activations of 32 dimensions with a falling spectrum, eight positions a text that share half of their variance; the
fine-tune's shift is a third of their length, half of it linear in the activations, half noise of the texts, with a
constant. The truth is the figure of 4,000 texts. Light: normal; heavy: each text's activations times a lognormal
number.
"""

import argparse

import torch
from torch import Tensor

from crossmatch.analysis.representations.principal_angles import Subspaces
from crossmatch.analysis.representations.similarity import Cloud, CloudPair, Shift
from crossmatch.statistics.influence import Figure, resamples

WIDTH, POSITIONS, K, DRAWS, MANY = 32, 8, 4, 100, 4000
TEXTS = (16, 32, 64, 128)


def figures(texts: int, heavy: bool, seed: int, *, resampled: bool = True) -> dict[str, Figure]:
    """The figures of one sample."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    text = torch.arange(texts).repeat_interleave(POSITIONS)
    scale = torch.arange(1, WIDTH + 1).double() ** -0.5
    x = (normal(texts, WIDTH)[text] + normal(len(text), WIDTH)) * scale
    if heavy:
        x = x * normal(texts).exp()[text, None]
    fixed = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)).double()).Q
    shift = 0.25 * (x @ fixed + (normal(texts, WIDTH)[text] + normal(len(text), WIDTH)) * scale)
    shift = shift + 0.1 * torch.ones(WIDTH).double() * scale
    clouds = Cloud(x, text, texts), Cloud(x + shift, text, texts)
    pair, moved = CloudPair(*clouds), Shift(clouds[0], shift)
    debiased, plain = pair.cka()
    found = {
        "cka": debiased,
        "cka_plain": plain,
        "svcca": pair.svcca()[0],
        "size": moved.size(),
        "constant": moved.constant(),
        "effective_rank": moved.spectrum.effective_rank(),
        "participation": moved.spectrum.participation(),
    }
    draws = resamples(texts, DRAWS, 0) if resampled else resamples(texts, 2, 0)
    return found | {"cosine2": Subspaces(pair, moved, draws).turns((K,), 0, 0)[0].cosine2}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    print(f"| activations | texts | {' | '.join(figures(16, False, 0))} |")
    print("|---" * (2 + len(figures(16, False, 0))) + "|")
    for heavy in (False, True):
        truth = {name: one.value for name, one in figures(MANY, heavy, 10**6, resampled=False).items()}
        for texts in TEXTS:
            held = dict.fromkeys(truth, 0)
            for seed in range(count):
                for name, one in figures(texts, heavy, seed).items():
                    low, high = one.interval()
                    held[name] += low is not None and high is not None and low <= (truth[name] or 0) <= high
            cells = " | ".join(f"{times / count:.0%}" for times in held.values())
            print(f"| {'heavy' if heavy else 'light'} | {texts} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
