"""Chat templates: switches that act, days at rest, several by name, and dialogues that they refuse or leave out."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import transformers.utils.chat_template_utils as clock
from transformers import AutoTokenizer

from crossmatch.data.chat_templates import (
    DAY,
    apply_template,
    check_training,
    differing_files,
    open_tokenizer,
    own_template,
    probe,
    render,
    restore_template,
)
from crossmatch.data.probe_dialogues import QUESTION
from crossmatch.data.prompt_templates import TEMPLATES, Template, find_template
from crossmatch.data.responses import Reading
from crossmatch.data.suite_rendering import render_rows, render_suite
from crossmatch.data.suites import Suite, load_suite
from crossmatch.data.training_sets import Dialogue
from crossmatch.errors import DataError
from helpers import make_tokenizer

PROBE = ({"role": "user", "content": QUESTION},)
TURNS = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}"
START = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|> {{ m.content }} {% endfor %}"
# It names the usual variable, and listens to words in a user's message.
BY_WORDS = (
    "{% set ns = namespace(enable_thinking=true) %}{% for m in messages %}{% if '/no_think' in m.content %}"
    "{% set ns.enable_thinking = false %}{% endif %}<|{{ m.role }}|> {{ m.content.replace('/no_think', '')"
    ".replace('/think', '') }} {% endfor %}" + START + "{{ ' <think>' if ns.enable_thinking else ' <think> </think>' }}"
)


def by_variable(name: str, off: str = "false") -> str:
    return (
        TURNS + START + "{% if " + name + " is defined and " + name + " == " + off + " %} <think> </think>{% endif %}"
    )


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    make_tokenizer(tmp_path / "t")
    return open_tokenizer(tmp_path / "t")


@pytest.mark.parametrize(
    "source",
    [
        by_variable("enable_thinking"),
        by_variable("thinking"),
        by_variable("thinking_budget", "0"),
        by_variable("reasoning_effort", "'no_think'"),
        BY_WORDS,
    ],
)
def test_a_switch_that_acts_is_used(tokenizer: Any, source: str) -> None:
    on, off = (Template("t", source, thinking).prompt(tokenizer, PROBE) for thinking in (True, False))
    assert off.rstrip().endswith("</think>")
    assert not on.rstrip().endswith("</think>")
    assert "/no_think" not in off


@pytest.mark.parametrize(
    "source",
    [
        TURNS + START,
        "{% set enable_thinking = true %}" + TURNS + START + "{# thinking /no_think #}",
        TURNS + START + "Reasoning: {{ reasoning_effort | default('medium') }}",
    ],
)
def test_a_switch_that_does_nothing_is_refused(tokenizer: Any, source: str) -> None:
    for thinking in (True, False):
        with pytest.raises(DataError, match="template t: this chat template has no switch for thinking that changes"):
            Template("t", source, thinking).prompt(tokenizer, PROBE)


def test_a_switch_must_act_on_the_dialogues_that_are_asked(tokenizer: Any) -> None:
    source = (
        "{% if messages[0].role == 'system' %}" + TURNS + START + "{% else %}" + by_variable("thinking") + "{% endif %}"
    )
    template = Template("t", source, thinking=False)
    assert template.prompt(tokenizer, PROBE).endswith("</think>")
    with pytest.raises(DataError, match="changes a prompt with a system message"):
        template.prompt(tokenizer, [{"role": "system", "content": "Be terse."}, *PROBE])


def test_training_refuses_a_switch_that_does_nothing(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    check_training(tmp_path, None, False)
    (tmp_path / "x.jinja").write_text(TURNS + START)
    check_training(tmp_path, str(tmp_path / "x.jinja"), None)
    with pytest.raises(DataError, match="no switch"):
        check_training(tmp_path, str(tmp_path / "x.jinja"), True)
    (tmp_path / "x.jinja").write_text(by_variable("thinking"))
    check_training(tmp_path, str(tmp_path / "x.jinja"), True)


def test_the_day_is_the_same_tomorrow(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "{%- macro day(form) %}{{ strftime_now(form) }}{% endmacro %}\n{% if strftime_now is defined %}"
        "{{ strftime_now('%d %b %Y') }}|{{ day('%-d %B %Y, %A %H:%M %%Y') }}|{{ strftime_now('%Y') | int + 1 }}"
        "{% endif %}" + TURNS + START
    )
    tokenizer.chat_template = source
    first = render(tokenizer, PROBE, None)
    assert first.startswith(f"{DAY:%d %b %Y}|1 January 2026, Thursday 00:00 %Y|2027<|user|>")

    class Tomorrow(datetime):
        day_of = DAY

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            del tz
            return cls.day_of

    monkeypatch.setattr(clock, "datetime", Tomorrow)
    assert tokenizer.apply_chat_template(list(PROBE), tokenize=False, add_generation_prompt=True) == first
    Tomorrow.day_of = datetime(2031, 5, 17, tzinfo=UTC)
    assert "2031" in tokenizer.apply_chat_template(list(PROBE), tokenize=False)
    assert render(tokenizer, PROBE, None) == first
    assert probe(tokenizer, None)["day"] == TEMPLATES["own"].day(tokenizer) == "2026-01-01"
    digest = probe(tokenizer, None)["digest"]
    for _ in range(2):
        apply_template(tokenizer, None)
    assert tokenizer.apply_chat_template(list(PROBE), tokenize=False, add_generation_prompt=True) == first
    assert probe(tokenizer, None)["digest"] == digest
    restore_template(tokenizer)
    assert tokenizer.chat_template == source


def test_templates_by_name(tokenizer: Any, tmp_path: Path) -> None:
    named = {"default": TURNS + START, "tool_use": "tools " + TURNS + START}
    tokenizer.chat_template = named
    tokenizer.save_pretrained(tmp_path / "named")
    again = open_tokenizer(tmp_path / "named")
    assert TEMPLATES["own"].prompt(again, PROBE) == Template("t", named["default"]).prompt(again, PROBE)
    assert find_template("own:tool_use").prompt(again, PROBE).startswith("tools ")
    assert find_template("own:tool_use").name == "own-tool_use"
    with pytest.raises(DataError, match=r"has the chat templates default, tool_use, and none called 'rag'"):
        find_template("own:rag").prompt(again, PROBE)
    with pytest.raises(DataError, match="give a template's name"):
        find_template("own:../x")
    apply_template(again, None)
    assert probe(again, None)["text"] == TEMPLATES["own"].prompt(again, PROBE)
    restore_template(again)
    assert again.chat_template == named
    for _ in range(2):  # as training does, which reads rows first and its record last
        apply_template(again, "own:tool_use")
    assert probe(again, None)["text"] == find_template("own:tool_use").prompt(open_tokenizer(tmp_path / "named"), PROBE)
    restore_template(again)
    assert again.chat_template == named
    with pytest.raises(DataError, match="none called 'rag'"):
        apply_template(again, "own:rag")
    again.chat_template = {"a": TURNS, "b": TURNS}
    with pytest.raises(DataError, match="none called 'default'; choose one as in own:a"):
        own_template(again)
    again.chat_template = TURNS
    with pytest.raises(DataError, match="has one chat template"):
        own_template(again, "rag")


def test_the_template_of_a_processor(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template is None
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": TURNS}))
    assert open_tokenizer(tmp_path).chat_template == TURNS


def test_two_templates_that_differ_are_said_with_the_one_in_use(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "t"
    assert differing_files(path, tokenizer) is None
    file = path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    (path / "chat_template.jinja").write_text(TURNS)
    file.write_text(json.dumps({**config, "chat_template": TURNS + "\n"}))
    assert differing_files(path, open_tokenizer(path)) is None
    file.write_text(json.dumps({**config, "chat_template": [{"name": "default", "template": TURNS + START}]}))
    again = open_tokenizer(path)
    assert own_template(again) == TURNS
    said = differing_files(path, again)
    assert said is not None
    assert "chat_template.jinja is used, tokenizer_config.json is not" in said
    (path / "chat_template.jinja").unlink()
    assert differing_files(path, open_tokenizer(path)) is None


def suite_of(root: Path, **settings: Any) -> Suite:
    rows = [{"id": f"q{i}", "question": f"What is gout {i}?", "reference": "A disease."} for i in range(3)]
    (root / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {"name": "s", "version": 1, "kind": "generation", "data": "s.jsonl", **settings}
    (root / "s.yaml").write_text(json.dumps(facts))
    return load_suite(root / "s.yaml")


@pytest.mark.parametrize(
    ("source", "message", "of_row"),
    [
        (NO_SYSTEM + TURNS + START, "System role not supported", "System role not supported"),
        (STRICT + TURNS + START, "roles must alternate", "roles must alternate"),
        (
            DROPS_SYSTEM + START,
            "leaves out or changes message 1, of role system",
            "leaves out or changes message 1, of role system",
        ),
    ],
)
def test_what_a_template_refuses_or_leaves_out_is_said_with_file_and_line(
    tokenizer: Any, tmp_path: Path, source: str, message: str, of_row: str
) -> None:
    template, plain = Template("t", source), suite_of(tmp_path)
    assert len(render_suite(plain, template, tokenizer)) == 3
    asked = suite_of(tmp_path, system="Be terse.")
    with pytest.raises(
        DataError, match=rf"suite s, .*s\.jsonl, line 1: template t: .*{message}.* \(and 2 more items\)"
    ):
        render_suite(asked, template, tokenizer)
    tokenizer.chat_template = source
    rows = [
        Dialogue((("user", "a"), ("assistant", "b"))),
        Dialogue((("system", "s"), ("user", "a"), ("assistant", "b")), place="t.jsonl, line 2"),
    ]
    reading = Reading(tokenizer)
    assert render_rows(rows[:1], "t.jsonl", reading, (64, None)) == []
    with pytest.raises(DataError, match=rf"t\.jsonl, line 2: .*{of_row}"):
        render_rows(rows, "t.jsonl", reading, (64, None))
    with pytest.raises(DataError, match=r"t\.jsonl, example 1 has \d+ tokens with its template, max_length is 3"):
        render_rows(rows[:1], "t.jsonl", reading, (3, None))


def choice_suite(folder: Path, options: tuple[str, ...], language: str) -> Path:
    row = {"id": "1", "question": "Which?", "options": options, "answer": 0}
    (folder / "s.jsonl").write_text(json.dumps(row) + "\n")
    file = folder / "s.yaml"
    file.write_text(json.dumps({"name": "s", "version": 1, "kind": "choice", "data": "s.jsonl", "language": language}))
    return file


@pytest.mark.parametrize(
    ("one", "other", "language"),
    [
        *(("gout", " gout ", "en"), ("caf\u00e9", "cafe\u0301", "en"), ("10 mg", "\uff11\uff10 mg", "en")),
        *(("10 mg", "10\u00a0 mg", "en"), ("\ufb01brin", "fibrin", "en"), ("\u03bcg", "\u00b5g", "en")),
        *(("gout", "go\u200but", "en"), ("5 \u03a9", "5 \u2126", "en"), ("\ud55c", "\u1112\u1161\u11ab", "en")),
        *(("頭痛", "头痛", "zh"), ("肺炎（急性）", "肺炎(急性)", "zh"), ("\uff76\uff9e\uff7d", "ガス", "ja")),
    ],
)
def test_equal_options_are_refused(tmp_path: Path, one: str, other: str, language: str) -> None:
    with pytest.raises(DataError, match=r"s\.jsonl, line 1: options A and C are the same text, "):
        load_suite(choice_suite(tmp_path, (one, "flu", other), language))


@pytest.mark.parametrize(
    ("one", "other", "language"),
    [
        *(("10²", "102", "en"), ("H₂O", "H2O", "en"), ("½", "1\u20442", "en"), ("①", "1", "en"), ("pH", "PH", "en")),
        *(("頭痛", "头痛", "ja"), ("gout", "gout.", "en"), ("-5", "5", "en")),
    ],
)
def test_options_that_differ_are_taken(tmp_path: Path, one: str, other: str, language: str) -> None:
    assert load_suite(choice_suite(tmp_path, (one, "flu", other), language)).items[0].options == (one, "flu", other)


CUTS = "{% for m in messages %}<|{{ m.role }}|> {{ m.content[:60] }} {% endfor %}" + START
LAST = "<|user|> {{ messages[-1].content }} " + START
# Earlier thoughts go, the answers behind them stay.
FORGETS = "{% for m in messages %}<|{{ m.role }}|> {{ m.content.split('</think>')[-1] }} {% endfor %}" + START
ECHO = "{% for m in messages if m.role == 'user' %}<|user|> {{ m.content }} {% endfor %}Answer yes or no. " + START
# What is made of a list of parts alone shows nothing of a text (Idefics 3).
PARTS = "{% for m in messages %}<|{{ m.role }}|> {% for p in m.content %}{{ p.text }}{% endfor %} {% endfor %}" + START
LONG = "What is gout, and how does it differ from other diseases of the joints?"


@pytest.mark.parametrize(
    ("source", "turns", "lost"),
    [
        (TURNS + START, ["system: Be terse.", f"user: {LONG}"], None),
        (CUTS, ["system: Be terse.", f"user: {LONG}"], (2, "user")),
        (CUTS, [f"system: {LONG}", "user: What is gout?"], (1, "system")),
        (CUTS, ["user: What is gout?", f"assistant: {LONG}", "user: And flu?"], (2, "assistant")),
        (PARTS, [f"user: {LONG}"], (1, "user")),
        (LAST, [f"user: {LONG}", "assistant: A disease.", "user: And flu?"], (1, "user")),
        (LAST, ["user: And flu?"], None),
        # The same words twice, and words that the template has of its own.
        (LAST, ["user: Yes?", "assistant: Yes?", "user: Yes?"], (1, "user")),
        (ECHO, ["user: Which?", "assistant: yes or no", "user: And flu?"], (2, "assistant")),
        (FORGETS, ["user: Which?", "assistant: <think>Gout?</think>Gout", "user: And flu?"], None),
        (LAST, ["user: And flu?", "assistant: <think>Gout?</think>Gout", "user: And flu?"], (1, "user")),
    ],
)
def test_a_template_that_loses_words_is_refused(
    tokenizer: Any, source: str, turns: list[str], lost: tuple[int, str] | None
) -> None:
    parts = [turn.partition(": ") for turn in turns]
    messages: list[dict[str, Any]] = [{"role": role, "content": content} for role, _, content in parts]
    if lost is None:
        assert render(tokenizer, messages, None, source)
        return
    with pytest.raises(DataError, match=f"leaves out or changes message {lost[0]}, of role {lost[1]}"):
        render(tokenizer, messages, None, source)


def test_a_question_that_is_cut_is_named_with_its_line(tokenizer: Any, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, prompt=LONG + " {question}")
    with pytest.raises(DataError, match=r"suite s, .*s\.jsonl, line 1: template t: .* changes message 1, of role user"):
        render_suite(suite, Template("t", CUTS), tokenizer)


def test_a_switch_that_a_system_message_silences_is_refused_in_training_too(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' and thinking is defined and not thinking %}<think> </think> {% endif %}"
        + TURNS
        + START
    )
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    reading = Reading(tokenizer, thinking=False)
    assert "<think>" in tokenizer.decode(reading.read(asked).ids)
    with pytest.raises(DataError, match="no switch for thinking that changes a prompt with a system message"):
        reading.read([{"role": "system", "content": "s"}, *asked])
