"""The two training stages, PT and SFT, apart, from the same frozen base, on TRL's trainer."""

from crossmatch.data.training_sets import Dialogue, Document, Example, load_examples, parse_example
from crossmatch.training.settings import Stage, TrainSettings, read_settings
from crossmatch.training.train import StaleWorkError, train_stage

__all__ = [
    "Dialogue",
    "Document",
    "Example",
    "Stage",
    "StaleWorkError",
    "TrainSettings",
    "load_examples",
    "parse_example",
    "read_settings",
    "train_stage",
]
