"""Prompts and continuations as lm-evaluation-harness makes them: what tests/harness/prompts.json holds.

pip install lm-eval==0.4.13
PYTHONPATH=tests python -m harness.build     # writes prompts.json
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from harness.records import RECORDS, Rows

PROMPTS = Path(__file__).with_name("prompts.json")
SHOTS = 3
TASKS = {
    "medqa": "medqa/medqa.yaml",
    "medmcqa": "medmcqa/medmcqa.yaml",
    "pubmedqa": "pubmedqa/pubmedqa.yaml",
    "mmlu-medical": "mmlu/default/mmlu_{}.yaml",
    "cmmlu-medical": "cmmlu/cmmlu_{}.yaml",
}


def harness_prompts() -> dict[str, Any]:
    """For every recipe its requests, in order: zero-shot, with solved examples where the task has its own, and in chat."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for recipe, configs in RECORDS.items():
            found[recipe] = {"plain": [], "fewshot": [], "chat": []}
            for config, splits in configs.items():
                task = _task(TASKS[recipe].format(config), splits, Path(root) / recipe / config)
                for doc in task.eval_docs:
                    found[recipe]["plain"].append(_plain(task, doc, 0))
                    if "dev" in splits:
                        found[recipe]["fewshot"].append(_plain(task, doc, SHOTS))
                    found[recipe]["chat"].append(_chat(task, doc, SHOTS if "dev" in splits else 0))
    return found


def _task(file: str, splits: dict[str, Rows], root: Path) -> Any:
    """A task of the harness on records of ours instead of those of the hub."""
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    root.mkdir(parents=True)
    files = {}
    for split, rows in splits.items():
        files[split] = str(root / f"{split}.json")
        kept = [_as_bigbio(row) if "pubmedqa" in file else row for row in rows]
        Path(files[split]).write_text(json.dumps(kept), encoding="utf-8")
    # The tasks name splits that they do not need here.
    files = {split: files.get(split, next(iter(files.values()))) for split in ("train", "validation", "test", "dev")}
    changed = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    return ConfigurableTask(config={**load_yaml(Path(lm_eval.tasks.__file__).parent / file), **changed})


def _as_bigbio(row: dict[str, Any]) -> dict[str, Any]:
    """The layout of bigbio/pubmed_qa, which the task reads, of a row of qiaojin/PubMedQA, which the recipe reads."""
    contexts = row["context"]["contexts"]
    return {"QUESTION": row["question"], "CONTEXTS": contexts, "final_decision": row["final_decision"]}


def _plain(task: Any, doc: Any, shots: int) -> dict[str, Any]:
    prompt = task.fewshot_context(doc, shots)
    requests = task.construct_requests(doc, prompt)
    assert {r.arguments[0] for r in requests} == {prompt}
    return {"prompt": prompt, "continuations": [r.arguments[1] for r in requests], "target": _target(task, doc)}


def _chat(task: Any, doc: Any, shots: int) -> dict[str, Any]:
    def keep(messages: Any, add_generation_prompt: bool) -> str:
        assert add_generation_prompt
        return json.dumps(messages)

    arguments = {"apply_chat_template": True, "fewshot_as_multiturn": True, "chat_template": keep}
    prompt = task.fewshot_context(doc, shots, **arguments)
    requests = task.construct_requests(doc, prompt, apply_chat_template=True, chat_template=keep)
    return {"messages": json.loads(prompt), "continuations": [r.arguments[1] for r in requests]}


def _target(task: Any, doc: Any) -> int:
    target = task.doc_to_target(doc)
    return target if isinstance(target, int) else task.doc_to_choice(doc).index(target)


if __name__ == "__main__":
    import lm_eval

    birth = {"made_by": "tests/harness/build.py", "lm_eval": lm_eval.__version__}
    text = json.dumps({**birth, "prompts": harness_prompts()}, ensure_ascii=False, indent=1)
    PROMPTS.write_text(text + "\n", encoding="utf-8")
    print(PROMPTS)
