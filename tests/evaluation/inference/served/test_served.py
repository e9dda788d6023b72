"""A served model against a real server on this machine, honest and otherwise."""

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossmatch import Checkpoint
from crossmatch.errors import InputError
from crossmatch.evaluation import Suite, load_suite
from crossmatch.evaluation.comparison.summary import summarise
from crossmatch.evaluation.conditions import conditions_of
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import Decoding, Failed, Generated, item_seed
from crossmatch.evaluation.inference.served.http import Transport, one_line
from crossmatch.evaluation.inference.served.model import Connection, ServedModel
from crossmatch.evaluation.runner.runner import Elsewhere, evaluate_served
from helpers import generated_texts, loglikelihoods, make_chat_model
from local_server import LocalServer, make_bytes_model

ASK = [
    "<|user|> what is blood <|assistant|> ",
    "<|user|> name the very very old disease of the heart <|assistant|> ",
    "<|user|> cell <|assistant|> ",
]
PICK = [["heart", "the disease of the blood"], ["blood", "old cell", "a"], ["heart heart heart", "cell"]]
# Characters that are cut into bytes on both sides of the boundary; a boundary inside a character's first byte.
BYTES = ["Question: what is blood?\nAnswer:", "<|user|>瘙痒是什么？<|assistant|>", "high blood pressure: "]
BYTES_PICK = [[" a low level", " the heart", " new"], ["瘙痒症", "贫血", "blood"], ["heart", "the disease"]]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_chat_model(tmp_path_factory.mktemp("words") / "m", initializer_range=0.2)
    model: Any = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        # Only words are generated: special tokens and numbers beyond the vocabulary have no text to go on from.
        model.lm_head.weight[:8] = 0
        model.lm_head.weight[len(AutoTokenizer.from_pretrained(path)) :] = 0
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bytes_model(tmp_path_factory.mktemp("pieces") / "m")


@pytest.fixture(scope="module")
def engines(words: Path, pieces: Path) -> dict[Path, Engine]:
    """The same models in this process, loaded once."""
    return {path: Engine(Checkpoint(path)) for path in (words, pieces)}


@pytest.fixture
def server(pieces: Path) -> Iterator[LocalServer]:
    with LocalServer(pieces) as local:
        yield local


def client(local: LocalServer, **options: Any) -> ServedModel:
    named = {k: options.pop(k) for k in ("model", "key", "tokenizer") if k in options}
    settings = {"timeout": 5.0, "retries": 2, "pause": 0.01, "parallel": 3, **options}
    named = {"model": "tiny", "tokenizer": local.tokenizer, **named}
    return ServedModel(local.url, connection=Connection(**settings), **named)


def answers(
    model: ServedModel, prompts: list[str], limit: int = 9, decoding: Decoding | None = None, seed: int = 0
) -> list[Any]:
    found: dict[int, Any] = {}
    here = threading.get_ident()

    def done(index: int, value: Generated | Failed) -> None:
        assert threading.get_ident() == here
        assert index not in found
        found[index] = value

    seeds = [item_seed(seed, str(i)) for i in range(len(prompts))]
    model.generate(prompts, limit, decoding or Decoding(), seeds, done)
    return [found[i] for i in range(len(prompts))]


def scores(model: ServedModel, prompts: list[str], options: list[list[str]]) -> list[Any]:
    found: dict[int, Any] = {}
    model.loglikelihoods(prompts, options, found.__setitem__)
    return [found[i] for i in range(len(prompts))]


@pytest.mark.parametrize("kind", ["vllm", "listed", "sglang", "llamacpp", "other"])
@pytest.mark.parametrize("texts", ["words", "pieces"])
def test_the_server_scores_and_answers_as_the_model_in_this_process(
    kind: str, texts: str, engines: dict[Path, Engine], request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(texts)
    prompts, options = (ASK, PICK) if texts == "words" else (BYTES[:2], BYTES_PICK[:2])
    engine = engines[path]
    expected = loglikelihoods(engine, prompts, options)
    with LocalServer(path, kind) as local:
        served = client(local)
        found = scores(served, prompts, options)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-3)
        assert served.notes[0] == "log-likelihoods by " + {"listed": "listed", "llamacpp": "forced"}.get(kind, "echo")
        assert len(served.notes) == 1
        greedy = generated_texts(engine, prompts, 9)
        assert [a.text for a in answers(served, prompts)] == greedy
        assert {a.truncated for a in answers(served, prompts, 2)} == {True}


@pytest.mark.parametrize("kind", ["vllm", "listed", "sglang", "llamacpp", "other"])
@pytest.mark.parametrize("written", ["", "<s>"])
def test_one_beginning_of_sequence_reaches_the_engine(
    pieces: Path, engines: dict[Path, Engine], kind: str, written: str
) -> None:
    prompt = written + BYTES[0]
    engine = engines[pieces]
    with LocalServer(pieces, kind) as local:
        served, seen = client(local), []
        generate = local.generate
        local.generate = lambda ids, request: (seen.append(ids), generate(ids, request))[1]  # type: ignore[method-assign]
        assert [a.text for a in answers(served, [prompt])] == generated_texts(engine, [BYTES[0]], 9)
        (found,) = scores(served, [prompt], [BYTES_PICK[0]])
        assert found == pytest.approx(loglikelihoods(engine, [BYTES[0]], [BYTES_PICK[0]])[0], abs=1e-3)
        asked = [ids for ids in seen if len(ids) > 12]
        assert asked
        assert {ids.count(0) for ids in asked} == {1}
    assert not any("beginning of sequence" in note for note in served.notes)


def test_without_a_tokenizer_an_echo_tells_what_a_server_adds(pieces: Path, engines: dict[Path, Engine]) -> None:
    expected = generated_texts(engines[pieces], BYTES[:2], 9)
    for kind in ("sglang", "other"):
        with LocalServer(pieces, kind) as local:
            served = client(local, tokenizer=None)
            assert [a.text for a in answers(served, ["<s>" + prompt for prompt in BYTES[:2]])] == expected
            assert [a.text for a in answers(served, BYTES[:2])] == expected


def test_only_what_is_asked_for_acts(pieces: Path, engines: dict[Path, Engine]) -> None:
    engine = engines[pieces]
    with LocalServer(pieces, penalty=9.0) as local:
        found = answers(client(local, key="secret"), BYTES)
        assert [a.text for a in found] == generated_texts(engine, BYTES, 9)
        assert {request["key"] for request in local.asked} == {"Bearer secret"}
        assert all(a.tokens == 9 or not a.truncated for a in found)


def test_a_token_that_holds_the_end_of_the_prompt_and_the_beginning_of_an_option(server: LocalServer) -> None:
    prompt, options = "Question: what is the bl", ["ood", "ack", "ood pressure"]
    served = client(server)
    (found,) = scores(served, [prompt], [options])
    assert "1 prompts whose last token also begins an option" in served.notes[-1]
    tokenizer = server.tokenizer
    # " bl" + "ood" is one token " blood": all options are scored from " bl" on.
    before = tokenizer("Question: what is the")["input_ids"]
    for option, value in zip(options, found, strict=True):
        ids = tokenizer(prompt + option)["input_ids"]
        assert ids[: len(before)] == before
        with torch.inference_mode():
            log_p = torch.log_softmax(server.model(torch.tensor([ids])).logits[0].double(), -1)
        expected = sum(float(log_p[i - 1, ids[i]]) for i in range(len(before), len(ids)))
        assert value == pytest.approx(expected, abs=1e-4)


def test_what_is_drawn_depends_on_seed_and_key_alone(server: LocalServer) -> None:
    prompts = ["what is blood"] * 6
    warm = Decoding(temperature=1.0)
    one = [a.text for a in answers(client(server), prompts, 9, warm, 3)]
    assert [a.text for a in answers(client(server, parallel=1), prompts, 9, warm, 3)] == one
    assert len(set(one)) > 3
    assert [a.text for a in answers(client(server), prompts, 9, warm, 4)] != one
    assert len({item_seed(s, k) for s in range(50) for k in "abcdefgh"}) == 400
    assert all(0 <= item_seed(s, "x") < 2**31 for s in range(100))


@pytest.mark.parametrize(
    "fault", ["drop", "hang up", "slow", "drip", "garbage", "429", "503", "list", "error", "two", "none"]
)
def test_faults_that_pass_are_retried(server: LocalServer, fault: str) -> None:
    clean = answers(client(server), BYTES)
    server.faults = [fault, fault]
    served = client(server, parallel=1, timeout=0.3 if fault in ("slow", "drip") else 5.0)
    assert answers(served, BYTES) == clean
    assert server.faults == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("drop", "dropped the connection.*(3 tries)"),
        ("hang up", "dropped the connection"),
        ("slow", "did not answer within 0.3 s"),
        ("drip", "did not answer within 0.3 s"),
        ("garbage", "not JSON"),
        ("503", "answered 503: too busy"),
        ("400", "answered 400: too busy$"),
        ("list", "no JSON object"),
        ("error", "no choices: .*'message'"),
        ("two", "2 choices came for one prompt"),
        ("none", "0 choices"),
        ("aborted", "ended an answer by 'abort'"),
        ("other model", "model 'huge' answered, tiny was asked"),
    ],
)
def test_faults_that_stay_are_failures_with_a_reason(server: LocalServer, fault: str, message: str) -> None:
    server.always = fault
    found = answers(client(server, timeout=0.3 if fault in ("slow", "drip") else 5.0), BYTES)
    for value in found:
        assert isinstance(value, Failed)
        assert "\n" not in value.reason
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(value.reason)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("mute", "does not echo"),
        ("uncounted", "does not say how many tokens"),
        ("nan", "'nan' is no log-probability"),
        ("null", "a log-probability is missing"),
        ("positive", "0.700 is positive"),
        ("text", "'-1.0' is no log-probability"),
        ("short", "log-probabilities and .* alternatives came for"),
        ("left out", "the option's cannot be told|had .* tokens, then"),
        ("above the top", "cannot be: -?0.000 for"),
        ("too much", "sum to 1.72"),
        ("not greedy", "chose .* greedily and gives it -20.000"),
        ("constant", "cannot be: different tokens at one place sum to 1.82"),
        ("shape", "unknown shape"),
        ("other model", "model 'huge' answered"),
        ("500", "answered 500"),
    ],
)
def test_lies_about_one_item_are_failures_of_that_item(server: LocalServer, fault: str, message: str) -> None:
    served = client(server, parallel=1, retries=0)
    honest = scores(served, BYTES[:2], BYTES_PICK[:2])
    server.faults = [fault] * (3 if fault in ("constant", "left out") else 1)
    found = scores(served, BYTES[:2], BYTES_PICK[:2])
    assert isinstance(found[0], Failed)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found[0].reason)
    assert found[1] == honest[1]


def test_readings_that_differ_are_failures(server: LocalServer) -> None:
    served = client(server, parallel=1, retries=0)
    scores(served, BYTES[:1], BYTES_PICK[:1])
    server.faults = ["noise"]
    (found,) = scores(served, BYTES[:1], BYTES_PICK[:1])
    assert isinstance(found, Failed)
    assert "the prompt had others when asked again" in found.reason


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("noise", "log-probabilities that cannot be|had others when asked again"),
        ("early", "log-probabilities that cannot be"),
        ("constant", "log-probabilities that cannot be"),
        ("not greedy", "greedily"),
        ("other model", "model 'huge' answered"),
    ],
)
def test_a_server_that_always_lies_is_refused_before_anything_is_scored(
    server: LocalServer, fault: str, message: str
) -> None:
    server.always = fault
    with pytest.raises(InputError, match=message):
        scores(client(server, retries=0), BYTES, BYTES_PICK)


def test_a_server_without_log_probabilities_is_refused(pieces: Path) -> None:
    with LocalServer(pieces) as local:
        honest = local.complete

        def mute(request: dict[str, Any]) -> dict[str, Any]:
            reply = honest(request)
            reply["choices"][0].pop("prompt_logprobs", None)
            reply["choices"][0]["logprobs"] = None
            return reply

        local.complete = mute  # type: ignore[method-assign]
        with pytest.raises(
            InputError, match="tiny at .* gives no log-likelihoods that can be used; echo: .*; listed: "
        ):
            scores(client(local), BYTES, BYTES_PICK)
        assert all(isinstance(a, Generated) for a in answers(client(local), BYTES))


def test_prompts_that_do_not_fit(server: LocalServer) -> None:
    long = "what is blood " * 100
    found = answers(client(server), [BYTES[0], long])
    assert isinstance(found[0], Generated)
    assert found[1].reason.endswith(
        "answered 400: This model's maximum context length is 200 tokens. You asked for more."
    )
    assert len(server.asked) == 2
    scored = scores(client(server), [BYTES[0], long], [["a", "b"], ["a", "b"]])
    assert isinstance(scored[0], list)
    assert isinstance(scored[1], Failed)


def test_answers_cut_by_the_context_are_failures(server: LocalServer) -> None:
    honest = server.complete
    server.complete = lambda r: honest({**r, "max_tokens": 2})  # type: ignore[method-assign]
    (found,) = answers(client(server), BYTES[:1])
    assert "context was full after 2 of 9 tokens" in found.reason


def test_a_server_that_goes_away(pieces: Path) -> None:
    with LocalServer(pieces) as local:
        served = client(local, parallel=1, retries=1, pause=0.0)
        found: dict[int, Any] = {}

        def done(index: int, value: Any) -> None:
            found[index] = value
            if index == 0:
                local.__exit__()

        served.generate(["what is blood"] * 200, 3, Decoding(), [0] * 200, done)
    assert isinstance(found[0], Generated)
    reasons = [found[i].reason for i in range(2, 200)]
    assert "refuses the connection; is the server up? (2 tries)" in reasons[0]
    assert reasons[-1] == "not asked: the server answered none of the items before"
    # Nobody waits for two hundred dead items.
    assert sum("not asked" in r for r in reasons) > 190


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    served = ServedModel(url, "tiny", connection=Connection(retries=1, pause=0.0))
    for call in (lambda: answers(served, BYTES), lambda: scores(served, BYTES, BYTES_PICK), served.server.require):
        with pytest.raises(InputError, match=f"{url} refuses the connection; is the server up"):
            call()


@pytest.mark.timeout(50)
def test_whoever_waits_for_a_result_may_leave(server: LocalServer) -> None:
    server.faults = ["", "503", "503", "503"]
    served = client(server, parallel=1, pause=60.0)

    def done(index: int, value: Any) -> None:
        del index, value
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        served.generate(BYTES, 3, Decoding(), [0, 1, 2], done)


def test_results_come_as_they_are_made(server: LocalServer) -> None:
    server.faults = ["slow"]
    order: list[int] = []
    client(server, parallel=2).generate(BYTES[:1] * 5, 3, Decoding(), [0] * 5, lambda i, _: order.append(i))
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order[-1] in (0, 1)


def test_retry_after_is_honoured(server: LocalServer) -> None:
    import local_server

    reply = local_server._Handler.reply
    asked: list[float] = []

    def slowly(self: Any, status: int, body: Any, headers: Any = None, fault: str = "") -> None:
        asked.append(time.monotonic())
        reply(self, status, body, {"Retry-After": wish} if status == 429 else headers, fault)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_server._Handler, "reply", slowly)
        wish = "1"
        server.faults = ["429"]
        (found,) = answers(client(server, pause=0.0), BYTES[:1])
        assert isinstance(found, Generated)
        assert asked[-1] - asked[-2] >= 1.0
        wish = "Fri, 01 Jan 2100 00:00:00 GMT"
        server.faults = ["429"]
        (found,) = answers(client(server, pause=0.0), BYTES[:1])
        assert "answered 429: too busy; it asks for" in found.reason


def test_connections_are_used_again_and_a_dead_one_is_noticed(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import local_server

    opened: list[int] = []
    setup = local_server._Handler.setup

    def counted(self: Any) -> None:
        opened.append(1)
        setup(self)

    monkeypatch.setattr(local_server._Handler, "setup", counted)
    monkeypatch.setattr(local_server._Handler, "protocol_version", "HTTP/1.1")
    # The server closes a connection on which nothing comes for so many seconds.
    monkeypatch.setattr(local_server._Handler, "timeout", 1.0)
    served = client(server, parallel=1, retries=0)
    first = answers(served, BYTES, 2)
    assert len(opened) == 1
    time.sleep(1.5)
    assert answers(served, BYTES, 2) == first
    assert len(opened) == 2


def test_names(pieces: Path) -> None:
    with LocalServer(pieces, names=("tiny", "alias", "third")) as local:
        # vLLM answers by the first name of a model, whichever was asked.
        assert all(isinstance(a, Generated) for a in answers(client(local, model="third"), BYTES))
        local.answers_as = "a lora"
        assert all(isinstance(a, Failed) for a in answers(client(local, model="third"), BYTES))
        with pytest.raises(InputError, match="serves tiny, alias, third, not huge; name one of these"):
            answers(client(local, model="huge"), BYTES)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://x:port", "http://me:pw@x", "http://x?a=1"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="is no"):
        ServedModel(url, "tiny")


def test_settings() -> None:
    assert Transport("http://x:1/v1/", None, 1, 0, 0).url == "http://x:1"
    for bad in ({"timeout": 0}, {"retries": -1}, {"parallel": 0}, {"pause": -1.0}):
        with pytest.raises(InputError, match="needs timeout > 0"):
            Connection(**bad)
    assert one_line("a\x1b[2J\nb\t c" + "d" * 400) == "a?[2J b c" + "d" * 290 + "…"
    served = ServedModel("http://x", "tiny")
    served.generate([], 1, Decoding(), [], lambda *_: None)
    served.loglikelihoods([], [], lambda *_: None)
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        served.generate(["a", "b"], 1, Decoding(), [0], lambda *_: None)
    assert math.isfinite(item_seed(0, ""))


def suite_for(out: Path) -> Suite:
    out.mkdir()
    rows = [{"id": str(i), "question": f"what is {'very ' * i}old blood?", "reference": "a cell"} for i in range(5)]
    (out / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / "ask.yaml").write_text(
        "name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 6\nchat: false\n"
    )
    return load_suite(out / "ask.yaml")


def test_only_what_was_not_answered_is_asked_again(server: LocalServer, pieces: Path, tmp_path: Path) -> None:
    suite, tokenizer = suite_for(tmp_path / "suite"), AutoTokenizer.from_pretrained(pieces)
    elsewhere = Elsewhere(client(server, parallel=1), tokenizer, "digest")
    server.faults = ["400", "400"]
    records = evaluate_served(elsewhere, [suite], tmp_path / "out", conditions=conditions_of(["own"], ["greedy"]))
    rows = records["served", "ask", "own.greedy"]
    assert sum("failed" in row for row in rows) == 2
    summary = summarise(records, [elsewhere.variant], [suite], "served")["conditions"]["own.greedy"]["suites"]["ask"]
    assert (summary["n"], summary["asked"], summary["incomplete"]["served"]["failed"]) == (3, 5, 2)

    server.asked.clear()
    again = evaluate_served(elsewhere, [suite], tmp_path / "out")["served", "ask", "own.greedy"]
    asked = {request["prompt"] for request in server.asked if request["max_tokens"] == 6}
    failed = [item for item, row in zip(suite.items, rows, strict=True) if "failed" in row]
    assert asked == {"<s>" + suite.prompt_text(item) for item in failed}
    assert [row["output"] for row in again if row["id"] in {r["id"] for r in rows if "failed" not in r}] == [
        row["output"] for row in rows if "failed" not in row
    ]
    assert not any("failed" in row for row in again)

    server.asked.clear()
    assert evaluate_served(elsewhere, [suite], tmp_path / "out")["served", "ask", "own.greedy"] == again
    assert server.asked == []
