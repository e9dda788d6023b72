"""Scores as lm-evaluation-harness gives them for a model that is written by formula: what scores.json holds.

pip install lm-eval==0.4.13 transformers
PYTHONPATH=tests python -m harness.scores     # writes scores.json
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, processors
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SCORES = Path(__file__).with_name("scores.json")
WINDOW = 256
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("e", "r"), ("o", "n"), ("Ġa", "n")]
_LINES = "{question}\n{options}\nAnswer:"
# suite -> (form, our prompt, the harness's prompt, what stands before an option)
FORMS = {
    "texts": ("texts", "Question: {question}\nAnswer:", "Question: {{question}}\nAnswer:", " "),
    "letters": ("letters", _LINES, "{{question}}\n{{lines}}\nAnswer:", " "),
    # White space at the prompt's end moves before the option.
    "spaced": ("texts", "Question: {question}\nAnswer: ", "Question: {{question}}\nAnswer: ", ""),
    "lines": ("letters", _LINES + "\n", "{{question}}\n{{lines}}\nAnswer:\n", ""),
    # What stands before the option is no part of its length.
    "marked": ("texts", "{question}", "{{question}}", "\nThe long and winding answer to this question is: "),
}
_STEMS = ("Which organ makes insulin", "What lowers blood pressure", "哪个器官产生胰岛素", "Which vessel is the widest")
_ENDS = (("the pancreas", "liver", "a", "one of the kidneys"), ("rest", "an inhibitor of the enzyme", "salt and water"))
ITEMS = [
    {
        "id": str(i),
        "question": f"{_STEMS[i % 4]}, case {i * i}?",
        "options": [f"{text}{' ' * (i % 2)}{i + place}" for place, text in enumerate(_ENDS[i // 4 % 2])],
        "answer": i % 3,
    }
    for i in range(12)
]
DOCUMENTS = [
    " ".join(f"The {n}th patient had an attack in the {n * n % 17}th hour." for n in range(20)),
    "".join(f"第{n}个病人在第{n * n % 17}小时发作。" for n in range(18)),
    "x" * (2 * WINDOW),
]


def write_model(out: Path, *, adds_bos: bool = False) -> Path:
    """A Llama of two layers whose weights follow from integers alone, and its byte-level tokenizer, saved at `out`.

    adds_bos: whether the tokenizer puts `<s>` before every text, as those of Llama 3, Gemma and Mistral do.
    """
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
        values = torch.from_numpy(_noise(parameter.numel(), number)).view(parameter.shape)
        parameter.data = 1 + values / 4 if "norm" in name else values
    model.save_pretrained(out)
    words = ["<s>", "</s>", *sorted(ByteLevel.alphabet()), *(a + b for a, b in MERGES)]
    tokenizer = Tokenizer(BPE({word: i for i, word in enumerate(words)}, MERGES))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(out)
    return out


def _noise(count: int, number: int) -> Any:
    """Numbers from -0.5 to 0.5 in float32, exact on any machine: a hash of their places."""
    mixed = (np.arange(count, dtype=np.uint64) + np.uint64(1_000_003 * (number + 1))) * np.uint64(2_654_435_761)
    for factor in (0x45D9F3B, 0x119DE1F3):
        mixed &= np.uint64(0xFFFFFFFF)
        mixed = (mixed ^ (mixed >> np.uint64(16))) * np.uint64(factor)
    return ((mixed & np.uint64(0xFFFFFF)).astype(np.float32) / np.float32(1 << 24)) - np.float32(0.5)


def harness_scores(adds_bos: bool = False) -> dict[str, Any]:
    """Log-likelihoods, acc and acc_norm of every form, and the log-likelihoods of the documents.

    Of a tokenizer that adds BOS, the harness puts two before a document and scores the second; here it is told to add
    none there (`add_bos_token`), which leaves the one that it takes as prefix.
    """
    from lm_eval import evaluator
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    with tempfile.TemporaryDirectory() as root:
        path = str(write_model(Path(root) / "model", adds_bos=adds_bos))
        model = HFLM(path, device="cpu", dtype="float32", batch_size=1)
        file = Path(root) / "items.json"
        rows = [
            {**i, "lines": "\n".join(f"{a}. {t}" for a, t in zip("ABCD", i["options"], strict=False))} for i in ITEMS
        ]
        file.write_text(json.dumps(rows), encoding="utf-8")
        suites = {}
        for name, (form, _, prompt, delimiter) in FORMS.items():
            choices = "options" if form == "texts" else "{{['A', 'B', 'C', 'D'][:options|length]}}"
            task = ConfigurableTask(
                config={
                    "task": name,
                    "dataset_path": "json",
                    "dataset_kwargs": {"data_files": {"test": str(file)}},
                    "test_split": "test",
                    "output_type": "multiple_choice",
                    "doc_to_text": prompt,
                    "doc_to_choice": choices,
                    "doc_to_target": "answer",
                    "target_delimiter": delimiter,
                    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
                }
            )
            found = evaluator.evaluate(lm=model, task_dict={name: task}, bootstrap_iters=0, log_samples=True)
            samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
            suites[name] = {
                "loglikelihoods": [[round(ll, 7) for ll, _ in s["filtered_resps"]] for s in samples],
                "acc": [s["acc"] for s in samples],
                "acc_norm": [s["acc_norm"] for s in samples],
                "means": [found["results"][name][f"{metric},none"] for metric in ("acc", "acc_norm")],
            }
        if adds_bos:
            model.add_bos_token = False
        asked = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(DOCUMENTS)]
        return {"suites": suites, "documents": model.loglikelihood_rolling(asked)}


if __name__ == "__main__":
    import lm_eval
    import transformers

    birth = {"made_by": "tests/harness/scores.py", "lm_eval": lm_eval.__version__}
    birth |= {"torch": torch.__version__, "transformers": transformers.__version__}
    SCORES.write_text(
        json.dumps({**birth, **harness_scores(), "adds_bos": harness_scores(True)}, indent=1) + "\n", encoding="utf-8"
    )
    print(SCORES)
