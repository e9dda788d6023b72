"""Whether our scores are those of the tools whose names they bear, on random texts.

    pip install rouge_chinese==1.0.3 && pip install --no-deps lm_eval langdetect immutabledict
    python benchmarks/scores.py [--count 400]

LLaMA-Factory's recipe (jieba, rouge_chinese, nltk) against `factory_scores`, in English and Chinese; lm-eval's IFEval
checks against `check`, strict, for every kind but those that need a downloaded sentence model or guess a language.
Prints JSON: largest difference of a score; differing verdicts of each kind, of how many, and how many were yes.
"""

import argparse
import importlib
import importlib.util
import json
import random
import sys
import types
from pathlib import Path
from typing import Any

import nltk
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from crossmatch.evaluation.metrics.ifeval import KINDS, check
from crossmatch.evaluation.metrics.llamafactory import factory_scores

PIECES = [
    "血压",
    "升高",
    "糖尿病",
    "患者",
    "。",
    "？",
    "\n",
    "the",
    "",
    "a",
    "fever",
    "......",
    "……",
    "”",
    "，",
    "!",
    "2.5",
    "mg",
    "应",
    "治疗",
    "的",
    "是",
    "heart",
]
LINES = [
    "The patient has high blood pressure, and should rest.",
    "* point one",
    "- point two",
    "**bold** *em*",
    "[name] [city]",
    "***",
    "******",
    "Section 1",
    "SECTION 2",
    "P.S. do rest",
    "p. p. s later",
    "<<title>>",
    "My answer is yes.",
    '"quoted"',
    "WHO and NHS say NO to COVID-19, I'm told by O'Neil",
    '```json\n{"a": 1}\n```',
    '{"a": [1]}',
    "heart heart Heart",
    "Is there anything else?",
    "\n\n",
    "  ",
]
LEFT_OUT = {"length_constraints:number_sentences", "language:response_language"}


def factory(pairs: list[tuple[str, str]]) -> float:
    """Largest difference to LLaMA-Factory's recipe, in points of 100."""
    import jieba
    from rouge_chinese import Rouge

    found, worst = factory_scores(*zip(*pairs, strict=True)), 0.0
    for row, (hypothesis, reference) in enumerate(pairs):
        texts = [" ".join(jieba.cut(text)) for text in (hypothesis, reference)]
        scores: Any = Rouge().get_scores(*texts)[0] if all(t.split() for t in texts) else None
        smoothing = SmoothingFunction().method3
        expected = [sentence_bleu([list(reference)], list(hypothesis), smoothing_function=smoothing)]
        expected += [scores[kind]["f"] if scores else 0.0 for kind in ("rouge-1", "rouge-2", "rouge-l")]
        worst = max(worst, *(abs(f[row, 0] - 100 * e) for f, e in zip(found.values(), expected, strict=True)))
    return worst


def published() -> dict[str, Any]:
    """lm-eval's registry of checks, without the rest of lm-eval."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise SystemExit("lm_eval is not installed: pip install --no-deps lm_eval langdetect immutabledict")
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
        module = types.ModuleType(name)
        module.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module
    # It asks for sentence models when it is loaded; the checks compared here need none.
    nltk.data.find = nltk.download = lambda *_, **__: True
    nltk.word_tokenize = nltk.tokenize.NLTKWordTokenizer().tokenize
    importlib.import_module("langdetect").DetectorFactory.seed = 0
    return importlib.import_module("lm_eval.tasks.ifeval.instructions_registry").INSTRUCTION_DICT


def arguments_of(kind: str, rng: random.Random) -> dict[str, Any]:
    """Arguments that are sometimes met."""
    drawn = {
        "relation": rng.choice(["less than", "at least"]),
        "num_words": rng.randint(0, 40),
        "keywords": rng.sample(["heart", "rest", "who", "title"], 2),
        "keyword": rng.choice(["heart", "is"]),
        "letter": rng.choice("aeqX"),
        "let_frequency": rng.randint(0, 9),
        "nth_paragraph": 1,
        "first_word": rng.choice(["the", "heart", "section", "my"]),
        "postscript_marker": rng.choice(["P.S.", "P.P.S"]),
        "section_spliter": rng.choice(["Section", "SECTION"]),
        "prompt_to_repeat": "Heart heart",
        "end_phrase": rng.choice(["anything else?", "heart"]),
    }
    drawn |= dict.fromkeys(("let_relation", "capital_relation"), drawn["relation"])
    drawn["forbidden_words"] = drawn["keywords"]
    return {name: drawn.get(name, rng.randint(1, 4)) for name in KINDS[kind].arguments}


def main() -> None:
    """Compare, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="pairs of texts, and responses a kind")
    count, rng = parser.parse_args().count, random.Random(0)

    def text(pieces: list[str], most: int) -> str:
        return "".join(rng.choice(pieces) + rng.choice(["", " ", "\n"]) for _ in range(rng.randint(0, most)))

    result: dict[str, Any] = {"factory": factory([(text(PIECES, 25), text(PIECES, 25)) for _ in range(count)])}
    theirs = published()
    for kind in KINDS:
        if kind in LEFT_OUT:
            continue
        differ = yes = 0
        for _ in range(count):
            arguments, response = arguments_of(kind, rng), text(LINES, 7)
            instruction = theirs[kind](kind)
            instruction.build_description(**arguments)
            expected = bool(response.strip() and instruction.check_following(response))
            differ += expected != check(kind, arguments, "", response)
            yes += expected
        result[kind] = {"differ": differ, "of": count, "yes": yes}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
