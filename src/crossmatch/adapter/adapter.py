"""A PEFT LoRA directory, read as a tuning vector."""

from pathlib import Path

from crossmatch.adapter.config import CONFIG_FILE, read_config
from crossmatch.adapter.on_disk import Recorded
from crossmatch.adapter.parts import collect_parts
from crossmatch.checkpoint import TensorFiles
from crossmatch.errors import AdapterError

WEIGHTS_FILE = "adapter_model.safetensors"


class Adapter(Recorded):
    """A LoRA adapter: tensor name -> delta, read from its file when asked for.

    The scaling is alpha/r, or alpha/sqrt(r) for rsLoRA, with rank_pattern and alpha_pattern. Names are those of the
    model that was trained; `fit` finds the base checkpoint's. Accepts a path or a hub id. Every tensor of the file is
    used exactly once. Raises AdapterError for what is not understood.
    """

    def __init__(self, source: str | Path) -> None:
        super().__init__(source)
        self.config = read_config(self.path)
        file = self.path / WEIGHTS_FILE
        if not file.exists():
            pickled = self.path / "adapter_model.bin"
            hint = (
                f"only {pickled.name}, a pickle that can run code; load it with PEFT and save_pretrained it again"
                if pickled.exists()
                else f"no {WEIGHTS_FILE}"
            )
            raise AdapterError(f"{self.path} holds {hint}")
        self.paths = (self.path / CONFIG_FILE, file)
        self.files = TensorFiles([file])
        try:
            self.parts = collect_parts(self.files, self.config)
        except AdapterError as error:
            raise AdapterError(f"{file}: {error}", fault=error.fault) from error
