"""Made-up records in the column layouts of the real data sets, with texts that trip up careless templates."""

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
MMLU = {
    "anatomy": "a lone bone",
    "clinical_knowledge": "a fever",
    "college_biology": "a cell",
    "college_medicine": "an enzyme",
    "medical_genetics": "a gene",
    "professional_medicine": "a 50-year-old man",
}
CMMLU = {
    "anatomy": "骨",
    "clinical_knowledge": "发热",
    "college_medical_statistics": "方差",
    "college_medicine": "酶",
    "nutrition": "维生素",
    "professional_medicine": "患者男，50岁",
    "traditional_chinese_medicine": "桂枝汤",
    "virology": "病毒",
}


def _medqa() -> Rows:
    stems = ["A 23-year-old woman asks {options} of {question}?", "  Which vessel?\n(See the figure.)  ", "7"]
    ends = {f"ending{i}": f"option {i} {{{{ text }}}} {chr(65 + i)}." for i in range(4)}
    return [{"id": f"m{i}", "sent1": s, "sent2": "", **ends, "label": i} for i, s in enumerate(stems)]


def _medmcqa() -> Rows:
    options = {"opa": "Hyperplasia", "opb": " Hypoplasia ", "opc": "All of the above", "opd": "{question}"}
    rest = {"choice_type": "single", "exp": None, "subject_name": "Pathology", "topic_name": None}
    return [{"id": f"c{i}", "question": f"Increase in {i}: \\frac", **options, "cop": i, **rest} for i in range(4)]


def _pubmedqa() -> Rows:
    context = {"contexts": ["First part. ", "Second part: 5% {context}."], "labels": ["A", "B"], "meshes": ["M"]}
    answers = {12377809: "yes", 24577079: "no", 18284441: "maybe"}
    return [
        {"pubid": pubid, "question": f"Does {pubid} help?", "context": context, "long_answer": "L", "final_decision": a}
        for pubid, a in answers.items()
    ]


def _mmlu(subject: str, what: str, count: int, offset: int = 0) -> Rows:
    return [
        {
            "question": f"  What is {what} number {offset + i}?\n",
            "subject": subject,
            "choices": [f"{what} {i}{letter}" for letter in "abcd"],
            "answer": (offset + i) % 4,
        }
        for i in range(count)
    ]


def _cmmlu(what: str, count: int, offset: int = 0) -> Rows:
    return [
        {"Question": f" {what}是第{offset + i}个？ ", **{c: f"{what}（{c}）" for c in "ABCD"}, "Answer": "ABCD"[i % 4]}
        for i in range(count)
    ]


# recipe -> configuration ("" without) -> split -> rows
RECORDS: dict[str, dict[str, dict[str, Rows]]] = {
    "medqa": {"": {"test": _medqa()}},
    "medmcqa": {"": {"validation": _medmcqa()}},
    "pubmedqa": {"pqa_labeled": {"train": _pubmedqa()}},
    "mmlu-medical": {
        s: {"test": _mmlu(s, what, 2), "dev": _mmlu(s, f"solved {what}", 5, 1)} for s, what in MMLU.items()
    },
    "cmmlu-medical": {s: {"test": _cmmlu(what, 2), "dev": _cmmlu(f"例题{what}", 5, 1)} for s, what in CMMLU.items()},
}


def write_data_set(root: Path, configs: dict[str, dict[str, Rows]]) -> Path:
    """A directory in the form of a hub data set, as `load_dataset` takes it."""
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config or 'default'}", "  data_files:"]
        for split, rows in splits.items():
            file = root / (config or "data") / f"{split}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            lines += [f"  - split: {split}", f"    path: {file.relative_to(root)}"]
    (root / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    return root
