"""What the audit calls found though it is another question, and what it misses of one that was changed.

    python benchmarks/audit_false_alarms.py

Questions of an exam in Chinese and in English are made from stems and terms, so that many differ in one term alone: the
hardest case for n-grams. Held out is one half, trained on the other; every item that is found is a false alarm. Then
the same questions in other dress are trained on; every item that is not found is missed.
"""

import random
from collections.abc import Callable, Sequence

from crossmatch.evaluation.audit import Document, Work, audit

DISEASES = (
    *(
        "糖尿病",
        "高血压",
        "冠心病",
        "肺结核",
        "胃溃疡",
        "肝硬化",
        "肾结石",
        "甲亢",
        "痛风",
        "哮喘",
        "白血病",
        "贫血",
        "脑梗死",
        "癫痫",
    ),
    *(
        "帕金森病",
        "肺炎",
        "胆囊炎",
        "胰腺炎",
        "阑尾炎",
        "骨质疏松症",
        "系统性红斑狼疮",
        "类风湿关节炎",
        "慢性阻塞性肺疾病",
    ),
    *(
        "急性心肌梗死",
        "甲状腺功能亢进症",
        "再生障碍性贫血",
        "特发性血小板减少性紫癜",
        "肾病综合征",
        "新生儿黄疸",
        "有机磷农药中毒",
    ),
    *(
        "一氧化碳中毒",
        "十二指肠溃疡",
        "溃疡性结肠炎",
        "原发性肝癌",
        "食管癌",
        "支气管扩张症",
        "感染性心内膜炎",
        "二尖瓣狭窄",
        "深静脉血栓",
    ),
)
STEMS = (
    "下列哪项不属于{}的慢性并发症",
    "下列哪项不属于{}的急性并发症",
    "下列关于{}的叙述，正确的是",
    "下列关于{}的叙述，错误的是",
    "治疗{}的首选药物是",
    "治疗{}的手术指征是",
    "{}最主要的病因是",
    "{}最主要的并发症是",
    "{}最常见的死亡原因是",
    "{}最常见的发病部位是",
    "诊断{}最有价值的检查是",
    "提示{}病情加重的最有意义的实验室检查指标是",
    "对疑有{}的患者，为明确诊断首先应进行的检查是",
    "患者，男，{age}岁，因{sign}{days}天入院，既往有{}病史，最可能的诊断是",
    "患者，女，{age}岁，因{sign}{days}天入院，既往有{}病史，首选的检查是",
)
SIGNS = ("上腹部疼痛", "发热咳嗽", "胸闷气促", "双下肢水肿", "头晕乏力", "反复呕血", "关节肿痛", "意识不清", "心悸多汗")
CONDITIONS = (
    *("diabetes mellitus", "hypertension", "gout", "asthma", "cirrhosis", "pneumonia", "epilepsy", "peptic ulcer"),
    *("acute pancreatitis", "rheumatoid arthritis", "sickle cell anaemia", "myasthenia gravis", "ulcerative colitis"),
    *("bacterial endocarditis", "deep vein thrombosis", "systemic lupus erythematosus", "iron deficiency anaemia"),
    *("chronic obstructive pulmonary disease", "tuberculosis", "thyroid storm"),
)
ENGLISH = (
    "Which of the following is the most common cause of {} in adults?",
    "Which of the following is the most common complication of {} in adults?",
    "Which of the following drugs is contraindicated in a patient with {}?",
    "What is the most appropriate initial treatment for a patient with {}?",
    "What is the most appropriate next step in the diagnosis of {}?",
    "A {age}-year-old man with a history of {} presents with {sign} for {days} days. What is the likely diagnosis?",
    "A {age}-year-old woman with a history of {} presents with {sign} for {days} days. What is the best next step?",
)
COMPLAINTS = ("fever and cough", "chest pain", "swollen legs", "dizziness", "vomiting of blood", "joint pain", "a rash")
TEMPLATES = {
    "Chinese": (
        "你是一名医学专家，正在参加执业医师资格考试。请仔细阅读下面的题目，一步一步地思考，并且只回答正确选项的字母。",
        "请根据你的医学知识回答以下单项选择题，先给出分析过程，再在最后一行写出答案。",
        "以下是一道临床医学试题，请选择最恰当的一个选项，并用一句话说明你选择它的理由。",
        "作为一名经验丰富的主治医师，请帮助实习医生解答下面这道题，语言要简洁、准确。",
        "阅读题目后直接作答，不要重复题干，也不要输出与答案没有关系的任何其他内容。",
        "下面的问题来自一套标准化的医学测验，请独立完成，并按照规定的格式提交你的答案。",
    ),
    "English": (
        "You are a medical expert taking a licensing examination. Read the following question carefully, think about it"
        " step by step, and answer with the letter of the correct option only.",
        "Answer the question below from your knowledge of medicine; explain your reasoning before you give the answer.",
        "The following is a question from a clinical test. Choose the single best option and justify it in a sentence.",
        "As an experienced attending physician, help a medical student with this question, in short and precise words.",
        "Reply with the answer alone: do not repeat the question, and do not write anything that is not part of it.",
        "This item belongs to a standardised test. Work on it alone and hand your answer in, in the form agreed upon.",
    ),
}


SHORT = {
    "Chinese": "请回答下面的医学考试题目：",
    "English": "Answer the following question about medicine in one word:",
}


def questions(stems: Sequence[str], terms: Sequence[str], signs: Sequence[str]) -> list[str]:
    """Every stem with every term, shuffled; no two are equal."""
    rng = random.Random(0)
    made = {
        stem.format(term, age=rng.randrange(18, 90), days=rng.randrange(2, 30), sign=rng.choice(signs))
        for stem in stems
        for term in terms
    }
    return rng.sample(sorted(made), len(made))


def found(train: Sequence[str], held: Sequence[str]) -> int:
    """How many held-out questions are found, at any level."""
    sets = [[Document(str(i), text, text) for i, text in enumerate(texts)] for texts in (train, held)]
    report = audit({"t": sets[0]}, {"h": sets[1]}, work=Work(processes=1))
    return len(report.contaminated["h"])


def spaced(text: str) -> str:
    """With white space in it, and other punctuation."""
    return (
        " ".join(text).replace("，", ",") if not text.isascii() else text.upper().replace(",", " ,").replace("?", " ?!")
    )


def wrapped(text: str) -> str:
    """Inside a prompt."""
    return f"题目：{text}\nA. 甲 B. 乙\n答案：" if not text.isascii() else f"Question: {text}\nA. x B. y\nAnswer:"


def main() -> None:
    """Print both tables."""
    languages = {
        "Chinese": questions(STEMS, DISEASES, SIGNS),
        "English": questions(ENGLISH, CONDITIONS, COMPLAINTS),
    }
    print("false alarms: other questions that are called found")
    for name, every in languages.items():
        half = len(every) // 2
        for what, n in (("alone", 0), ("short template", 0), ("template", 1), ("one of six", 6)):
            short = SHORT[name] if what == "short template" else ""
            texts = [f"{TEMPLATES[name][i % n] if n else short}\n{text}" for i, text in enumerate(every)]
            train, held = texts[half:], texts[:half]
            alarms = found(train, held)
            print(f"  {name:8} {what:18} {alarms:4} of {half} ({alarms / half:.2%})")
    print("missed: the same questions in other dress")
    dresses: dict[str, Callable[[str], str]] = {"as they are": str, "white space": spaced, "inside a prompt": wrapped}
    for name, every in languages.items():
        half = len(every) // 2
        for what, dress in dresses.items():
            missed = half - found([dress(text) for text in every[:half]] + every[half:], every[:half])
            print(f"  {name:8} {what:18} {missed:4} of {half} ({missed / half:.2%})")


if __name__ == "__main__":
    main()
