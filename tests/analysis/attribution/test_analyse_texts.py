"""`crossmatch analyse` with texts and questions: what is read, what it says, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crossmatch.analysis.texts import TextRequest
from crossmatch.checkpoint import Checkpoint
from crossmatch.cli import run
from crossmatch.data.model_inputs import read_choices, read_openings, read_passages
from crossmatch.data.passages import Passage
from crossmatch.errors import DataError, InputError
from crossmatch.runtime import Silent
from helpers import copy, make_adapter, make_chat_model, make_llama, peft_merge

WORDS = (
    "anaemia blood heart cell disease lung kidney bone system increase decrease level pressure high low answer".split()
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model, an adapter, their merge; texts, dialogues, a choice suite, a generation suite."""
    root = tmp_path_factory.mktemp("texts")
    make_chat_model(root / "base", initializer_range=0.15, max_position_embeddings=64)
    make_adapter(root / "base", root / "sft", seed=2, size=0.3)
    peft_merge(root / "base", [root / "sft"], root / "tuned", dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    drawn = [[WORDS[n] for n in torch.randint(len(WORDS), (20,), generator=generator).tolist()] for _ in range(40)]
    write(root / "pt.jsonl", [{"text": " ".join(words)} for words in drawn])
    (root / "lines.txt").write_text("\n\n".join(" ".join(words) for words in drawn[:3]) + "\n")
    dialogues = [{"prompt": f"what is {words[0]} ?", "completion": " ".join(words[1:6])} for words in drawn]
    write(root / "sft.jsonl", dialogues)
    items = [
        {"id": str(n), "question": f"pick {words[0]}", "options": words[1:5], "answer": n % 4}
        for n, words in enumerate(drawn)
        if len(set(words[1:5])) == 4
    ]
    write(root / "choices.jsonl", items)
    suite = {"name": "pick", "version": 1, "kind": "choice", "language": "en", "data": "choices.jsonl"}
    (root / "choices.yaml").write_text(json.dumps({**suite, "prompt": "{question}", "delimiter": " "}))
    write(root / "define.jsonl", [{"id": "1", "question": "what is bone ?", "reference": "the old system"}])
    suite = {"name": "define", "version": 1, "kind": "generation", "language": "en", "data": "define.jsonl"}
    (root / "define.yaml").write_text(json.dumps({**suite, "max_new_tokens": 8}))
    return root


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def decoded(base: Checkpoint, passage: Passage) -> str:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base.path).decode(passage.ids)


def test_texts_of_every_form_are_read(root: Path) -> None:
    base = Checkpoint(root / "base")
    documents = read_passages(base, str(root / "pt.jsonl"), 16)
    assert len(documents) == 40
    assert {len(passage.ids) for passage in documents} == {16}
    lines = read_passages(base, str(root / "lines.txt"), 64)
    assert [len(passage.ids) for passage in lines] == [20, 20, 20]
    dialogue = read_passages(base, str(root / "sft.jsonl"), 64)[0]
    assert decoded(base, dialogue).startswith("<|user|> what is")
    item = decoded(base, read_passages(base, str(root / "define.yaml"), 64)[0])
    assert item == "<|user|> what is bone ? <|end|> <|assistant|> the old system <|end|>"
    (root / "texts.jsonl").write_text(json.dumps({"id": "1", "text": "the old system"}) + "\n")
    settings = {"name": "texts", "version": 1, "kind": "text", "data": "texts.jsonl"}
    (root / "texts.yaml").write_text(json.dumps(settings))
    assert decoded(base, read_passages(base, str(root / "texts.yaml"), 64)[0]) == "the old system"
    chosen = json.loads((root / "choices.jsonl").read_text().splitlines()[0])
    assert chosen["options"][chosen["answer"]] in decoded(base, read_passages(base, str(root / "choices.yaml"), 64)[0])


def test_a_question_sets_the_right_option_against_the_next(root: Path) -> None:
    base = Checkpoint(root / "base")
    found = read_choices(base, str(root / "choices.yaml"), 3)
    rows = [json.loads(line) for line in (root / "choices.jsonl").read_text().splitlines()]
    assert found.count == 3
    for text, row in zip(found.texts, rows, strict=False):
        options, answer = row["options"], row["answer"]
        assert decoded(base, Passage(text.ids[-1:])) == options[answer]
        assert decoded(base, Passage((text.rival or 0,))) == options[(answer + 1) % 4]
    assert read_openings(base, str(root / "sft.jsonl"), 5).count == 5
    with pytest.raises(DataError, match=r"define\.yaml is a generation suite"):
        read_choices(base, str(root / "define.yaml"), 3)


def test_what_is_left_out_of_texts_and_openings_is_said(root: Path, tmp_path: Path) -> None:
    base, said = Checkpoint(root / "base"), list[str]()
    row = json.loads((root / "sft.jsonl").read_text().splitlines()[0])
    rows = [{"text": "the old system " * 40}, row | {"origin": "x"}, {"text": "bone"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    class Heard(Silent):
        def say(self, line: str) -> None:
            said.append(line.replace(str(tmp_path), ""))

    read_passages(base, str(tmp_path / "a.jsonl"), 16, Heard())
    unused = "note: fields that are not used: origin (1 rows)"
    assert said == [unused, "note: 1 of 3 texts of /a.jsonl are read up to their limit of tokens alone"]
    said.clear()
    assert read_openings(base, str(tmp_path / "a.jsonl"), 5, Heard()).count == 1
    assert said == [unused, "note: 2 examples of /a.jsonl are no dialogues; they are left out of the openings"]


def test_the_command_says_what_the_texts_show(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["analyse", root / "base", f"sft={root / 'sft'}", "--no-alignment", "--texts", root / "pt.jsonl"]
    arguments += ["--positions", "600", "--nulls", "2", "--questions", root / "choices.yaml", "--items", "4"]
    arguments += ["--k", "8", "--k", "r"]
    openings = ["--openings", root / "sft.jsonl"]
    assert run(["--quiet", *(str(a) for a in [*arguments, *openings, "-o", tmp_path / "out", "--detail"])]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    assert "sft: 600 tokens of 30 texts, less first ones and massive dimensions" in shown
    assert any(line.startswith("sft: fine-tuning moves activations in few directions:") for line in shown)
    assert "sft: log-odds, right over wrong, where they differ: 4 items" in shown
    assert "sft: log-odds, <think> over the answer's first token: 4 items" in shown
    facts = json.loads((tmp_path / "out/analysis.json").read_text())
    assert facts["representations"]["sft"]["positions"] == 600
    assert facts["representations"]["sft"]["scope"]["ks"] == [8]
    assert set(facts["attribution"]["sft"]) == {"questions", "openings"}
    ids = [claim["id"] for claim in facts["claims"]]
    assert ids[-2:] == ["small-subspace-directions", "small-subspace-subspace"]
    claim = facts["claims"][-2]
    assert claim["verdict"] == facts["representations"]["sft"]["claim"]["directions"]["verdict"]
    assert [part["null"] for part in claim["parts"]] == [0.25, 1.0]


def test_sizes_of_subspaces_follow_the_model(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["analyse", root / "base", f"sft={root / 'sft'}", "--no-alignment", "--texts", root / "pt.jsonl"]
    arguments += ["--positions", "400", "--nulls", "0", "--json"]
    assert run(["--quiet", *map(str, arguments)]) == 0
    # 64 do not fit into a model of 64 dimensions.
    assert json.loads(capsys.readouterr().out)["representations"]["sft"]["scope"]["ks"] == [16, 32]
    assert TextRequest(None, None, None, 2, 0, 2).ks(576) == (16, 64)
    assert TextRequest(None, None, None, 2, 0, 2, ("r", "90%", "40", "8")).ks(64) == (8, 40)


def test_a_checkpoint_is_attributed_like_its_adapter(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [root / "base", f"sft={root / 'sft'}", f"tuned={root / 'tuned'}", "--no-alignment"]
    arguments += ["--questions", root / "choices.yaml", "--items", "3", "--json"]
    assert run(["--quiet", "analyse", *map(str, arguments)]) == 0
    found = json.loads(capsys.readouterr().out)["attribution"]
    one, other = (found[name]["questions"] for name in ("sft", "tuned"))
    assert one["change"]["value"] == pytest.approx(other["change"]["value"], abs=1e-4)
    assert [row["name"] for row in one["modules"]] == [row["name"] for row in other["modules"]]


def test_what_cannot_be_read_is_refused_before_anything_runs(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an analysis was begun")

    monkeypatch.setattr("crossmatch.analysis.assemble", refuse)
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    write(tmp_path / "same.jsonl", [{"id": "1", "question": "q", "options": ["low", "low blood"], "answer": 0}])
    suite = {"name": "same", "version": 1, "kind": "choice", "language": "en", "data": "same.jsonl"}
    (tmp_path / "same.yaml").write_text(json.dumps({**suite, "prompt": "{question}", "delimiter": " "}))
    make_llama(tmp_path / "mute", dtype=torch.float32)
    make_adapter(tmp_path / "mute", tmp_path / "lora", seed=1)
    plain = copy(root / "base", tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    base, sft = root / "base", root / "sft"
    cases = [
        ([base, sft, "--texts", tmp_path / "none.jsonl"], "none.jsonl"),
        ([base, sft, "--texts", root / "pt.jsonl", "--k", "64"], "--k 64: the model's activations have 64 dimensions"),
        ([base, sft, "-o", tmp_path / "bytes.txt"], "is a file; give a directory"),
        ([base, sft, "-o", tmp_path / "bytes.txt" / "out"], "cannot be written"),
        ([base, sft, "-o", "/proc/none/out"], "cannot be written"),
        ([base, sft, "--texts", tmp_path / "none.txt"], "cannot be read as text"),
        ([base, sft, "--texts", tmp_path / "bytes.txt"], "cannot be read as text"),
        ([base, sft, "--texts", tmp_path / "empty.txt"], "holds no text"),
        ([base, sft, "--questions", tmp_path / "same.yaml"], "no token in which they differ"),
        ([base, sft, "--questions", root / "sft.jsonl"], "sft.jsonl"),
        ([base, sft, "--openings", root / "pt.jsonl"], "no dialogue"),
        ([tmp_path / "mute", tmp_path / "lora", "--texts", root / "pt.jsonl"], "tokenizer"),
        ([plain, sft, "--openings", root / "sft.jsonl"], "no chat template"),
    ]
    for arguments, expected in cases:
        assert run(["analyse", *map(str, arguments)]) == 2, arguments
        captured = capsys.readouterr()
        assert expected in captured.err, captured.err
        assert "Traceback" not in captured.err
    with pytest.raises(InputError, match="no chat template"):
        read_openings(Checkpoint(plain), str(root / "sft.jsonl"), 3)
    assert len(read_passages(Checkpoint(plain), str(root / "sft.jsonl"), 64)) == 40
