"""Where a rule is applied."""

from dataclasses import dataclass

from torch import Tensor

from crossmatch.errors import RuleError
from crossmatch.rules.calibration import Calibration

_MAKE = "`crossmatch calibrate` makes such a file (--calibration)"


@dataclass(frozen=True)
class Site:
    """The tensor that is merged, the adapters' names in the order of the deltas, and what a rule may need besides."""

    tensor: str
    names: tuple[str, ...]
    seed: int = 0
    calibration: Calibration | None = None

    def inputs(self, adapter: str, columns: int) -> Tensor:
        """X (N, columns) of an adapter. Raises RuleError if there is none, or it is of another width."""
        found = self._needed.inputs(adapter, self.tensor)
        return self._checked(found, adapter, "inputs", columns)

    def gradients(self, adapter: str, height: int) -> Tensor:
        """G (N, height) of an adapter. Raises RuleError if there is none, or it is of another width."""
        found = self._needed.gradients(adapter, self.tensor)
        return self._checked(found, adapter, "gradients", height)

    @property
    def _needed(self) -> Calibration:
        if self.calibration is None:
            raise RuleError(f"this rule needs calibration data for {self.tensor}, and none is given; {_MAKE}")
        return self.calibration

    def _checked(self, found: Tensor | None, adapter: str, kind: str, width: int) -> Tensor:
        where = f"{self._needed.path}: {kind} of {adapter} at {self.tensor}"
        if found is None:
            raise RuleError(f"{where} are missing; {_MAKE}")
        if found.shape[1] != width:
            raise RuleError(f"{where} are {found.shape[1]} wide, {width} expected; calibrate on this very base")
        return found
