"""Whether a server runs the model that it should, and its model beside others in one evaluation."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossmatch import Checkpoint
from crossmatch.cli import run
from crossmatch.errors import InputError
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.served.identity import (
    Local,
    alike,
    ask_own,
    check_still,
    identify,
    probes_of,
    settled,
)
from crossmatch.evaluation.inference.served.model import Connection, ServedModel, Spoken
from helpers import TEMPLATE, make_adapter, make_chat_model
from local_server import LocalServer, make_bytes_model

ASK = (
    "<|user|> what is blood <|assistant|> ",
    "<|user|> name the very very old disease of the heart <|assistant|> ",
    "<|user|> cell <|assistant|> ",
)


def tuned(path: Path, out: Path, change: float) -> Path:
    """A model whose weights differ by noise of `change` times their own spread."""
    model: Any = AutoModelForCausalLM.from_pretrained(path)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                # Tokens without text keep their logit of zero.
                kept = (parameter != 0).any(-1, keepdim=True)
                parameter += kept * change * parameter.std() * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(path).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base: a model of words, whose answers are read as the tokens that they were made of; other: clearly another."""
    root = tmp_path_factory.mktemp("words")
    make_chat_model(root / "base", initializer_range=0.2)
    tokenizer, model = AutoTokenizer.from_pretrained(root / "base"), AutoModelForCausalLM.from_pretrained(root / "base")
    with torch.no_grad():
        model.lm_head.weight[:8] = 0
        model.lm_head.weight[len(tokenizer) :] = 0
    model.save_pretrained(root / "base")
    tuned(root / "base", root / "other", 1.0)
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base; near: within a server's noise of it; other: clearly another; sft: an adapter of the base."""
    root = tmp_path_factory.mktemp("models")
    make_bytes_model(root / "base")
    tokenizer: Any = AutoTokenizer.from_pretrained(root / "base")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(root / "base")
    tuned(root / "base", root / "near", 0.002)
    tuned(root / "base", root / "other", 1.0)
    make_adapter(root / "base", root / "sft", seed=1)
    return root


@pytest.fixture(scope="module")
def local(words: Path) -> Local:
    return Local.of(Engine(Checkpoint(words / "base")), ASK)


def client(server: LocalServer, **options: Any) -> ServedModel:
    named = {k: options.pop(k) for k in ("model", "key", "tokenizer") if k in options}
    settings = {"timeout": 5.0, "retries": 1, "pause": 0.01, **options}
    return ServedModel(server.url, connection=Connection(**settings), **{"model": "tiny", **named})


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp"])
def test_the_same_weights_answer_and_score_alike(words: Path, local: Local, kind: str) -> None:
    with LocalServer(words / "base", kind) as server:
        served = client(server)
        own = ask_own(served, ASK)
        found = identify(served, own, local, ASK)
        assert (found.verdict, found.agreement) == ("same", 1.0)
        assert found.gap == pytest.approx(0.0, abs=1e-4)
        assert found.probes > 2 * len(ASK)
        assert served.server.version == (None if kind == "sglang" else "0.1.2")
        nothing = identify(served, own)
        assert (nothing.verdict, nothing.agreement, nothing.gap, nothing.probes) == ("unknown", None, None, 0)
        assert nothing.line == f"{server.url} lists tiny; its weights were compared with nothing"


def test_other_weights_under_the_same_name(words: Path, local: Local) -> None:
    with LocalServer(words / "other") as server:
        served = client(server)
        found = identify(served, ask_own(served, ASK), local, ASK)
        assert found.verdict == "other"
        assert found.agreement is not None
        assert found.agreement < 0.5
        assert "has other weights" in found.line


def test_log_probabilities_tell_weights_that_answer_alike(words: Path, tmp_path: Path, local: Local) -> None:
    """Greedy answers do not change when all logits are twice as large; probabilities do."""
    model: Any = AutoModelForCausalLM.from_pretrained(words / "base")
    with torch.no_grad():
        model.lm_head.weight *= 2
    model.save_pretrained(tmp_path / "sharp")
    AutoTokenizer.from_pretrained(words / "base").save_pretrained(tmp_path / "sharp")
    with LocalServer(tmp_path / "sharp") as server:
        served = client(server)
        own = ask_own(served, ASK)
        found = identify(served, own, local, ASK)
        assert (found.verdict, found.agreement) == ("other", 1.0)
        assert found.gap is not None
        assert found.gap > 0.15
        # A server that tells no log-probabilities is judged by its texts alone.
        honest = server.complete

        def mute(request: dict[str, Any]) -> dict[str, Any]:
            if "logprobs" in request:
                raise ValueError("logprobs are switched off")
            return honest(request)

        server.complete = mute  # type: ignore[method-assign]
        silent = ask_own(served, ASK)
        assert [answer.text for answer in silent] == [answer.text for answer in own]
        found = identify(served, silent, local, ASK)
        assert (found.verdict, found.agreement, found.gap) == ("same", 1.0, None)
        server.always = "500"
        with pytest.raises(InputError, match="does not answer a probe: .* answered 500"):
            served.greedy(ASK[0], 2)
    with LocalServer(words / "base") as server, pytest.raises(InputError, match="serves tiny, not huge"):
        ask_own(client(server, model="huge"), ASK)


def test_answers_that_are_neither_alike_nor_unlike(words: Path, local: Local) -> None:
    with LocalServer(words / "base") as server:
        served = client(server)
        own = ask_own(served, ASK)
        # Short answers, compared from their beginning only; one of three is another.
        short = Local(("?", *(answer[:20] for answer in local.answers[1:])), local.score)
        silent = [Spoken(answer.text, answer.truncated, ()) for answer in own]
        found = identify(served, silent, short, ASK)
        assert (found.verdict, found.agreement, found.probes) == ("unknown", pytest.approx(2 / 3), 3)
        assert found.line.endswith("too little for the same weights, too much for others")
        # Where log-probabilities are told, they decide.
        assert identify(served, own, short, ASK).verdict == "same"
        moved = [Spoken(a.text, a.truncated, tuple((t, v - 0.06) for t, v in a.tokens)) for a in own]
        found = identify(served, moved, local, ASK)
        assert (found.verdict, found.agreement, found.gap) == ("unknown", 1.0, pytest.approx(0.06, abs=1e-3))
        assert identify(served, own, Local(("?", "?", "?"), local.score), ASK).verdict == "unknown"


def spoken(*tokens: tuple[str, float]) -> Spoken:
    return Spoken("".join(text for text, _ in tokens), True, tokens)


def test_what_rounding_does_to_answers_is_no_other_model() -> None:
    first = [spoken(("a", -0.5), ("b", -1.0), ("c", -0.1)), spoken(("x", -0.7), ("y", -0.2))]
    assert alike(first, first)
    # A near tie: another token with the same probability, and after it another answer.
    tie = [spoken(("a", -0.5), ("B", -1.01), ("z", -3.0)), first[1]]
    assert alike(first, tie)
    assert not alike(first, [spoken(("a", -0.5), ("B", -0.3), ("z", -3.0)), first[1]])
    assert not alike(first, [spoken(("a", -0.4), ("b", -0.9), ("c", -0.1)), spoken(("x", -0.7), ("y", -0.3))])
    assert not alike(first, first[:1])
    # Without log-probabilities only the same text is the same.
    silent = [Spoken("abc", True, ()), Spoken("xy", True, ())]
    assert alike(silent, silent)
    assert not alike(silent, first)
    assert not alike(silent, [Spoken("abd", True, ()), Spoken("xy", True, ())])


def test_answers_are_kept_until_the_model_is_another(models: Path, tmp_path: Path) -> None:
    file, about = tmp_path / "served" / "server.json", ["url", "tiny"]
    with LocalServer(models / "base") as server:
        own = ask_own(client(server), ASK)
        first = settled(file, about, own)
        assert settled(file, about, ask_own(client(server), ASK)) == first
        moved = [Spoken(a.text, a.truncated, tuple((t, v - 0.02) for t, v in a.tokens)) for a in own]
        assert settled(file, about, moved) == first
        check_still(client(server), own, ASK)
        assert settled(file, ["url", "small"], own) != first
        assert settled(file, about, own) == first
    with LocalServer(models / "other") as server:
        theirs = ask_own(client(server), ASK)
        with pytest.raises(InputError, match="changed its model while it was asked"):
            check_still(client(server), own, ASK)
    assert settled(file, about, theirs) != first


def test_probes_of_a_tokenizer_without_template(models: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(models / "base")
    assert probes_of(tokenizer)[-2:] == tuple(
        f"<|user|> {text} <|end|> <|assistant|> "
        for text in ("What is anaemia?", "Name three organs of the human body.")
    )
    tokenizer.chat_template = None
    assert len(probes_of(tokenizer)) == len(probes_of(AutoTokenizer.from_pretrained(models / "base"))) - 2


@pytest.fixture
def ask(tmp_path: Path) -> Path:
    rows = [{"id": str(i), "question": f"what is {'very ' * i}old blood?", "reference": "a cell"} for i in range(6)]
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = "name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 6\n"
    (tmp_path / "ask.yaml").write_text(text)
    return tmp_path / "ask.yaml"


@pytest.fixture
def pick(tmp_path: Path) -> Path:
    options = ["a cell", "the heart", "a bone"]
    rows = [
        {"id": str(i), "question": f"what is {'very ' * i}old?", "options": options, "answer": i % 3} for i in range(6)
    ]
    (tmp_path / "pick.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "pick.yaml").write_text("name: pick\nversion: 1\nkind: choice\nform: texts\ndata: pick.jsonl\n")
    return tmp_path / "pick.yaml"


def command(models: Path, suite: Path, server: LocalServer, *more: str) -> list[str]:
    out = str(suite.parent / "out")
    return ["evaluate", str(models / "base"), "--suite", str(suite), "-o", out, "--server", server.url, *more]


def asked_items(server: LocalServer) -> int:
    """Requests for items of the suite: its answers are six tokens long."""
    return sum(request["max_tokens"] == 6 for request in server.asked)


def test_the_command_tells_what_the_weights_were_compared_with(
    models: Path, ask: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalServer(models / "base") as server:
        assert run(command(models, ask, server)) == 2
        assert "--server and --model belong together" in capsys.readouterr().err
        assert run([*command(models, ask, server)[:6], "--same-as", "x"]) == 2
        assert "--same-as says what a server runs" in capsys.readouterr().err
        assert run(command(models, ask, server, "--model", "huge")) == 2
        assert "serves tiny, not huge" in capsys.readouterr().err
        assert run(command(models, ask, server, "--model", "tiny", "--json")) == 0
        captured = capsys.readouterr()
        assert "WARNING: " in captured.err
        assert "its weights were compared with nothing" in captured.err
        summary = json.loads(captured.out)
        assert summary["reference"] == "served"
        assert list(summary["variants"]) == ["served"]
        facts = summary["server"]
        assert (facts["url"], facts["model"], facts["verdict"]) == (server.url, "tiny", "unknown")
        assert (facts["software"], facts["version"], facts["same_as"]) == ("vllm", "0.1.2", None)
        assert (facts["agreement"], facts["gap"], facts["probes"]) == (None, None, 0)
        assert summary["conditions"]["own.greedy"]["suites"]["ask"]["n"] == 6

        same = [*command(models, ask, server), "--model", "tiny", "--json", "--same-as"]
        server.asked.clear()
        assert run([*same, str(models / "base")]) == 0
        captured = capsys.readouterr()
        assert "WARNING" not in captured.err
        facts = json.loads(captured.out)["server"]
        assert (facts["verdict"], facts["same_as"]) == ("same", str(models / "base"))
        assert facts["agreement"] > 0.5
        assert facts["gap"] < 1e-3
        # What is answered is not asked again.
        assert asked_items(server) == 0

        (ask.parent / "out" / "summary.json").unlink()
        server.asked.clear()
        assert run([*same, str(models / "other")]) == 2
        captured = capsys.readouterr()
        assert "has other weights" in captured.err
        assert captured.err.count("\n") <= 4
        assert asked_items(server) == 0
        assert not (ask.parent / "out" / "summary.json").exists()


def test_a_server_that_changed_its_model_is_asked_anew(
    models: Path, ask: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ask.parent / "out" / "served" / "ask.own.greedy.jsonl"
    with LocalServer(models / "base") as server:
        asking = command(models, ask, server, "--model", "tiny")
        assert run(asking) == 0
        first = file.read_text()
        honest = server.model
        server.model = AutoModelForCausalLM.from_pretrained(models / "near", dtype=torch.float32).eval()
        server.asked.clear()
        assert run(asking) == 0
        # Below the noise of a server: its answers stay.
        assert (asked_items(server), file.read_text()) == (0, first)
        server.model = AutoModelForCausalLM.from_pretrained(models / "other", dtype=torch.float32).eval()
        assert run(asking) == 0
        assert asked_items(server) >= 6
        assert file.read_text() != first
        server.model = honest
        assert run(asking) == 0
        assert [json.loads(line)["output"] for line in file.read_text().splitlines()] == [
            json.loads(line)["output"] for line in first.splitlines()
        ]
    capsys.readouterr()


def test_a_served_model_beside_the_models_here(
    models: Path, ask: Path, pick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is served is the base itself, so that every paired difference from it is known."""
    with LocalServer(models / "base") as server:
        more = ["--model", "tiny", "--suite", str(pick), "--json", "--reference", "served"]
        more += ["-a", f"sft={models / 'sft'}", "-w", "sft=0.5", "--checkpoint", f"other={models / 'other'}"]
        assert run(command(models, ask, server, *more)) == 0
        summary = json.loads(capsys.readouterr().out)
        assert list(summary["variants"]) == ["served", "base", "sft", "sft0.5", "other"]
        assert summary["variants"]["served"]["kind"] == "served"
        suites = summary["conditions"]["own.greedy"]["suites"]
        choices = suites["pick"]["metrics"]["acc"]
        assert choices["base"]["value"] == choices["served"]["value"]
        assert choices["base"]["difference"]["value"] == 0
        assert choices["served"]["difference_base"]["value"] == 0
        assert choices["other"]["difference"] is not None
        assert suites["pick"]["flips"]["base"]["lost_ids"] == []
        answers = suites["ask"]["metrics"]["bleu"]
        assert answers["base"]["difference"]["value"] == 0
        # A server tells no distributions: what is here is compared with the base alone.
        assert "kl_answer" not in suites["ask"]["metrics"]
        known = suites["ask"]["metrics"]["kl_answer_base"]
        assert known["served"]["value"] is None
        assert known["sft"]["value"] > 0

        out = ask.parent / "out"
        rows = {v: [json.loads(r) for r in (out / v / "ask.own.greedy.jsonl").open()] for v in ("base", "served")}
        assert [r["output"] for r in rows["base"]] == [r["output"] for r in rows["served"]]
        assert [r["prompt_digest"] for r in rows["base"]] == [r["prompt_digest"] for r in rows["served"]]

        # Any of them can be the reference; nothing is asked for that.
        server.asked.clear()
        more[more.index("served")] = "sft"
        assert run(command(models, ask, server, *more)) == 0
        summary = json.loads(capsys.readouterr().out)
        assert asked_items(server) == 0
        assert (
            summary["conditions"]["own.greedy"]["suites"]["pick"]["metrics"]["acc"]["served"]["difference"] is not None
        )
        more[more.index("sft")] = "nobody"
        assert run(command(models, ask, server, *more)) == 2
        assert "--reference nobody: give one of served, base, sft" in capsys.readouterr().err


def test_the_base_alone_beside_a_server(models: Path, ask: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalServer(models / "other") as server:
        assert run(command(models, ask, server, "--model", "tiny", "--json", "--reference", "base")) == 0
        summary = json.loads(capsys.readouterr().out)
        assert list(summary["variants"]) == ["served", "base"]
        entry = summary["conditions"]["own.greedy"]["suites"]["ask"]["metrics"]["bleu"]["served"]
        assert entry["difference"] == entry["difference_base"] is not None
        assert run(command(models, ask, server, "--model", "tiny", "--reference", "sft")) == 2
        assert "--reference sft: give one of served" in capsys.readouterr().err
        taken = ["-a", f"served={models / 'sft'}", "-w", "served=0.5"]
        assert run(command(models, ask, server, "--model", "tiny", *taken)) == 2
        assert "may not be called served" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ask", "pick"])
def test_a_suite_without_any_answer_is_not_judged(
    models: Path, kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    suite: Path = request.getfixturevalue(kind)
    with LocalServer(models / "base") as server:
        honest = server.complete

        def forgetful(request: dict[str, Any]) -> dict[str, Any]:
            if request["max_tokens"] == 6 or str(request["prompt"]).endswith(("a cell", "the heart", "a bone")):
                raise ValueError("no memory left")
            return honest(request)

        server.complete = forgetful  # type: ignore[method-assign]
        asking = command(models, suite, server, "--model", "tiny")
        assert run(asking) == 3
        captured = capsys.readouterr()
        assert f"suite {kind} under own.greedy could not be judged: no item was answered by all" in captured.err
        assert "served: 6 of 6 failed" in captured.err
        assert "no memory left" in captured.err
        whole = json.loads((suite.parent / "out" / "summary.json").read_text())
        assert whole["conditions"]["own.greedy"]["suites"][kind]["n"] == 0
        server.complete = honest  # type: ignore[method-assign]
        assert run(asking) == 0


def test_a_server_that_dies_before_its_end(models: Path, pick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalServer(models / "base") as server:
        honest, dead = server.complete, threading.Event()

        def dying(request: dict[str, Any]) -> dict[str, Any]:
            if str(request["prompt"]).endswith(("a cell", "the heart", "a bone")):
                dead.set()
            if dead.is_set():
                raise ValueError("no memory left")
            return honest(request)

        server.complete = dying  # type: ignore[method-assign]
        assert run(command(models, pick, server, "--model", "tiny")) == 3
        assert "could not be judged" in capsys.readouterr().err
    facts = json.loads((pick.parent / "out" / "summary.json").read_text())["server"]
    assert facts["unchecked"].endswith("answered 400: no memory left")
    assert facts["version"] == "0.1.2"


def test_plain_texts_are_not_asked_of_a_server(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "read.jsonl").write_text(json.dumps({"id": "0", "text": "the old heart"}) + "\n")
    (tmp_path / "read.yaml").write_text("name: read\nversion: 1\nkind: text\ndata: read.jsonl\n")
    with LocalServer(models / "base") as server:
        assert run(command(models, tmp_path / "read.yaml", server, "--model", "tiny")) == 2
        assert "suite read: plain texts are not asked of a server; leave it out" in capsys.readouterr().err
