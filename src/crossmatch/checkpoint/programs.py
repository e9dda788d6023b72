"""What decides the bytes of a file that we write, for the statement beside it."""

import platform
from importlib.metadata import version

import torch

from crossmatch.results.merging import MadeWithJson


def versions() -> MadeWithJson:
    """The programs that decide the bytes."""
    return {
        "crossmatch": version("crossmatch"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
