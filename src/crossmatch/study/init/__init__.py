"""A first recipe, written from what lies in a directory: models, adapters, data, suites."""

from crossmatch.study.init.findings import Findings, Questions, find
from crossmatch.study.init.proposal import Proposal, init

__all__ = ["Findings", "Proposal", "Questions", "find", "init"]
