"""Training: data checked line by line, the right tokens learnt, a record, and resuming to the same bytes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crossmatch import Adapter, Checkpoint
from crossmatch.checkpoint import file_digest
from crossmatch.cli import run
from crossmatch.data.training_sets import dialogues, documents, examples_digest, parse_example
from crossmatch.errors import DataError, InputError, OutputError
from crossmatch.runtime import Silent
from crossmatch.training import Dialogue, Document, TrainSettings, load_examples, train_stage
from crossmatch.training.trainer import build_trainer, last_complete
from helpers import make_chat_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TINY = {"rank": 2, "batch_size": 2, "max_length": 16, "save_every_steps": 2, "learning_rate": 1e-2}
# As `python -m crossmatch`; an interrupt counts even where the shell that started the tests ignores it.
STARTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from crossmatch.cli import main
sys.exit(main())
"""
PAIRS = [
    ("what is blood", "the blood is a disease of the heart"),
    ("define bone", "bone is old"),
    ("what is the cell", "a cell of the lung"),
    ("what is very high pressure", "increase of pressure in the heart"),
]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    make_chat_model(root / "base")
    rows = [{"prompt": p, "completion": c} for p, c in PAIRS * 6]
    (root / "sft.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    texts = ["the heart is a bone", "blood of the old kidney is low", "lung"] * 10
    (root / "pt.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return root


def settings(**values: Any) -> TrainSettings:
    return TrainSettings.model_validate({**TINY, **values})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "x"}, Document("x")),
        ({"prompt": "q", "completion": "a"}, Dialogue((("user", "q"), ("assistant", "a")))),
        ({"instruction": "q", "input": "", "output": "a"}, Dialogue((("user", "q"), ("assistant", "a")))),
        (
            {"instruction": "q", "input": "i", "output": "a", "system": "s"},
            Dialogue((("system", "s"), ("user", "q\ni"), ("assistant", "a"))),
        ),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            Dialogue((("user", "q"), ("assistant", "a"))),
        ),
    ],
)
def test_four_forms_of_data(row: dict[str, Any], expected: Any) -> None:
    assert parse_example(row, {}) == expected


def test_columns_rename_fields() -> None:
    row = {"question": "q", "answer": "a"}
    assert parse_example(row, {"instruction": "question", "output": "answer"}) == parse_example(
        {"prompt": "q", "completion": "a"}, {}
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "line 2: not JSON"),
        (b"[]", "line 2: an object is needed, not list"),
        (b'{"other": 1}', "line 2: none of messages"),
        (b'{"text": ""}', "line 2: field 'text' must be a text"),
        (b'{"prompt": "q"}', "line 2: field 'completion'"),
        (b'{"prompt": 3, "completion": "a"}', "line 2: field 'prompt'"),
        (b'{"messages": []}', "line 2: field 'messages'"),
        (b'{"messages": [{"role": "user", "content": "q"}]}', "last message must be the assistant"),
        (b'{"messages": [{"role": "doctor", "content": "q"}]}', "role among"),
        (b"\xff\xfe", "line 2: not UTF-8"),
        (b'{"text": "fever \\ud83d"}', "line 2: half a character .* behind 'fever '"),
    ],
)
def test_bad_lines_are_named_before_training(room: Path, tmp_path: Path, line: bytes, reason: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(DataError, match=reason) as caught:
        train_stage(Checkpoint(room / "base"), "pt", file, tmp_path / "out")
    assert str(file) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.jsonl"]


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_examples(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no examples"):
        load_examples(tmp_path / "empty.jsonl")
    (tmp_path / "two.jsonl").write_text('{"a": 1}\n{"a": 1}\n')
    with pytest.raises(DataError, match="and 1 more bad lines"):
        load_examples(tmp_path / "two.jsonl")
    (tmp_path / "list.json").write_text('[{"text": "x"}, {"text": "y"}]')
    assert len(load_examples(tmp_path / "list.json")) == 2
    (tmp_path / "object.json").write_text('{"text": "x"}')
    with pytest.raises(DataError, match="list of objects"):
        load_examples(tmp_path / "object.json")
    with pytest.raises(DataError, match="the hub did not give it"):
        load_examples("nobody-at-all/no-such-data")


def test_stages_take_what_they_can_learn() -> None:
    pair = parse_example({"prompt": "q", "completion": "a"}, {})
    assert documents([pair, Document("x")]) == ["q\na", "x"]
    with pytest.raises(DataError, match="example 2: a text has no response"):
        dialogues([pair, Document("x")], "f")
    assert examples_digest([pair]) != examples_digest([Document("q\na")])


def test_pt_packs_documents_with_an_end_after_each(room: Path, tmp_path: Path) -> None:
    texts = documents(load_examples(room / "pt.jsonl"))
    trainer = build_trainer(room / "base", "pt", texts, settings(), tmp_path)
    tokenizer: Any = trainer.processing_class
    rows: Any = trainer.train_dataset
    stream = [token for row in rows for token in row["input_ids"]]
    expected = [t for text in texts for t in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    assert stream == expected
    assert {len(row["input_ids"]) for row in list(rows)[:-1]} == {16}
    batch = trainer.data_collator([rows[0], rows[1]])
    assert (batch["labels"] == batch["input_ids"]).all()
    assert "<|user|>" not in tokenizer.decode(stream)


@pytest.mark.parametrize("thinking", [None, False])
def test_sft_learns_the_response_alone(room: Path, tmp_path: Path, thinking: bool | None) -> None:
    data = dialogues(load_examples(room / "sft.jsonl"), "f")
    trainer = build_trainer(room / "base", "sft", data, settings(max_length=64, thinking=thinking), tmp_path)
    tokenizer: Any = trainer.processing_class
    rows: Any = trainer.train_dataset
    batch = trainer.data_collator([rows[i] for i in range(4)])
    for (question, answer), ids, labels in zip(PAIRS, batch["input_ids"], batch["labels"], strict=True):
        prompt = f"<|user|> {question} <|end|> <|assistant|>"
        learnt = tokenizer.decode(labels[labels != -100]).split()
        whole = tokenizer.decode(ids).replace("<pad>", "").split()
        assert learnt == [*answer.split(), "<|end|>"]
        assert whole == [*prompt.split(), *learnt]


def test_record_beside_the_adapter(room: Path, tmp_path: Path) -> None:
    base = Checkpoint(room / "base")
    record = train_stage(base, "sft", room / "sft.jsonl", tmp_path / "out", settings=settings(thinking=False))
    assert json.loads((tmp_path / "out" / "crossmatch.json").read_text()) == json.loads(json.dumps(record))
    assert record["base"]["digest"] == base.digest
    assert record["data"]["examples"] == 24
    assert record["steps"] == 12 == len(record["loss"])
    assert record["loss"][-1][1] < record["loss"][0][1]
    assert record["tokens_seen"] > 24 * 8
    assert record["template"]["thinking"] is False
    # This template's generation prompt closes a block of thoughts that its whole dialogues do not have.
    assert record["template"]["text"] == "<|user|> <unk> is <unk> <|end|> <|assistant|>"
    assert "<think> </think>" in record["template"]["asked"]["text"]
    assert len(record["template"]["asked"]["token_ids"]) == len(record["template"]["token_ids"]) + 2
    assert record["template"]["turn_end"] == {"closing": " <|end|> ", "added": []}
    assert set(record["versions"]) == {"crossmatch", "torch", "transformers", "peft", "trl"}
    adapter = Adapter(tmp_path / "out")
    assert len(adapter) == 14
    assert adapter.config.base == "base"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert "README.md" not in {p.name for p in (tmp_path / "out").iterdir()}
    again = train_stage(base, "sft", room / "sft.jsonl", tmp_path / "out", settings=settings(thinking=False))
    assert again == json.loads(json.dumps(record))
    with pytest.raises(OutputError, match="an adapter of other data or settings"):
        train_stage(base, "sft", room / "sft.jsonl", tmp_path / "out", settings=settings(thinking=False, seed=9))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        train_stage(base, "sft", room / "sft.jsonl", tmp_path / "used", settings=settings())


def test_another_template(room: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text("{% for m in messages %}{{ m.content }} <|end|> {% endfor %}")
    data = dialogues(load_examples(room / "sft.jsonl"), "f")
    trainer = build_trainer(room / "base", "sft", data, settings(template=str(file)), tmp_path)
    assert "<|user|>" not in trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])  # type: ignore[union-attr,index]
    with pytest.raises(DataError, match="give a Jinja file"):
        build_trainer(room / "base", "sft", data, settings(template="none.jinja"), tmp_path)


@pytest.mark.parametrize(
    ("wanted", "rates"),
    [
        ({"schedule": "constant", "warmup_share": 0.5, "max_steps": 4}, [0.0, 0.5, 1.0, 1.0]),
        ({"schedule": "constant", "warmup_share": 0.0, "max_steps": 2}, [1.0, 1.0]),
        ({"schedule": "cosine", "max_steps": 1}, [1.0]),
        ({"schedule": "linear", "epochs": 0.05}, [1.0]),
        ({"schedule": "linear", "warmup_share": 0.25, "max_steps": 4}, [0.0, 1.0, 2 / 3, 1 / 3]),
    ],
)
def test_the_schedule_does_what_it_says(room: Path, tmp_path: Path, wanted: dict[str, Any], rates: list[float]) -> None:
    data = dialogues(load_examples(room / "sft.jsonl"), "f")
    trainer = build_trainer(room / "base", "sft", data, settings(max_length=64, **wanted), tmp_path)
    trainer.train()
    found = [entry["learning_rate"] / 1e-2 for entry in trainer.state.log_history if "learning_rate" in entry]
    assert found == pytest.approx(rates)


def test_an_end_that_the_template_lacks_is_taught_and_said(room: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    make_chat_model(base)
    (base / "chat_template.jinja").write_text(
        "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}<|assistant|> {% endif %}"
    )
    said: list[str] = []
    progress: Any = type("Heard", (Silent,), {"say": lambda _, line: said.append(line)})()
    wanted = settings(max_steps=1)
    record = train_stage(
        Checkpoint(base), "sft", room / "sft.jsonl", tmp_path / "a", settings=wanted, progress=progress
    )
    assert [line for line in said if "'<|end|>' (turn_end: eos)" in line]
    assert record["template"]["turn_end"] == {"closing": " ", "added": [{"id": 2, "text": "<|end|>"}]}
    data = dialogues(load_examples(room / "sft.jsonl"), "f")
    for wanted, last in (("auto", "<|end|>"), ("template", "heart"), ("<unk>", "<unk>")):
        trainer = build_trainer(base, "sft", data, settings(max_length=64, turn_end=wanted), tmp_path / "b")
        row: Any = trainer.train_dataset[0]  # type: ignore[index]
        assert trainer.processing_class.decode(row["labels"][-1:]) == last  # type: ignore[union-attr]


def test_rows_that_a_template_refuses_are_named_with_their_line(room: Path, tmp_path: Path) -> None:
    file, template = tmp_path / "d.jsonl", tmp_path / "t.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    )
    pair = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [pair, [{"role": "system", "content": "s"}, *pair]]
    file.write_text("\n" + "".join(json.dumps({"messages": row}) + "\n" for row in rows))
    wanted = settings(template=str(template))
    with pytest.raises(
        DataError,
        match=r"d.jsonl, line 3: the chat template cannot render this dialogue of system, user, assistant: no system",
    ):
        train_stage(Checkpoint(room / "base"), "sft", file, tmp_path / "out", settings=wanted)
    assert not (tmp_path / "out.work").exists()


def test_work_of_another_run_is_not_continued(room: Path, tmp_path: Path) -> None:
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "facts.json").write_text(
        '{"digest": "another", "facts": {}, "begun": "2026-01-01T00:00:00Z"}'
    )
    with pytest.raises(InputError, match="other data or settings; remove it"):
        train_stage(Checkpoint(room / "base"), "pt", room / "pt.jsonl", tmp_path / "out", settings=settings())


def test_what_would_be_cut_is_refused(room: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"sft.jsonl, line 1 has 15 tokens.*max_length is 8, and 23 more.*raise max_length to 15"
    ):
        train_stage(
            Checkpoint(room / "base"), "sft", room / "sft.jsonl", tmp_path / "a", settings=settings(max_length=8)
        )
    with pytest.raises(InputError, match="no module called nope"):
        train_stage(
            Checkpoint(room / "base"), "pt", room / "pt.jsonl", tmp_path / "b", settings=settings(targets=["nope"])
        )
    (tmp_path / "c.work").mkdir()
    (tmp_path / "c.work" / "mine").write_text("x")
    with pytest.raises(OutputError, match="holds something else"):
        train_stage(Checkpoint(room / "base"), "pt", room / "pt.jsonl", tmp_path / "c", settings=settings())
    assert (tmp_path / "c.work" / "mine").exists()


def test_half_written_checkpoints_are_not_resumed(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_complete(tmp_path) is None
    for step in (2, 9):
        (tmp_path / f"checkpoint-{step}" / "complete").write_text("1.0")
    # The mark of an earlier version, whose run was killed before it was written.
    (tmp_path / "checkpoint-10" / "complete").touch()
    assert last_complete(tmp_path) == tmp_path / "checkpoint-9"


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "ended_by"), [("pt", signal.SIGKILL), ("sft", signal.SIGINT)])
def test_ended_and_resumed_gives_the_same_bytes(
    room: Path, tmp_path: Path, stage: str, ended_by: signal.Signals
) -> None:
    def arguments(out: Path) -> list[str]:
        options = [f"{k}={v}" for k, v in {**TINY, "epochs": 10, "dropout": 0.1}.items()]
        flags = [x for o in options for x in ("--set", o)]
        return [
            "train",
            str(room / "base"),
            "--stage",
            stage,
            "--data",
            str(room / f"{stage}.jsonl"),
            "-o",
            str(out),
            *flags,
        ]

    # What is not ended is trained in this process, which saves two starts of Python with the trainer.
    assert run(arguments(tmp_path / "whole")) == 0
    out, work = tmp_path / "ended", tmp_path / "ended.work"
    command = [sys.executable, "-c", STARTED, *arguments(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and last_complete(work) is None:
        time.sleep(0.01)
    process.send_signal(ended_by)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if ended_by == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in err
    assert ended_by == signal.SIGKILL or "the same command goes on" in err
    assert last_complete(work) is not None
    assert not out.exists()
    assert run(arguments(out)) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert file_digest(out / name) == file_digest(tmp_path / "whole" / name)
    records = [json.loads((d / "crossmatch.json").read_text()) for d in (out, tmp_path / "whole")]
    assert records[0]["loss"] == records[1]["loss"]
    assert records[0]["tokens_seen"] == records[1]["tokens_seen"]
