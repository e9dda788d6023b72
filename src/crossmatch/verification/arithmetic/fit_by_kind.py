"""Programs for modules of a kind of which the file's own explains none."""

from typing import Any

from crossmatch.verification.arithmetic.fit import Fit, most_misses, programs_at
from crossmatch.verification.arithmetic.grammar import Program
from crossmatch.verification.arithmetic.sample import Sample
from crossmatch.verification.arithmetic.sample_rows import wrong_rows
from crossmatch.verification.subject import Subject
from crossmatch.verification.weights.scan import ModuleScan, Scan, check_whole

# Modules for which all programs are tried.
_FULL = 2


class Others:
    """Other programs than the file's for modules of a kind of which it explains none: stored otherwise, or with other
    deltas. All of the grammar is tried for the first few, and what was found there for the others. A module that lies
    among its like has no arithmetic of its own: another program would only be where something hides."""

    def __init__(self, subject: Subject, result: Scan) -> None:
        self.subject = subject
        self._explained = {self._kind(module) for module in result.modules if not module.outside}
        self._found: list[Program] = []
        self._tried = 0

    def _kind(self, module: ModuleScan) -> tuple[Any, ...]:
        dtypes = (side.tensors[module.name].dtype for side in (self.subject.base, self.subject.merged))
        parts = self.subject.parts(module.name).items()
        return (self.subject.kinds.of(module.name), *dtypes, *((i, type(part)) for i, part in parts))

    def explain(self, module: ModuleScan) -> ModuleScan | None:
        """The module's scan by a program that explains all of it; None if there is none."""
        subject = self.subject
        if not self._explained or self._kind(module) in self._explained:
            return None
        sample = Sample([wrong_rows(subject, module)])
        weights, doubts = tuple(subject.weights), tuple(subject.doubts)
        options = [Fit(program, weights, doubts) for program in self._found]
        self._tried += 1
        if self._tried <= _FULL:
            options += [o for o in programs_at(sample, weights, doubts) if o.weights == weights]
        for option in options:
            if option.program != module.program and sample.explained(option.program, weights, doubts):
                whole = check_whole(subject, module.name, option.program)
                if not whole.outside and whole.mismatches <= most_misses(module.mismatches):
                    if option.program not in self._found:
                        self._found.append(option.program)
                    return whole
        return None
