"""Adapters: PEFT directories read into tuning vectors, and laid on their base; every field known or refused."""

from crossmatch.adapter.adapter import WEIGHTS_FILE, Adapter
from crossmatch.adapter.config import CONFIG_FILE, AdapterConfig, pattern_key, read_config
from crossmatch.adapter.embeddings import Tied
from crossmatch.adapter.fit import Fit, Fitted, fit

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Adapter",
    "AdapterConfig",
    "Fit",
    "Fitted",
    "Tied",
    "fit",
    "pattern_key",
    "read_config",
]
