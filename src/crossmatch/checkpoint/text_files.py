"""What a directory says about text: tokenizer, chat template and end of sequence, read from its small files."""

from dataclasses import dataclass
from pathlib import Path

from crossmatch.checkpoint.digest import bytes_digest, file_digest, files_digest
from crossmatch.checkpoint.layout import read_json
from crossmatch.checkpoint.untrusted import read_text
from crossmatch.results.merging import TextFactsJson

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tiktoken.model",
    "chat_template.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class TextFacts:
    """Digests of tokenizer and template, and the end-of-sequence ids where they are declared.

    tokenizer: blake3 of tokenizer.json (or None); template: blake3 of the chat template's text (or None);
    eos_config, eos_generation: ids in config.json and generation_config.json (None: not declared).
    """

    tokenizer: str | None
    template: str | None
    eos_config: tuple[int, ...] | None
    eos_generation: tuple[int, ...] | None

    def to_dict(self) -> TextFactsJson:
        """As plain JSON."""
        return {
            "tokenizer": self.tokenizer,
            "template": self.template,
            "eos_config": None if self.eos_config is None else list(self.eos_config),
            "eos_generation": None if self.eos_generation is None else list(self.eos_generation),
        }


def text_facts(directory: Path) -> TextFacts:
    """Read the facts of a checkpoint's or an adapter's directory."""
    tokenizer = directory / "tokenizer.json"
    template = chat_template(directory)
    return TextFacts(
        tokenizer=file_digest(tokenizer) if tokenizer.exists() else None,
        template=bytes_digest(template.encode()) if template is not None else None,
        eos_config=_eos(directory / "config.json"),
        eos_generation=_eos(directory / "generation_config.json"),
    )


def side_digest(directory: Path) -> str:
    """One digest of the small files that decide how a model reads and ends text: config, tokenizer, template."""
    names = (*TOKENIZER_FILES, "config.json", "generation_config.json")
    return files_digest({name: file_digest(directory / name) for name in names if (directory / name).is_file()})


def chat_template(directory: Path) -> str | None:
    """The chat template's text: chat_template.jinja, else the field of tokenizer_config.json, else None."""
    file = directory / "chat_template.jinja"
    if file.exists():
        return read_text(file)
    config = directory / "tokenizer_config.json"
    value = read_json(config).get("chat_template") if config.exists() else None
    return value if isinstance(value, str) else None


def _eos(file: Path) -> tuple[int, ...] | None:
    value = read_json(file).get("eos_token_id") if file.exists() else None
    if isinstance(value, int):
        return (value,)
    return tuple(value) if isinstance(value, list) and all(isinstance(v, int) for v in value) else None
