"""Traces in every format of the table and in a suite's own, opened by the output or by the prompt, whole and cut."""

import re
from pathlib import Path

import pytest

from crossmatch.data.reasoning_formats import FORMATS, ReasoningFormat, written
from crossmatch.data.suites import load_suite
from crossmatch.data.trace_blocks import opened_by
from crossmatch.errors import DataError
from crossmatch.evaluation.metrics.answer_extraction import extract_choice
from crossmatch.evaluation.metrics.reasoning_traces import parse_trace

THOUGHT = "Could it be A? Option C is wrong. The answer is A, or is it?"
OPTIONS = ("heart", "blood", "bone")


def filled(form: ReasoningFormat) -> str:
    """An example with a thought that speaks of other options than its answer."""
    return re.sub("musing", THOUGHT, form.example, flags=re.IGNORECASE)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_reads_its_example(form: ReasoningFormat) -> None:
    for text in (form.example, filled(form)):
        trace = parse_trace(text)
        assert (trace.state, trace.format, trace.answer) == ("closed", form.name, "B")
        assert extract_choice(text, OPTIONS) == 1


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_what_is_cut_inside_a_trace_has_no_answer(form: ReasoningFormat) -> None:
    begun = form.example.lower().index("musing") + len("musing")
    trace = parse_trace(form.example[:begun] + ". The answer is A.")
    assert (trace.state, trace.answer, trace.step) == ("unclosed", "", None)
    assert trace.share == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("＜think＞a＜/think＞B", "B"),
        ('<think lang="en" n=2>a</think>B', "B"),
        ("〈Thinking〉a〈/Thinking〉B", "B"),
        ("&lt;think&gt;a&lt;/think&gt;B", "B"),
        ("<thinking>a</think>B", "B"),
        ("<seed:think>a</seed:think>B", "B"),
        ("<longcat_think>a</longcat_think>B", "B"),
        ("<think>a</think><answer>B</answer>", "B"),
        ("<think>a</think>\n<response>\nB\n</response><|im_end|>", "B"),
        ("<think>a <reasoning>b</reasoning> c</think>B", "B"),
        ("<think>a</think>B\n</think>", "B"),
        ("<|channel|>final<|message|>B", "B"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.f "
         "<|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>B<|return|>", "B"),
        ("analysis of the blood shows B", "analysis of the blood shows B"),
        ("Here is my response to you", "Here is my response to you"),
        ("[think] is no token", "[think] is no token"),
    ],
)  # fmt: skip
def test_answers_without_their_trace(text: str, answer: str) -> None:
    assert parse_trace(text).answer == answer


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("<|im_start|>assistant\n<think>\n", "think"),
        ("<|im_start|>assistant\n<think>\nOkay, so", "think"),
        ("[INST]q[/INST][THINK]", "mistral"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "harmony"),
        ("<|end|>\n<|begin_assistant|>\nHere are my reasoning steps:\n", "apriel"),
        ("<start_of_turn>model\n<unused94>thought\n", "medgemma"),
        ("Question: q\nAnswer: <think>", "think"),
        ("]~b]ai\n<mm:think>", "think"),
        ("<｜Assistant｜></think>", None),
        ("<|assistant|>\n<think></think>\n", None),
        ("<|im_start|>assistant\n<think>\n\n</think >\n\n", None),
        ("[|assistant|]\n<thought>\nThe signs are", "thought"),
        ("### Response:\n<think>\nLet me see ", "think"),
        ('<|open|>message role="assistant"<|sep|><|open|>think<|sep|>', "kimi-k3"),
        ('<|open|>message role="assistant"<|sep|><|open|>response<|sep|>', None),
        ("<|start|>assistant to=self<|message|>", "to-self"),
        ("<|start|>assistant<|channel|>final<|message|>", None),
        ("<|im_start|>assistant/think\n", "hyperclova"),
        ("<|im_start|>user\n/think<|im_end|>\n<|im_start|>assistant\n", None),
        ("<|im_start|>assistant\n```thinking\n", "fence"),
        ("Write code:\n```\nx\n```\n### Response:\n", None),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", None),
        ("<|turn>model\n<|channel>thought\n<channel|>", None),
        ("<|im_start|>user\nUse <think> tags.<|im_end|>\n<|im_start|>assistant\n", None),
        ("User: write <think> before and </think> after.\nAssistant:", None),
        ("", None),
    ],
)
def test_a_block_that_the_prompt_leaves_open(prompt: str, name: str | None) -> None:
    assert opened_by(prompt) == name


@pytest.mark.parametrize(
    ("output", "state", "answer"),
    [
        ("The answer is A.", "unclosed", ""),
        ("The answer is A.</think>\n\nB", "close_only", "B"),
        ("<think>The answer is A.</think>\n\nB", "close_only", "B"),
        ("\n</think>\n\nB", "empty", "B"),
        ("", "unclosed", ""),
    ],
)
def test_an_output_inside_the_prompts_block(output: str, state: str, answer: str) -> None:
    trace = parse_trace(output, opened="think")
    assert (trace.state, trace.answer) == (state, answer)
    assert trace.structural == (state != "empty")


def suite(folder: Path, reasoning: str) -> Path:
    (folder / "s.jsonl").write_text('{"id": "1", "question": "q", "reference": "r"}\n')
    file = folder / "s.yaml"
    file.write_text(f"name: s\nversion: 1\nkind: generation\ndata: s.jsonl\n{reasoning}")
    return file


def test_a_suite_brings_a_format_of_its_own(tmp_path: Path) -> None:
    plain = load_suite(suite(tmp_path, ""))
    assert "reasoning" not in plain.settings.to_dict()
    own = load_suite(
        suite(tmp_path, 'reasoning: [{name: ours, opening: "((", closing: "))", answer: "=>", example: "((hm))=>B"}]\n')
    )
    assert own.digest != plain.digest
    trace = parse_trace("((hm)) => B", own.settings.reasoning_formats)
    assert (trace.state, trace.format, trace.answer) == ("closed", "ours", "B")
    assert parse_trace("<think>a</think>B", own.settings.reasoning_formats).answer == "B"


@pytest.mark.parametrize(
    ("markers", "reason"),
    [
        ('{name: ours, opening: "((", closing: " "}', "needs an opening and a closing"),
        ('{name: ours, opening: "((", closing: "(("}', "needs an opening and a closing"),
        ('{name: think, opening: "((", closing: "))"}', "is built in"),
        ('{name: ours, opening: "((", closing: "))", example: "[hm] B"}', "its example has no trace"),
        ('{name: a, opening: "((", closing: "))"}, {name: a, opening: "<<", closing: ">>"}', "given twice"),
        ('{name: ours, opening: "((", close: "))"}', r"reasoning\.0"),
    ],
)
def test_a_format_that_cannot_be_used_is_refused(tmp_path: Path, markers: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        load_suite(suite(tmp_path, f"reasoning: [{markers}]\n"))


def test_markers_as_written_are_no_expressions() -> None:
    form = written("ours", "(*", "*)")
    assert parse_trace("(* hm *)B. (a+)+", (form, *FORMATS)).answer == "B. (a+)+"


@pytest.mark.parametrize(
    ("text", "untagged", "hesitations"),
    [
        ("Here's a thinking process:\n1. Analyse.", True, 0),
        ("**Thinking Process:**\n\nIt is B.", True, 0),
        ("思考过程：\n先看题目。", True, 0),
        ("Thinking about it, B.", False, 0),
        ("It is A. Wait, no. Hmm, let me check.", False, 3),
        ("是A。等等，不对，让我再想想。", False, 2),
        ("Take it and wait 2 weeks. Wait for the doctor. Let me know.", False, 0),
        ("发热、咳嗽、乏力等等。", False, 0),
        ("<think>Wait, hmm.</think>B", False, 0),
    ],
)
def test_wording_outside_tags(text: str, untagged: bool, hesitations: int) -> None:
    trace = parse_trace(text)
    assert (trace.untagged, trace.hesitations) == (untagged, hesitations)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    [
        *("\n", "# ", "`", "> ", "<think>", "<|start|>assistant ", "<think a=b ", "&lt;", "&amp;", "amp;", "wait, "),
        *("<details ", "<details><summary>", "```think\n", "<think><answer>", "</answer>", "/think\n", "thinking "),
        *(
            "(wait ",
            "— ",
            "but ",
            "so, ",
            "here is a ",
            "让我",
            "思",
            "* _",
            "\\u003c",
            "《",
            "assistant final ",
            "let me ",
        ),
    ],
)
def test_markers_are_found_in_no_time(piece: str) -> None:
    assert parse_trace(piece * 50_000).state == parse_trace(piece * 500).state
    assert opened_by(piece * 50_000) == opened_by(piece * 500)
