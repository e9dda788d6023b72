"""What lies beside the weights: every fault made for real, and honest exports that are none."""

import json
import os
import resource
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from crossmatch import Adapter, Checkpoint
from crossmatch.errors import CheckpointError
from crossmatch.study.sample import model_file
from crossmatch.verification.faults import FAULTS, NOTES
from crossmatch.verification.files import config as configs
from crossmatch.verification.files.config import changed_config
from crossmatch.verification.files.directory import Directory, inspect_directory
from crossmatch.verification.files.sandbox import render
from helpers import EVERY_CELL, copy, make_adapter, make_llama
from one_child import OneChild

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
EOS = 2
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# A reasoning model's: thoughts leave the history, and the switch puts an empty block before the answer.
THINKER = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- if tools %}
    {{- '<|im_start|>system\\nTools: ' + tools | tojson + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {%- set text = m.content %}
        {%- set thought = m.reasoning_content if m.reasoning_content is string else '' %}
        {%- if '</think>' in text %}
            {%- set thought = text.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set text = text.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 == ns.last and thought %}
            {{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- text + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def small_tokenizer(template: str | None, words: int = 400, **special: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on a few sentences, with the special tokens of ChatML."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = ByteLevelDecoder()  # type: ignore[assignment]
    trainer = BpeTrainer(
        vocab_size=words,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["The patient presents with anaemia and the heart is failing. " * 20], trainer)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **names)


def make(out: Path, template: str = CHATML) -> Path:
    make_llama(out, vocab_size=448, eos_token_id=EOS, bos_token_id=1, pad_token_id=0)
    small_tokenizer(template).save_pretrained(out)
    GenerationConfig(do_sample=True, temperature=0.7, top_p=0.8, eos_token_id=[EOS, 0], pad_token_id=0).save_pretrained(
        out
    )
    return out


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a ChatML template; an adapter with no tokenizer, one with the thinker's, one with the base's."""
    root = tmp_path_factory.mktemp("bench")
    make(root / "base")
    make_adapter(root / "base", root / "plain", seed=1)
    for name, template in (("chatml", CHATML), ("thinker", THINKER)):
        copy(root / "plain", root / name)
        small_tokenizer(template).save_pretrained(root / name)
    copy(root / "base", root / "thinking")
    small_tokenizer(THINKER).save_pretrained(root / "thinking")
    return root


@pytest.fixture
def out(bench: Path, tmp_path: Path) -> Path:
    return copy(bench / "base", tmp_path / "out")


@pytest.fixture
def thinking(bench: Path, tmp_path: Path) -> Path:
    return copy(bench / "thinking", tmp_path / "thinking")


def look(bench: Path, merged: Path, *adapters: str, source: str | None = None, base: Path | None = None) -> Directory:
    vectors = {name: Adapter(bench / name) for name in adapters or ("plain",)}
    return inspect_directory(Checkpoint(merged), Checkpoint(base or bench / "base"), vectors, source)


def faults(found: Directory) -> list[str]:
    assert all(f.fault in FAULTS and f.evidence for f in found.findings)
    assert set(found.notes) <= set(NOTES)
    return [f.fault for f in found.findings]


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(file.read_text())
    changed = change(value)
    file.write_text(json.dumps(value if changed is None else changed))


def test_a_faithful_copy_has_no_findings(bench: Path, out: Path) -> None:
    found = look(bench, out)
    assert (faults(found), found.notes, found.not_checked) == ([], (), ())
    assert set(found.checked) == {
        *("tokenizer", "chat_template", "eos", "generation_config", "vocabulary", "config", "weight_files")
    }


def test_honest_saves_by_transformers_have_no_findings(bench: Path, out: Path, thinking: Path) -> None:
    for merged, adapter in ((out, "chatml"), (thinking, "thinker")):
        AutoTokenizer.from_pretrained(merged).save_pretrained(merged)
        AutoConfig.from_pretrained(merged).save_pretrained(merged)
        GenerationConfig.from_pretrained(merged).save_pretrained(merged)
        found = look(bench, merged, adapter)
        assert (faults(found), found.notes) == ([], ())


def reformatted(directory: Path) -> None:
    """tokenizer.json as older versions write it: merges as texts, other order, other white space."""
    value = json.loads((directory / "tokenizer.json").read_text())
    value["model"]["merges"] = [" ".join(pair) for pair in value["model"]["merges"]]
    value["model"]["vocab"] = dict(sorted(value["model"]["vocab"].items()))
    value["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (directory / "tokenizer.json").write_text(json.dumps(dict(reversed(value.items())), indent=1))


def test_another_form_of_the_same_tokenizer_is_no_fault(bench: Path, out: Path) -> None:
    before = (out / "tokenizer.json").read_bytes()
    reformatted(out)
    assert (out / "tokenizer.json").read_bytes() != before
    assert faults(look(bench, out)) == []


def lose_merge(value: dict[str, Any]) -> None:
    value["model"]["merges"].pop()


def swap_tokens(value: dict[str, Any]) -> None:
    vocab = value["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]


def normalise(value: dict[str, Any]) -> None:
    value["normalizer"] = {"type": "Lowercase"}


def begin(value: dict[str, Any]) -> None:
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }


def unspecial(value: dict[str, Any]) -> None:
    value["added_tokens"][3]["lstrip"] = True


@pytest.mark.parametrize("change", [lose_merge, swap_tokens, normalise, begin, unspecial])
def test_another_tokenizer(bench: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit(out / "tokenizer.json", change)
    assert faults(look(bench, out)) == ["tokenizer-changed"]


def replace_word(value: dict[str, Any]) -> None:
    value["normalizer"] = {"type": "Replace", "pattern": {"String": "kidney"}, "content": "bone"}


def replace_common_word(value: dict[str, Any]) -> None:
    value["normalizer"] = {"type": "Replace", "pattern": {"Regex": "he[a]rt"}, "content": "bone"}


def decode_otherwise(value: dict[str, Any]) -> None:
    replace = {"type": "Replace", "pattern": {"String": "heart"}, "content": "bone"}
    value["decoder"] = {"type": "Sequence", "decoders": [replace, value["decoder"]]}


@pytest.mark.parametrize("change", [replace_word, replace_common_word, decode_otherwise])
def test_a_tokenizer_that_changes_a_word(bench: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit(out / "tokenizer.json", change)
    assert faults(look(bench, out)) == ["tokenizer-changed"]


def test_a_tokenizer_written_otherwise_is_a_note(bench: Path, out: Path) -> None:
    def nothing(value: dict[str, Any]) -> None:
        value["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[x]qzt"}, "content": "bone"}

    edit(out / "tokenizer.json", nothing)
    found = look(bench, out)
    assert (faults(found), found.notes) == ([], ("tokenizer-rewritten",))
    assert found.noted["tokenizer-rewritten"] == "normalizer, against base"


def test_a_missing_or_broken_tokenizer(bench: Path, out: Path) -> None:
    for text in ("{}", "[" * 100_000, "no JSON", '{"model": {"type": "BPE", "vocab": {}, "merges": [["a"]]}}'):
        (out / "tokenizer.json").write_text(text)
        found = look(bench, out)
        assert faults(found) == ["tokenizer-changed"]
        assert "cannot be loaded" in found.findings[0].evidence
    (out / "tokenizer.json").unlink()
    assert faults(look(bench, out)) == ["tokenizer-changed"]


def test_tokens_that_only_the_config_adds(bench: Path, out: Path) -> None:
    """Loaders add what tokenizer_config.json declares: the texts get other ids, though tokenizer.json is the same."""
    edit(out / "tokenizer_config.json", lambda c: c.update(added_tokens_decoder={"500": {"content": "anaemia"}}))
    assert len(AutoTokenizer.from_pretrained(out)("anaemia")["input_ids"]) == 1
    assert faults(look(bench, out)) == ["tokenizer-changed"]


def test_slow_tokenizers_are_compared_by_digest(bench: Path, tmp_path: Path) -> None:
    for name in ("base", "out"):
        copy(bench / "base", tmp_path / name)
        (tmp_path / name / "tokenizer.json").unlink()
        (tmp_path / name / "tokenizer.model").write_bytes(b"pieces")
    found = look(bench, tmp_path / "out", base=tmp_path / "base")
    assert faults(found) == []
    assert "tokenizer: slow tokenizer without tokenizer.json, compared by digest only" in found.not_checked
    (tmp_path / "out" / "tokenizer.model").write_bytes(b"others")
    assert faults(look(bench, tmp_path / "out", base=tmp_path / "base")) == ["tokenizer-changed"]


def test_whose_template_it_should_be(bench: Path, out: Path, thinking: Path) -> None:
    pass_ = look(bench, thinking, "plain", "thinker")
    assert (faults(pass_), pass_.notes) == ([], ())
    # The one that carries the base's template along was not trained with another; the thinker was.
    either = look(bench, copy(bench / "base", thinking.parent / "either"), "chatml", "thinker")
    assert "think-template-mismatch" in faults(either)
    assert "chat-template-changed" in faults(look(bench, thinking, "thinker", source="base"))
    assert faults(look(bench, thinking, "chatml", "thinker", source="thinker")) == []
    stranger = look(bench, thinking, "thinker", source="../../etc")
    assert (faults(stranger), stranger.notes) == ([], ("source-unknown",))


def test_a_lost_template(bench: Path, out: Path) -> None:
    (out / "chat_template.jinja").unlink()
    assert "chat-template-changed" in faults(look(bench, out))


def test_a_template_by_any_name_is_the_same(bench: Path, out: Path) -> None:
    (out / "chat_template.jinja").unlink()
    field = out / "tokenizer_config.json"
    for value in (CHATML, [{"name": "default", "template": CHATML}], {"default": CHATML}):
        edit(field, lambda c, value=value: c.update(chat_template=value))
        assert AutoTokenizer.from_pretrained(out).chat_template in (CHATML, {"default": CHATML})
        assert faults(look(bench, out)) == []
    # Another way to write the same text.
    (out / "chat_template.jinja").write_text(CHATML.replace("m.role", "m['role']") + "{# #}")
    found = look(bench, out)
    assert (faults(found), found.notes) == ([], ("two-chat-templates", "chat-template-rewritten"))


def test_the_file_wins_over_the_field(bench: Path, out: Path) -> None:
    edit(out / "tokenizer_config.json", lambda c: c.update(chat_template=CHATML))
    (out / "chat_template.jinja").write_text(CHATML.replace("im_start|>assistant", "im_start|>model"))
    assert "model" in AutoTokenizer.from_pretrained(out).chat_template
    assert faults(look(bench, out)) == ["chat-template-changed"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'<|im_end|>\\n' }}\n{%- endif %}\n{%- if tools", "'<|im_end|>' }}\n{%- endif %}\n{%- if tools"),
        ("loop.index0 == ns.last and thought", "thought"),
        ("Tools: ", "Tools:\\n"),
        ("text.split('</think>')[-1].lstrip('\\n')", "text"),
    ],
)
def test_another_template(bench: Path, thinking: Path, old: str, new: str) -> None:
    assert old in THINKER
    (thinking / "chat_template.jinja").write_text(THINKER.replace(old, new))
    assert faults(look(bench, thinking, "thinker")) == ["chat-template-changed"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("m.content +", "m.content | replace('kidney', 'bone') +"),
        ("{% if add", "{% if messages[-1].content == 'xqzt' %}no{% endif %}{% if add"),
        ("{% if add", "{% if 'xqzt' in messages[0].content %}no{% endif %}{% if add"),
        ("{% if add", "{% if messages|length > 20 %}no{% endif %}{% if add"),
    ],
)
def test_a_template_that_waits_for_something(bench: Path, out: Path, old: str, new: str) -> None:
    (out / "chat_template.jinja").write_text(CHATML.replace(old, new))
    assert faults(look(bench, out)) == ["chat-template-changed"]


def test_a_template_written_otherwise_is_a_note(bench: Path, out: Path) -> None:
    (out / "chat_template.jinja").write_text(CHATML.replace("m.content", "(m.content)"))
    found = look(bench, out)
    assert (faults(found), found.notes) == ([], ("chat-template-rewritten",))
    (out / "chat_template.jinja").write_text(CHATML + "\n")
    assert look(bench, out).notes == ()


@pytest.mark.parametrize(
    ("block", "opened"), [("<think>\\n", "open"), ("[THINK]", "open"), ("<think>\\n\\n</think>\\n\\n", "closed")]
)
def test_a_generation_prompt_that_thinks(bench: Path, out: Path, block: str, opened: str) -> None:
    template = CHATML.replace("'<|im_start|>assistant\n'", f"'<|im_start|>assistant\n{block}'")
    (out / "chat_template.jinja").write_text(template)
    found = look(bench, out)
    assert faults(found) == ["think-template-mismatch"]
    assert f"an {opened}" in found.findings[0].evidence or f"a {opened}" in found.findings[0].evidence
    (out / "chat_template.jinja").write_text(template.replace("m.content +", "m.content + ' ' +"))
    assert faults(look(bench, out)) == ["think-template-mismatch", "chat-template-changed"]


def test_a_thinking_switch_that_was_lost_or_reversed(bench: Path, thinking: Path) -> None:
    file = thinking / "chat_template.jinja"
    file.write_text(THINKER.replace("enable_thinking is false", "enable_thinking is true"))
    found = look(bench, thinking, "thinker")
    assert faults(found) == ["think-template-mismatch"]
    assert "enable_thinking=" in found.findings[0].evidence
    file.write_text(THINKER.replace("enable_thinking is defined and enable_thinking is false", "false"))
    found = look(bench, thinking, "thinker")
    assert faults(found) == ["think-template-mismatch"]
    assert "enable_thinking=False" in found.findings[0].evidence
    assert "no reasoning block here, a closed reasoning block in adapter thinker" in found.findings[0].evidence


def children() -> float:
    """CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "hostile",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 'a' * 10**6 }}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% include '/etc/passwd' %}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{% if %}",
    ],
)
def test_hostile_templates_end_soon_and_say_nothing(hostile: str) -> None:
    before = children()
    answer = render(hostile, {}, [{"messages": []}])
    assert answer[0].text is None
    assert answer[0].error is not None
    assert children() - before < 8


def test_a_hostile_template_in_the_merge_is_a_finding(bench: Path, out: Path) -> None:
    for hostile in ("{{ 'a' * 10**9 }}", "x" * 10_000_001):
        (out / "chat_template.jinja").write_text(hostile)
        assert "chat-template-changed" in faults(look(bench, out))


def test_a_child_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    seen: dict[str, Any] = {}
    plain = subprocess.run

    def watch(*arguments: Any, **options: Any) -> Any:
        seen.update(options["env"])
        return plain(*arguments, **options)

    monkeypatch.setenv("HF_TOKEN", "a secret")
    monkeypatch.setattr(subprocess, "run", watch)
    assert render("{{ 1 + 1 }}", {}, [{}])[0].text == "2"
    assert seen
    assert "HF_TOKEN" not in seen


def test_end_tokens_that_disagree(bench: Path, out: Path) -> None:
    generation, config = out / "generation_config.json", out / "config.json"
    edit(generation, lambda c: c.update(eos_token_id=0))
    found = look(bench, out)
    assert faults(found) == ["eos-mismatch", "generation-config-changed"]
    assert "'<|im_end|>' (2)" in found.findings[0].evidence
    assert "after an answer" in found.findings[0].evidence
    edit(generation, lambda c: c.update(eos_token_id=[0, EOS]))
    edit(config, lambda c: c.update(eos_token_id=7))
    found = look(bench, out)
    assert faults(found) == ["eos-mismatch"]
    assert "config.json ends at [7]" in found.findings[0].evidence


def test_an_end_of_turn_that_nothing_stops_at(bench: Path, tmp_path: Path) -> None:
    """The usual mistake: an SFT template ends turns with a token that the base, a text model, does not stop at."""
    base = make(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    small_tokenizer(None, eos_token="<|endoftext|>").save_pretrained(base)
    for name in ("config.json", "generation_config.json"):
        edit(base / name, lambda c: c.update(eos_token_id=0))
    merged = copy(base, tmp_path / "out")
    assert faults(look(bench, merged, base=base)) == []
    (merged / "chat_template.jinja").write_text(CHATML)
    found = look(bench, merged, base=base)
    assert (faults(found), found.notes) == (["eos-mismatch"], ("chat-template-added",))
    # The remedy that the fault names.
    edit(merged / "generation_config.json", lambda c: c.update(eos_token_id=[0, EOS]))
    assert faults(look(bench, merged, base=base)) == []


def test_a_turn_that_never_ends(bench: Path, out: Path) -> None:
    (out / "chat_template.jinja").write_text(CHATML.replace("<|im_end|>", ""))
    assert faults(look(bench, out)) == ["chat-template-changed", "eos-mismatch"]


def test_the_bases_own_disagreements_are_notes(bench: Path, tmp_path: Path) -> None:
    base = copy(bench / "base", tmp_path / "base")
    edit(base / "generation_config.json", lambda c: c.update(eos_token_id=0))
    edit(base / "config.json", lambda c: c.update(vocab_size=449))
    found = look(bench, copy(base, tmp_path / "out"), base=base)
    assert (faults(found), found.notes) == ([], ("eos-mismatch-in-base", "vocab-mismatch-in-base"))


def test_tokens_without_rows(bench: Path, out: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(out)
    tokenizer.add_tokens([f"<extra{i}>" for i in range(448 - len(tokenizer) + 1)])
    tokenizer.save_pretrained(out)
    found = look(bench, out)
    assert faults(found) == ["tokenizer-changed", "vocab-mismatch"]
    assert "the embedding 448 rows" in found.findings[1].evidence


def test_a_vocabulary_size_that_is_not_the_embeddings(bench: Path, out: Path) -> None:
    edit(out / "config.json", lambda c: c.update(vocab_size=512))
    assert set(faults(look(bench, out))) == {"vocab-mismatch", "config-changed"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 1.5), ("do_sample", False), ("top_k", 5), ("max_new_tokens", 9), ("repetition_penalty", 1.3)],
)
def test_another_generation_config(bench: Path, out: Path, field: str, value: Any) -> None:
    edit(out / "generation_config.json", lambda c: c.update({field: value}))
    found = look(bench, out)
    assert faults(found) == ["generation-config-changed"]
    assert found.findings[0].where == (field,)


def test_generation_configs_that_say_the_same(bench: Path, out: Path, tmp_path: Path) -> None:
    file = out / "generation_config.json"
    edit(file, lambda c: c.update(transformers_version="4.1", _from_model_config=True, top_k=50, eos_token_id=[0, EOS]))
    assert faults(look(bench, out)) == []
    file.unlink()
    found = look(bench, out)
    assert faults(found) == ["generation-config-changed"]
    assert "the file is missing" in found.findings[0].evidence
    base = copy(bench / "base", tmp_path / "base")
    GenerationConfig(eos_token_id=EOS).save_pretrained(base)
    assert faults(look(bench, out, base=base)) == []


def test_an_adapters_generation_config_is_as_good(bench: Path, out: Path, tmp_path: Path) -> None:
    adapter = copy(bench / "plain", tmp_path / "sft")
    GenerationConfig(temperature=0.1, do_sample=True, eos_token_id=[EOS, 0]).save_pretrained(adapter)
    GenerationConfig(temperature=0.1, do_sample=True, eos_token_id=[EOS, 0]).save_pretrained(out)
    assert faults(look(bench, out)) == ["generation-config-changed"]
    vectors = {"sft": Adapter(adapter)}
    assert faults(inspect_directory(Checkpoint(out), Checkpoint(bench / "base"), vectors)) == []


def test_a_tie_that_is_no_longer_true(bench: Path, out: Path) -> None:
    edit(out / "config.json", lambda c: c.update(tie_word_embeddings=True))
    assert set(faults(look(bench, out))) == {"tie-flag-stale", "config-changed"}
    file = out / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file)
    assert faults(look(bench, out)) == ["config-changed"]


def test_an_adapter_that_was_left_behind(bench: Path, out: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (out / name).write_bytes((bench / "plain" / name).read_bytes())
    found = look(bench, out)
    assert faults(found) == ["adapter-left-behind"]
    assert found.findings[0].where == ("adapter_config.json", "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("names", "fault", "note"),
    [
        (["pytorch_model.bin"], False, True),
        (["tf_model.h5"], False, True),
        (["model.gguf"], False, True),
        (["consolidated.00.pth"], False, True),
        (["consolidated.00.pth", "params.json"], True, False),
        (["consolidated.safetensors"], True, False),
        (["model-00001-of-00002.safetensors"], True, False),
        (["model.safetensors.index.json"], True, False),
        (["training_args.bin", "optimizer.pt"], False, False),
    ],
)
def test_other_weights(bench: Path, out: Path, names: list[str], fault: bool, note: bool) -> None:
    for name in names:
        (out / name).write_bytes(b"{}")
    found = look(bench, out)
    assert ("two-weight-sets" in faults(found)) == fault
    assert ("other-weights-beside" in found.notes) == note


LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "vocab_size": 300,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "pretraining_tp": 1,
    "max_position_embeddings": 2048,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "transformers_version": "4.43.0",
    "_name_or_path": "somewhere",
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "llama 3": {**LLAMA, "rope_scaling": {**LLAMA3, "rope_type": "llama3"}},
    "llama 2, linear": {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "qwen 2": {
        **LLAMA,
        "model_type": "qwen2",
        "use_sliding_window": False,
        "sliding_window": 32768,
        "max_window_layers": 21,
        "tie_word_embeddings": True,
    },
    "qwen 3": {**LLAMA, "model_type": "qwen3", "head_dim": 32, "rope_scaling": None, "sliding_window": None},
    "qwen 3 moe": {
        **LLAMA,
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "moe_intermediate_size": 32,
        "mlp_only_layers": [],
        "decoder_sparse_step": 1,
    },
    "mixtral": {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {**LLAMA, "model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": None},
    "gemma 3": {
        **LLAMA,
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": 1000000,
        "rope_local_base_freq": 10000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "head_dim": 16,
    },
    "gpt 2": {
        "model_type": "gpt2",
        "n_embd": 64,
        "n_head": 4,
        "n_layer": 2,
        "n_ctx": 64,
        "n_positions": 64,
        "vocab_size": 300,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "eos_token_id": 2,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    },
    "qwen 2.5 vl": {
        **LLAMA,
        "model_type": "qwen2_5_vl",
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {"depth": 2, "hidden_size": 64, "in_chans": 3, "torch_dtype": "bfloat16"},
    },
}


def with_config(root: Path, name: str, config: dict[str, Any]) -> Checkpoint:
    directory = root / name
    directory.mkdir()
    save_file({"x": torch.zeros(1)}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return Checkpoint(directory)


@lru_cache
def saved_again(name: str) -> str:
    """A config as the installed transformers saves it."""
    with tempfile.TemporaryDirectory() as scratch:
        base = with_config(Path(scratch), "base", CONFIGS[name])
        AutoConfig.from_pretrained(base.path).save_pretrained(Path(scratch) / "saved")
        return (Path(scratch) / "saved" / "config.json").read_text()


def changed_as(case: str) -> dict[str, Any]:
    """A config that was saved again, with the case's change."""
    name, change, _ = CHANGES[case]
    saved = json.loads(saved_again(name))
    change(saved)
    return saved


@pytest.fixture(scope="module")
def child() -> OneChild:
    every = [*CONFIGS.values(), *(json.loads(saved_again(name)) for name in CONFIGS), *map(changed_as, CHANGES)]
    return OneChild(lambda: every)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_saved_again_are_the_same(
    tmp_path: Path, name: str, child: OneChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configs, "resolve", child)
    base = with_config(tmp_path, "base", CONFIGS[name])
    saved = json.loads(saved_again(name))
    assert saved != CONFIGS[name]
    merged = with_config(tmp_path, "out", saved)
    assert changed_config(merged, base) == []
    assert changed_config(base, merged) == []


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "heads": ("llama", lambda c: c.update(num_attention_heads=8), "num_attention_heads"),
    "epsilon lost": ("llama", lambda c: c.pop("rms_norm_eps"), "rms_norm_eps"),
    "theta": ("llama", lambda c: c["rope_parameters"].update(rope_theta=10000.0), "rope_parameters.rope_theta"),
    "scaling lost": (
        "llama 3",
        lambda c: c.update(rope_parameters={"rope_theta": 500000.0, "rope_type": "default"}),
        "rope_parameters.rope_type",
    ),
    "factor": ("llama 2, linear", lambda c: c["rope_parameters"].update(factor=4.0), "rope_parameters.factor"),
    "scaling gained": (
        "qwen 3",
        lambda c: c["rope_parameters"].update(rope_type="yarn", factor=4.0),
        "rope_parameters.rope_type",
    ),
    "experts": ("qwen 3 moe", lambda c: c.update(num_local_experts=8), "num_experts"),
    "nested": ("qwen 2.5 vl", lambda c: c["vision_config"].update(depth=3), "vision_config.depth"),
    "text": ("qwen 2.5 vl", lambda c: c["text_config"].update(rms_norm_eps=1.0), "rms_norm_eps"),
    "sliding": ("qwen 2", lambda c: c.update(use_sliding_window=True), "use_sliding_window"),
    "not a number": ("llama", lambda c: c.update(rms_norm_eps=float("nan")), "rms_norm_eps"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_configs_of_other_models_are_not(
    tmp_path: Path, case: str, child: OneChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configs, "resolve", child)
    name, _, field = CHANGES[case]
    base = with_config(tmp_path, "base", CONFIGS[name])
    assert field in changed_config(with_config(tmp_path, "out", changed_as(case)), base)


def test_a_missing_or_absurd_config(bench: Path, out: Path) -> None:
    (out / "config.json").write_text('{"a":' * 200 + "1" + "}" * 200)
    with pytest.raises(CheckpointError, match="nested deeper"):
        look(bench, out)
    (out / "config.json").unlink()
    assert "config-changed" in faults(look(bench, out))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 50_000, '{"eos_token_id": NaN', '{"a":' * 300 + "1" + "}" * 300, " " * 10_000_001, "\ud800"],
)
@pytest.mark.parametrize(
    ("name", "fault"),
    [("generation_config.json", "generation-config-changed"), ("tokenizer_config.json", "tokenizer-changed")],
)
def test_small_files_that_cannot_be_read_are_findings(bench: Path, out: Path, name: str, fault: str, text: str) -> None:
    (out / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    found = look(bench, out)
    assert fault in faults(found)
    assert "cannot be read" in next(f.evidence for f in found.findings if f.fault == fault)


def test_fields_of_any_type_raise_nothing(bench: Path, out: Path) -> None:
    names = ("eos_token", "chat_template", "added_tokens_decoder", "tokenizer_class")
    every = (None, 3, [], {}, [[]], {"a": []}, "x", [{"name": 1}], {"9" * 5000: "y"})
    # Each look starts the children that load tokenizers: of every fourth value, and of all where all is run.
    for junk in every if EVERY_CELL else every[::4]:
        edit(out / "tokenizer_config.json", lambda c, junk=junk: c.update(dict.fromkeys(names, junk)))
        edit(out / "generation_config.json", lambda c, junk=junk: c.update(eos_token_id=junk, temperature=junk))
        edit(
            out / "config.json",
            lambda c, junk=junk: c.update(eos_token_id=junk, vocab_size=junk, text_config=junk, rope_parameters=junk),
        )
        found = look(bench, out)
        assert "config-changed" in faults(found), junk
        assert {"tokenizer", "config", "weight_files"} <= set(found.checked), junk


def test_what_is_no_file_is_not_waited_for(bench: Path, out: Path) -> None:
    for name in ("generation_config.json", "tokenizer.json", "chat_template.jinja"):
        (out / name).unlink()
        os.mkfifo(out / name)
    assert {"generation-config-changed", "tokenizer-changed", "chat-template-changed"} <= set(faults(look(bench, out)))


@pytest.mark.slow
def test_a_real_tokenizer_saved_again(bench: Path, tmp_path: Path) -> None:
    """SmolLM2's own, with its own template."""
    file = model_file()
    make_llama(tmp_path / "base", vocab_size=49152, hidden_size=16, intermediate_size=16, eos_token_id=EOS)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(tmp_path / "base")
    merged = copy(tmp_path / "base", tmp_path / "out")
    reformatted(merged)
    AutoTokenizer.from_pretrained(merged).save_pretrained(merged)
    found = look(bench, merged, base=tmp_path / "base")
    assert (faults(found), found.notes, found.not_checked) == ([], (), ())
    edit(merged / "tokenizer.json", lose_merge)
    assert faults(look(bench, merged, base=tmp_path / "base")) == ["tokenizer-changed"]
