"""Small real models and adapters, made with transformers and PEFT; no network, no GPU."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TQDM_DISABLE", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers import make_adapter, make_llama

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of read-only models: `base` (untied, bfloat16), two adapters on it, and a foreign one."""
    root = tmp_path_factory.mktemp("models")
    make_llama(root / "base")
    make_adapter(root / "base", root / "pt", seed=1)
    make_adapter(root / "base", root / "sft", seed=2)
    make_adapter(root / "base", root / "foreign", seed=3)
    return root


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread for each product: what is this small is slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
