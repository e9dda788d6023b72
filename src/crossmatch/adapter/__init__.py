"""Adapters: PEFT directories and stored vectors, read and laid on their base; every field known or refused."""

from crossmatch.adapter.adapter import WEIGHTS_FILE, Adapter
from crossmatch.adapter.config import CONFIG_FILE, AdapterConfig, pattern_key, read_config
from crossmatch.adapter.embeddings import Tied
from crossmatch.adapter.fit import Fit, Fitted, fit
from crossmatch.adapter.on_disk import Recorded, notes_on_bases
from crossmatch.adapter.stored_vector import (
    LARGEST,
    VECTOR,
    VECTOR_FILE,
    StoredDense,
    StoredVector,
    is_vector,
    open_vector,
)
from crossmatch.adapter.tensor_names import stored_turned
from crossmatch.adapter.wholeness import Lack, Wholeness, check_whole, examine

__all__ = [
    "CONFIG_FILE",
    "LARGEST",
    "VECTOR",
    "VECTOR_FILE",
    "WEIGHTS_FILE",
    "Adapter",
    "AdapterConfig",
    "Fit",
    "Fitted",
    "Lack",
    "Recorded",
    "StoredDense",
    "StoredVector",
    "Tied",
    "Wholeness",
    "check_whole",
    "examine",
    "fit",
    "is_vector",
    "notes_on_bases",
    "open_vector",
    "pattern_key",
    "read_config",
    "stored_turned",
]
