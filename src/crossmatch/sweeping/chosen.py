"""A point of a finished sweep as a merge that can be written: what it was measured from is what it is made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossmatch.adapter import Recorded, open_vector
from crossmatch.checkpoint import Checkpoint, file_digest, read_json
from crossmatch.errors import CheckpointError, InputError
from crossmatch.results.merging import ChosenBySweepJson, RecordedJson
from crossmatch.rules import Calibration, Recipe, Weight, parse_weight
from crossmatch.sweeping.outputs import RESULT

# What is called so is the repaired merge, which has no number.
REPAIR: Literal["repair"] = "repair"


@dataclass(frozen=True)
class Chosen:
    """What `merge` needs. template: under which the point was asked; recorded: what its manifest says of the sweep."""

    base: Checkpoint
    parts: Mapping[str, tuple[Recorded, Weight]]
    recipe: Recipe
    dtype: str | None
    template: str
    recorded: RecordedJson


def chosen_point(directory: Path, point: str | None = None) -> Chosen:
    """The recommended point of a sweep's directory, or the one of a number, or its repaired merge (`repair`).

    Raises InputError for a directory without a result, a number that no point has, a point without an adapter, and
    where base, adapters or calibration are not what the sweep measured.
    """
    file = directory / RESULT
    if not file.is_file():
        raise InputError(f"{directory} holds no finished sweep ({RESULT}); run crossmatch sweep, or resume it")
    try:
        facts = read_json(file)
        study, recommended = facts["study"], facts["recommendation"]["number"]
        known = {str(one["number"]): one for one in facts["points"]}
        repaired = facts.get("repair", {}).get("repaired")
        digests: Mapping[str, Any] = study["digests"]
    except (CheckpointError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no result of crossmatch sweep ({error})") from error
    wanted = str(recommended) if point is None else point
    if wanted == REPAIR and repaired is None:
        raise InputError(f"--point repair: {directory} holds no repair; run crossmatch sweep with --repair")
    if wanted != REPAIR and wanted not in known:
        raise InputError(f"--point {wanted}: there are points 1 to {len(known)}, and repair; points.csv lists them")
    chosen = repaired if wanted == REPAIR else known[wanted]
    if not chosen["weights"]:
        raise InputError(f"point {wanted} is the base as it is; there is nothing to merge")
    base = Checkpoint(study["base"])
    adapters = {name: open_vector(study["adapters"][name]) for name in chosen["weights"]}
    calibration = Calibration(study["calibration"]) if chosen["rule"] != "linear" and study["calibration"] else None
    _unchanged("the base", study["base"], base.digest, digests["base"])
    for name, adapter in adapters.items():
        _unchanged(f"adapter {name}", study["adapters"][name], adapter.digest, digests["adapters"][name])
    if calibration is not None:
        _unchanged("the calibration", study["calibration"], calibration.digest, digests["calibration"])
    parts: dict[str, tuple[Recorded, Weight]] = {
        name: (adapters[name], parse_weight(weight)) for name, weight in chosen["weights"].items()
    }
    of: ChosenBySweepJson = {
        "name": facts["name"],
        "digest": facts["digest"],
        "file": file_digest(file),
        "point": REPAIR if wanted == REPAIR else int(wanted),
        "recommended": wanted == str(recommended),
        "template": chosen["template"],
    }
    recipe = Recipe(chosen["rule"], chosen["parameters"], calibration=calibration)
    return Chosen(base, parts, recipe, study["dtype"], chosen["template"], {"sweep": of})


def _unchanged(what: str, where: str, now: str, then: str) -> None:
    if now != then:
        raise InputError(
            f"{what} at {where} is not what the sweep measured (digest {now[:16]}…, not {then[:16]}…); sweep again"
        )
