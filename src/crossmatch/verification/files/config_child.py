"""A program of its own: what transformers makes of a config.json, all names and defaults resolved.

Started by `resolving` as a child process, so that a command which compares weights does not load transformers, and a
config that asks for too much memory harms nobody. Reads one request as JSON from standard input, answers in JSON. No
code of a checkpoint is run: `auto_map` is not followed, nothing is fetched.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from crossmatch.limits import confine, confine_further

# Bytes and seconds that resolving may take on top of the libraries themselves, and the longest answer for one config.
_MEMORY, _CPU, _LONGEST = 1 << 29, 8, 20_000_000


def main() -> None:
    """Answer one request: {"configs": [...]} -> [{"fields": ..., "unread": [...]} or {"error": ...}, ...]."""
    request = json.load(sys.stdin)
    confine(request["cpu"])
    # A config needs no torch, with which reading one takes four times as long: transformers then loads its models, too.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from transformers import AutoConfig, PreTrainedConfig

    confine_further(_CPU + len(request["configs"]), _MEMORY)
    json.dump([_resolved(config, AutoConfig, PreTrainedConfig) for config in request["configs"]], sys.stdout)


def _resolved(config: dict[str, Any], auto: Any, kind: Any) -> dict[str, Any]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            # Remote code is refused by name; without auto_map, a class of the library is taken if there is one.
            plain = {key: value for key, value in config.items() if key != "auto_map"}
            (Path(folder) / "config.json").write_text(json.dumps(plain), encoding="utf-8")
            found = auto.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        text = json.dumps(found.to_dict(), default=str)
        if len(text) > _LONGEST:
            return {"error": f"resolved, it is larger than {_LONGEST} bytes"}
        return {"fields": json.loads(text), "unread": sorted(_unread(found, kind, ""))}
    except Exception as error:  # whatever a config can make the library raise
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300], "known": _known(config)}


def _known(config: dict[str, Any]) -> bool:
    """Whether the library has a class for this type of model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return isinstance(config.get("model_type"), str) and config["model_type"] in CONFIG_MAPPING


def _unread(config: Any, kind: Any, prefix: str) -> list[str]:
    """Fields that the class does not declare: it keeps them, and nothing of the library need read them."""
    declared = {field.name for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else None
    result = []
    for name, value in vars(config).items():
        if isinstance(value, kind):
            result += _unread(value, kind, f"{prefix}{name}.")
        elif declared is not None and name not in declared and not name.startswith("_") and name != "model_type":
            result.append(prefix + name)
    return result


if __name__ == "__main__":
    main()
