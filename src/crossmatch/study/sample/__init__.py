"""The bundled sample: a real model and real medical text, both out of installed packages, and arithmetic."""

from crossmatch.study.sample.arithmetic import ArithmeticSize
from crossmatch.study.sample.data import DATA_VERSION, SampleSize, write_data
from crossmatch.study.sample.model import model_file, write_base
from crossmatch.study.sample.ontology import ontology_file, read_ontology

__all__ = [
    "DATA_VERSION",
    "ArithmeticSize",
    "SampleSize",
    "model_file",
    "ontology_file",
    "read_ontology",
    "write_base",
    "write_data",
]
