"""Where a turn ends, derived from templates of many forms; and which tokens of a dialogue are the response."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from crossmatch.data.chat_templates import probe
from crossmatch.data.prompt_templates import TEMPLATES
from crossmatch.data.responses import Reading, before_response, ending_of, read_responses
from crossmatch.data.row_checks import check_dialogues
from crossmatch.data.training_sets import Dialogue
from crossmatch.data.turn_ends import Stops, declared_eos, turn_end
from crossmatch.errors import DataError
from helpers import WORDS

CHATML = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
# Nothing after the last answer; the next turn begins with a token (GLM-4.5), or with words.
OPEN = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"
WORDY = "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
# A generation prompt that opens a block of thoughts, or closes an empty one, which no whole dialogue has; thoughts go.
OPENED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|> {{ m.content.split('</think>')[-1] }} <|end|>"
    "{% else %}<|{{ m.role }}|> {{ m.content }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> <think> {% endif %}"
)
# The system message stands before the last turn, if that is the user's (Mistral).
MOVED = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|> {% if loop.last and messages[0].role == 'system' %}"
    "{{ messages[0].content }} {% endif %}{{ m.content }} <|im_start|> {% elif m.role == 'assistant' %}{{ m.content }} "
    "<|end|> {% endif %}{% endfor %}"
)
# The same with other white space around marks: "[/INST]" ends the prompt, "[/INST] answer" stands in a dialogue.
SPACED = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}{% for m in messages %}"
    "{% if m.role == 'user' %}<|user|> {{ system ~ ' ' if loop.last and system else '' }}{{ m.content }}<|im_start|>"
    "{% elif m.role == 'assistant' %} {{ m.content }}<|end|>{% endif %}{% endfor %}"
)
# The last question alone is asked; all are learnt from.
FORGETS = (
    "{% for m in (messages[-1:] if add_generation_prompt else messages) %}<|{{ m.role }}|> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
# A block of thoughts in every answer, which the prompt closes (Qwen 3.5 without thinking).
CLOSED = (
    "{% for m in messages %}<|{{ m.role }}|> {% if m.role == 'assistant' %}<think> {{ m.reasoning_content or '' }} "
    "</think> {% endif %}{{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> <think> </think> {% endif %}"
)
# The same, with another beginning of the answer.
LOST = MOVED.replace("{% endfor %}", "{% endfor %}{% if add_generation_prompt %}<think> {% endif %}")


def tokenizer(template: str, eos: str = "<|endoftext|>", **options: Any) -> Any:
    special = ["<pad>", "<unk>", "<|endoftext|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"]
    special += ["<|eot_id|>", "<end_of_turn>", "<|return|>", "<think>", "</think>", "###", "End", "\n"]
    model = Tokenizer(WordLevel({w: i for i, w in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    found = PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token=eos, pad_token="<pad>", unk_token="<unk>", chat_template=template, **options
    )
    found.add_special_tokens({"additional_special_tokens": special[3:11]})
    return found


def demands(what: str) -> str:
    """A template that renders no dialogue without something."""
    return "{% if not (" + what + ") %}{{ raise_exception('demanded') }}{% endif %}" + closed_by("<|end|>")


def closed_by(text: str) -> str:
    return CHATML.replace("<|im_end|>", text)


@pytest.mark.parametrize(
    ("template", "ids", "texts", "following"),
    [
        (CHATML, ["<|im_end|>"], (), []),
        (closed_by("<|eot_id|>"), ["<|eot_id|>"], (), []),
        (closed_by("<end_of_turn>"), ["<end_of_turn>"], (), []),
        (closed_by("{{ eos_token }}"), ["<|endoftext|>"], (), []),
        (closed_by("<|end|>") + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}", ["<|end|>", "<|endoftext|>"], (), []),
        # The message of a turn ends otherwise than the last one (gpt-oss): the token between turns is no place to stop.
        (closed_by("{{ '<|return|>' if loop.last else '<|end|>' }}"), ["<|return|>"], (), []),
        (closed_by("### End"), [], ("### End",), []),
        # What may be part of an answer is no end.
        (closed_by("."), [], (), ["<|im_start|>"]),
        (OPEN, [], (), ["<|user|>"]),
        (WORDY, [], (), []),
        (OPENED, ["<|end|>"], (), []),
        (MOVED, ["<|end|>"], (), []),
        (demands("messages[0].role == 'system'"), ["<|end|>"], (), []),
        (demands("messages[0].role == 'assistant'"), ["<|end|>"], (), []),
        (demands("messages[0].role == 'system' and messages[1].name"), ["<|end|>"], (), []),
        (demands("tools and messages[0].role == 'system'"), ["<|end|>"], (), []),
        (demands("messages[-1].role == 'user' or messages[-1].thinking"), ["<|end|>"], (), []),
        # Demanded, and nothing after an answer: the next turn begins with a token.
        (demands("messages[0].role == 'system'").replace(closed_by("<|end|>"), OPEN), [], (), ["<|user|>"]),
    ],
)  # fmt: skip
def test_the_end_of_a_turn_is_rendered(
    template: str, ids: list[str], texts: tuple[str, ...], following: list[str]
) -> None:
    text = tokenizer(template)
    found = turn_end(text)
    assert text.convert_ids_to_tokens(list(found.ids)) == ids
    assert found.texts == texts
    assert text.convert_ids_to_tokens(list(found.following)) == following
    assert found.taught == bool(ids or texts)
    stops = found.stops(text, {2})
    assert stops.ids == {2, *found.ids, *found.following}
    assert stops.to_dict()["texts"] == list(texts)


def test_a_token_that_the_vocabulary_lacks_ends_a_turn_as_text() -> None:
    found = turn_end(tokenizer(WORDY), closed_by("<|im_over|>"))
    assert (found.ids, found.texts) == ((), ("<|im_over|>",))


def test_a_template_that_renders_no_dialogue_has_no_end() -> None:
    found = turn_end(tokenizer("{{ raise_exception('no') }}"))
    assert found.closing is None
    assert found.stops(tokenizer(WORDY), [2]) == Stops(((2, "<|endoftext|>"),))


def test_every_declared_end_of_sequence(tmp_path: Path) -> None:
    text = tokenizer(CHATML)
    assert declared_eos(tmp_path, text) == {2}
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": None, "text_config": {"eos_token_id": 7}}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 8]}))
    assert declared_eos(tmp_path, text) == {2, 5, 7, 8}


def test_what_training_puts_after_a_response() -> None:
    text, open_end, own = tokenizer(OPEN), turn_end(tokenizer(OPEN)), turn_end(tokenizer(CHATML))
    ids, note = ending_of(text, "auto", open_end)
    assert ids == (2,)
    assert "'<|endoftext|>'" in str(note)
    assert ending_of(text, "auto", own) == ((), None)
    assert ending_of(text, "eos", own) == ((2,), None)
    ids, note = ending_of(text, "template", open_end)
    assert ids == ()
    assert "does not learn" in str(note)
    assert ending_of(text, "<|user|>", open_end) == ((6,), None)
    with pytest.raises(DataError, match="turn_end: 'heart' is not a special token"):
        ending_of(text, "heart", open_end)
    text.eos_token = None
    with pytest.raises(DataError, match="no end of sequence; name a token"):
        ending_of(text, "auto", open_end)


def parted(template: str, turns: list[tuple[str, str]], ending: tuple[int, ...] = ()) -> tuple[str, str, bool]:
    """What stands before the response, what is learnt, and whether a model is asked with the former."""
    text = tokenizer(template)
    found = Reading(text, ending=ending).read([{"role": role, "content": content} for role, content in turns])
    before, learnt = (text.decode(list(ids)) for ids in (found.ids[: found.first], found.ids[found.first :]))
    return before, learnt, found.as_asked


ASKED = [("user", "what is blood"), ("assistant", "a cell")]
SYSTEM = [("system", "answer low"), *ASKED]


def test_the_response_alone_is_learnt() -> None:
    before = "<|im_start|> user what is blood <|im_end|> <|im_start|> assistant"
    assert parted(CHATML, ASKED) == (before, "a cell <|im_end|>", True)
    assert parted(OPEN, ASKED, (2,)) == ("<|user|> what is blood <|assistant|>", "a cell <|endoftext|>", True)
    # An end that is there is not put twice.
    assert parted(closed_by("<|endoftext|>"), ASKED, (2,))[1] == "a cell <|endoftext|>"


def test_a_prompt_that_opens_thoughts_is_not_what_training_sees() -> None:
    assert parted(OPENED, ASKED) == ("<|user|> what is blood <|assistant|>", "a cell <|end|>", False)
    # Earlier thoughts are dropped alike with and without the answer.
    earlier = [("user", "define term"), ("assistant", "<think> okay </think> bone")]
    assert parted(OPENED, [*earlier, *ASKED])[1] == "a cell <|end|>"


def test_a_system_message_that_moves_stays_in_the_prompt_and_out_of_the_loss() -> None:
    before = "<|user|> answer low what is blood <|im_start|>"
    assert parted(MOVED, SYSTEM) == (before, "a cell <|end|>", True)


def test_white_space_around_marks_is_the_prompts() -> None:
    """What is learnt stands behind what a model will be asked with, and no word of the system message is lost."""
    before = "<|user|> answer low what is blood <|im_start|>"
    assert parted(SPACED, SYSTEM) == (before, "a cell <|end|>", True)
    longer = [SYSTEM[0], ("user", "define term"), ("assistant", "bone"), *ASKED]
    assert parted(SPACED, longer)[0].startswith(
        "<|user|> define term <|im_start|> bone <|end|> <|user|> answer low what"
    )
    checked = check_dialogues(tokenizer(SPACED), [Dialogue(tuple(SYSTEM)), Dialogue(tuple(longer))])
    assert len(checked.dialogues) == 2
    # A prompt may end with a space that no dialogue has there, too.
    spaced = SPACED.replace("{{ m.content }}<|im_start|>", "{{ m.content }}<|im_start|>{{ ' ' if loop.last else '' }}")
    text = tokenizer(spaced)
    found = Reading(text).read([{"role": role, "content": content} for role, content in SYSTEM])
    assert found.as_asked


def test_a_thought_is_learnt_where_the_prompt_has_an_empty_one() -> None:
    text = tokenizer(CLOSED)
    messages = [{"role": role, "content": content} for role, content in ASKED]
    found = Reading(text).read([messages[0], {**messages[1], "reasoning_content": "let me see"}])
    learnt = text.decode(list(found.ids[found.first :]))
    assert (learnt, found.as_asked) == ("let me see </think> a cell <|end|>", False)


@pytest.mark.parametrize(
    ("template", "turns", "reason"),
    [
        (FORGETS, [("user", "define term"), ("assistant", "bone"), *ASKED], "'define term' where a model is asked"),
        (LOST, SYSTEM, "leaves out the system's 'answer low' once the answer follows"),
        (OPENED, [ASKED[0], ("assistant", "<think> okay </think> a cell")], "leaves out, or alters, a part of the"),
        (
            "{% for m in messages %}{{ m.content | upper }} {% endfor %}",
            ASKED,
            "alters, a part of the answer: 'a cell'",
        ),
        ("{{ raise_exception('no\n roles') }}", ASKED, "cannot render the dialogue: no roles"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_with_its_row(
    template: str, turns: list[tuple[str, str]], reason: str
) -> None:
    good = Dialogue(tuple(ASKED))
    with pytest.raises(DataError, match=f"row 1: the chat template.*{reason}|row 0: the chat template.*{reason}"):
        read_responses(Reading(tokenizer(template)), [good, Dialogue(tuple(turns))], (99, None), lambda n: f"row {n}")


def test_rows_are_masked_and_a_difference_is_said_once() -> None:
    rows = [Dialogue(tuple(ASKED))] * 3
    columns, note = read_responses(Reading(tokenizer(OPENED)), rows, (99, None), str)
    assert note is not None
    assert note.startswith(
        "note: in 3 of 3 dialogues the chat template puts '<|assistant|>' before the answer, and '<|ass"
    )
    ids, labels = columns["input_ids"][0].tolist(), columns["labels"][0].tolist()
    assert labels == [-100] * 5 + ids[5:]
    assert read_responses(Reading(tokenizer(CHATML)), rows, (99, None), str)[1] is None
    longer = Dialogue((("user", "what is the blood"), ASKED[1]))
    with pytest.raises(
        DataError, match=r"2nd has 12 tokens with its template, max_length is 11; raise max_length to 12"
    ):
        read_responses(Reading(tokenizer(CHATML)), [rows[0], longer], (11, None), ["1st", "2nd"].__getitem__)


@pytest.mark.parametrize(
    "what",
    [
        *("true", "messages[0].role == 'system'", "messages[0].role == 'assistant'", "messages[0].name", "tools"),
        "messages[-1].role == 'user' or messages[-1].reasoning_content",
    ],
)
def test_the_probe_is_one_that_the_template_takes(what: str) -> None:
    text = tokenizer(demands(what))
    seen = before_response(Reading(text))
    assert seen.as_asked
    assert probe(text, None)["token_ids"] == list(seen.asked)
    assert TEMPLATES["own"].probe(text) == probe(text, None)["text"]
