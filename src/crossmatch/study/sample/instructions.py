"""Instructions whose answers a program can check: 40 requests about the sample's terms, of IFEval's 25 kinds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossmatch.errors import InputError

Checks = tuple[tuple[str, Mapping[str, Any]], ...]

_SUITE = """\
# Requests about terms that neither training nor another suite has; each says what its checks look for.
name: instructions
version: 1
kind: instructions
language: en
data: instructions.jsonl
max_new_tokens: 160
"""

# (request, checks); {term} is a term inside a sentence.
REQUESTS: Sequence[tuple[str, Checks]] = (
    (
        "Explain {term} to a patient. The word doctor must occur in your answer.",
        (("keywords:existence", {"keywords": ["doctor"]}),),
    ),
    (
        "How is {term} found? Mention both the words examination and history.",
        (("keywords:existence", {"keywords": ["examination", "history"]}),),
    ),
    (
        "Describe {term} and use the word patient at least 3 times.",
        (("keywords:frequency", {"keyword": "patient", "frequency": 3, "relation": "at least"}),),
    ),
    (
        "Describe {term}. The word symptom may occur fewer than 2 times.",
        (("keywords:frequency", {"keyword": "symptom", "frequency": 2, "relation": "less than"}),),
    ),
    (
        "What is {term}? Do without the words abnormal and disorder.",
        (("keywords:forbidden_words", {"forbidden_words": ["abnormal", "disorder"]}),),
    ),
    (
        "Tell a child what {term} is. Never write the words disease or serious.",
        (("keywords:forbidden_words", {"forbidden_words": ["disease", "serious"]}),),
    ),
    (
        "In one sentence: what is {term}? The letter j must not occur at all.",
        (("keywords:letter_frequency", {"letter": "j", "let_frequency": 1, "let_relation": "less than"}),),
    ),
    (
        "What is {term}? Let the letter e occur at least 10 times.",
        (("keywords:letter_frequency", {"letter": "e", "let_frequency": 10, "let_relation": "at least"}),),
    ),
    (
        "Explain {term} in German only; no other language is allowed.",
        (("language:response_language", {"language": "de"}),),
    ),
    (
        "Explain {term} in Spanish only; no other language is allowed.",
        (("language:response_language", {"language": "es"}),),
    ),
    (
        "What is {term}? Answer in fewer than 3 sentences.",
        (("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}),),
    ),
    (
        "Tell me about {term} in at least 4 sentences.",
        (("length_constraints:number_sentences", {"num_sentences": 4, "relation": "at least"}),),
    ),
    (
        "Write 2 paragraphs about {term}, the first on what it is, the second on how it is seen. Put a line of *** "
        "between them.",
        (("length_constraints:number_paragraphs", {"num_paragraphs": 2}),),
    ),
    (
        "Write 3 paragraphs on {term} with a line of *** between each two.",
        (("length_constraints:number_paragraphs", {"num_paragraphs": 3}),),
    ),
    (
        "Say what {term} is in fewer than 20 words.",
        (("length_constraints:number_words", {"num_words": 20, "relation": "less than"}),),
    ),
    (
        "Write a note on {term} of at least 40 words.",
        (("length_constraints:number_words", {"num_words": 40, "relation": "at least"}),),
    ),
    (
        "Write 2 paragraphs about {term} with an empty line between them. The second must begin with the word Doctors.",
        (
            (
                "length_constraints:nth_paragraph_first_word",
                {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "doctors"},
            ),
        ),
    ),
    (
        "Write 3 paragraphs about {term}, each after an empty line. The first must begin with the word Clinically.",
        (
            (
                "length_constraints:nth_paragraph_first_word",
                {"num_paragraphs": 3, "nth_paragraph": 1, "first_word": "clinically"},
            ),
        ),
    ),
    (
        "Draft a letter that refers a patient with {term}. Leave at least 2 gaps in square brackets, such as [name].",
        (("detectable_content:number_placeholders", {"num_placeholders": 2}),),
    ),
    (
        "Write a form for a case of {term} with at least 3 fields in square brackets, such as [date].",
        (("detectable_content:number_placeholders", {"num_placeholders": 3}),),
    ),
    (
        "Write to a colleague about {term} and end with a postscript that begins with P.S.",
        (("detectable_content:postscript", {"postscript_marker": "P.S."}),),
    ),
    (
        "List signs of {term} as exactly 3 bullet points, each on a line that begins with *.",
        (("detectable_format:number_bullet_lists", {"num_bullets": 3}),),
    ),
    (
        "What should be asked of a patient with {term}? Give exactly 2 bullet points, each on a line that begins "
        "with *.",
        (("detectable_format:number_bullet_lists", {"num_bullets": 2}),),
    ),
    (
        "Is {term} something that a patient is born with? Answer with one of: My answer is yes. / My answer is no. / "
        "My answer is maybe.",
        (("detectable_format:constrained_response", {}),),
    ),
    (
        "What is {term}? Highlight at least one part of the answer with asterisks, *like this*.",
        (("detectable_format:number_highlighted_sections", {"num_highlights": 1}),),
    ),
    (
        "Explain {term} and highlight at least 2 terms with asterisks, *like this*.",
        (("detectable_format:number_highlighted_sections", {"num_highlights": 2}),),
    ),
    (
        "Write about {term} in 2 sections that begin with Section 1 and Section 2.",
        (("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}),),
    ),
    (
        "Describe {term} as JSON with the keys name and definition, and write nothing else.",
        (("detectable_format:json_format", {}),),
    ),
    (
        "Write a short entry on {term} with a title in double angular brackets, such as <<title>>.",
        (("detectable_format:title", {}),),
    ),
    (
        "Give two different definitions of {term}, divided by six asterisks: ******",
        (("combination:two_responses", {}),),
    ),
    (
        "Before you answer, repeat this request word for word: What does {term} mean?",
        (("combination:repeat_prompt", {"prompt_to_repeat": "What does {term} mean?"}),),
    ),
    (
        "What is {term}? End with exactly these words: Please see a doctor.",
        (("startend:end_checker", {"end_phrase": "Please see a doctor."}),),
    ),
    (
        "Define {term} and put the whole answer in double quotation marks.",
        (("startend:quotation", {}),),
    ),
    (
        "What is {term}? Write at least 2 words in capital letters only.",
        (("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}),),
    ),
    (
        "Define {term} in English, in capital letters only.",
        (("change_case:english_capital", {}),),
    ),
    (
        "Define {term} in English, in small letters only.",
        (("change_case:english_lowercase", {}),),
    ),
    (
        "What is {term}? Use no comma.",
        (("punctuation:no_comma", {}),),
    ),
    (
        "Summarise {term} without any comma, in fewer than 30 words.",
        (
            ("punctuation:no_comma", {}),
            ("length_constraints:number_words", {"num_words": 30, "relation": "less than"}),
        ),
    ),
    (
        "Describe {term} in exactly 2 bullet points, each on a line that begins with *, and end with these words: "
        "That is all.",
        (
            ("detectable_format:number_bullet_lists", {"num_bullets": 2}),
            ("startend:end_checker", {"end_phrase": "That is all."}),
        ),
    ),
    (
        "Write a title in double angular brackets, such as <<title>>, and below it what {term} is, with the word "
        "patient at least once.",
        (
            ("detectable_format:title", {}),
            ("keywords:frequency", {"keyword": "patient", "frequency": 1, "relation": "at least"}),
        ),
    ),
)


def write_instructions(out: Path, terms: Mapping[str, str]) -> list[str]:
    """Write the suite instructions, a request for each of the first terms (id -> name inside a sentence); return the
    ids of those. Raises InputError if there are too few."""
    if len(terms) < len(REQUESTS):
        raise InputError(f"{len(REQUESTS)} more terms are needed for instructions, {len(terms)} are left; ask for less")
    chosen = list(terms.items())[: len(REQUESTS)]
    rows = [
        {
            "id": f"{number:02}-{identifier}",
            "question": text.format(term=name),
            "checks": [{"kind": kind, "arguments": _filled(arguments, name)} for kind, arguments in checks],
        }
        for number, ((text, checks), (identifier, name)) in enumerate(zip(REQUESTS, chosen, strict=True), 1)
    ]
    (out / "instructions.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    (out / "instructions.yaml").write_text(_SUITE, encoding="utf-8")
    return [identifier for identifier, _ in chosen]


def _filled(arguments: Mapping[str, Any], term: str) -> dict[str, Any]:
    return {name: v.format(term=term) if isinstance(v, str) else v for name, v in arguments.items()}
