"""A PEFT LoRA directory, read as a tuning vector."""

from pathlib import Path

from crossmatch.adapter.config import CONFIG_FILE, read_config
from crossmatch.adapter.on_disk import Recorded
from crossmatch.adapter.parts import collect_parts
from crossmatch.checkpoint import Checkpoint, TensorFiles
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

    def other_name(self, base: Checkpoint) -> str | None:
        """See `Recorded.other_name`."""
        known = (base.source.hub_id, base.config.get("_name_or_path"), str(base.path.resolve()))
        names = set().union(*(_names(str(one)) for one in known if one))
        if not self.config.base or names & _names(self.config.base):
            return None
        # The digest of a large base takes its time, and is asked for where there is something to compare.
        return None if self.trained_on and self.made_on(base.digest) else self.config.base


def _names(path: str) -> set[str]:
    """What a path or hub id calls a model: its last part without a revision, and the name in a hub's cache."""
    parts = Path(path.partition("@")[0]).parts
    cached = (part.rpartition("--")[2] for part in parts if part.startswith("models--"))
    return {name.lower() for name in (*parts[-1:], *cached)}
