"""Adapters: PEFT directories read into tuning vectors; every field known or refused."""

from crossmatch.adapter.adapter import WEIGHTS_FILE, Adapter
from crossmatch.adapter.config import CONFIG_FILE, AdapterConfig, pattern_key, read_config

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "Adapter", "AdapterConfig", "pattern_key", "read_config"]
