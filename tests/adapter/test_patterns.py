"""Regular expressions of adapters: what Python's matcher finds, in bounded time."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmatch.adapter import AdapterConfig
from crossmatch.adapter.patterns import ends_in, matches
from crossmatch.errors import AdapterError
from mutations import BOMBS

ATOMS = (
    *(
        "a",
        "b",
        ".",
        r"\.",
        "[ab]",
        "[^a]",
        r"\w",
        r"\d",
        r"\W",
        r"[\da]",
        "(a|ab)",
        "(?:b|)",
        "(?=a)",
        "(?!b)",
        "(?<=a)",
    ),
    *("(?<!b)", "^", "$", r"\b", r"\B", r"\A", r"\Z", "[a-b.]", "(?:a|b.)", "(?P<n>b)"),
)
COUNTS = ("", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,3}", "*?", "+?", "??")
NAMES = ("model.layers.0.self_attn.q_proj", "model.visual.blocks.3.mlp.gate_proj", "lm_head")


def group(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    counted = st.tuples(inner.map("({})".format), st.sampled_from(COUNTS)).map("".join)
    return st.lists(counted | PIECES, min_size=1, max_size=3).map("".join) | st.tuples(inner, inner).map("|".join)


PIECES = st.tuples(st.sampled_from(ATOMS), st.sampled_from(COUNTS)).map("".join)


@settings(max_examples=400, deadline=None)
@given(pattern=st.recursive(PIECES, group, max_leaves=5), text=st.text("ab.1", min_size=1, max_size=7))
def test_finds_what_python_finds(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            whole, end = re.compile(pattern), re.compile(rf"(.*\.)?({pattern})$")
        except re.error:
            return
    assert matches(pattern, text) == (whole.fullmatch(text) is not None)
    assert ends_in(pattern, text) == (end.match(text) is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.layers\.(\d+)\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj",
        r"^(?!.*visual).*\.(q_proj|gate_proj)$",
        r"(?:.*?(?:language|text|layers).*?(?:self_attn|mlp).*?(?:q_proj|gate_proj).*?)|(?:\blm_head)",
        r"^(model\.visual(?=\.).*\.(gate_proj))$",
        "lm_head",
        "q.proj",
    ],
)
def test_patterns_of_real_adapters(pattern: str) -> None:
    for name in NAMES:
        assert matches(pattern, name) == (re.fullmatch(pattern, name) is not None)
        assert ends_in(pattern, name) == (re.match(rf"(.*\.)?({pattern})$", name) is not None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", [*BOMBS, "((((a*b)*c)*d)*e)*!", "(a|a)*b", "(?=.*.*.*x)" * 20, "(x?){5000}y{5000}"])
def test_bombs_do_not_go_off(pattern: str) -> None:
    for text in ("a" * 1000, "model.layers.10.self_attn.q_proj" * 20, "abababacabacbad" * 60):
        config = AdapterConfig(r=8, alpha=1.0, rank_pattern={pattern: 4}, targets=pattern, saved=(pattern,))
        try:
            # Nothing is targeted that does not match.
            assert matches(pattern, text) or not config.targeted(text)
        except AdapterError as error:
            assert re.search("takes too long|is no regular expression", str(error))  # noqa: PT017


def test_what_is_no_expression_is_refused_and_all_others_are_read() -> None:
    for pattern in ("(?a)(?u)x", "(", "[z-a]", "(" * 5000, "x" * 30_000 + "*"):
        with pytest.raises(AdapterError):
            matches(pattern, "aa")
    with pytest.raises(AdapterError, match="takes too long"):
        matches("(a|aa)+$", "a" * 60 + "!")
    # Back-references and atomic groups.
    for pattern in (r"(a)\1", "(?>a+)", "a++"):
        assert matches(pattern, "aa")
        assert not matches(pattern, "ab")


FLAGGED = (
    "a",
    "B",
    ".",
    "[a-c]",
    "[^A]",
    r"\w",
    "ſ",
    "k",
    "[A-Z]",
    "(?-i:a)",
    "(?i:b)",
    "(?s:.)",
    r"(?a:\w)",
    "^",
    "$",
)
FLAGGED += (r"\b", "\n", "é", "[é-ü]", "(?m:$)", "(?m:^)", "(?a:[éa])")
LINES = ("aB", "Ab", "K", "\u212a", "s", "ſ", "é", "É", "a\nb", "A1", "b.", "aa\n", "_", "\nB")


@settings(max_examples=600, deadline=None)
@given(
    flags=st.sampled_from(["(?i)", "(?s)", "(?m)", "(?a)", "(?ia)", "(?ms)", "(?x)", "(?imsx)"]),
    items=st.lists(st.tuples(st.sampled_from(FLAGGED), st.sampled_from(COUNTS)).map("".join), min_size=1, max_size=3),
    text=st.sampled_from(LINES),
)
def test_flags_mean_what_they_mean_to_python(flags: str, items: list[str], text: str) -> None:
    pattern = flags + "".join(items)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            whole = re.compile(pattern)
        except re.error:
            return
    if "(?a:" in pattern and not text.isascii():
        with pytest.raises(AdapterError, match="flags for a part of it"):
            matches(pattern, text)
        return
    assert matches(pattern, text) == (whole.fullmatch(text) is not None)


def test_layers_follow_the_stack_that_is_named() -> None:
    config = AdapterConfig(r=8, alpha=1.0, targets=("q_proj",), layers=(3,), layers_pattern=("layers",))
    assert config.targeted("model.layers.3.self_attn.q_proj")
    assert not config.targeted("model.layers.4.self_attn.q_proj")
    assert not config.targeted("model.blocks.3.self_attn.q_proj")
    config = AdapterConfig(r=8, alpha=1.0, targets=("q_proj",), layers=(3,))
    assert config.targeted("model.blocks.3.self_attn.q_proj")
    assert not config.targeted("model.blocks.30.self_attn.q_proj")
