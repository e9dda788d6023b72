"""One reader for every format: what is read, and what is refused in one line with what to do."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from crossmatch.data.rows import read_file, stream_rows
from crossmatch.data.training_sets import load_examples
from crossmatch.errors import DataError
from crossmatch.evaluation.audit import open_corpus

ROWS = [{"prompt": "q\u2028“1”", "completion": "a"}, {"prompt": "q 2", "completion": "糖尿病"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
LIST = json.dumps(ROWS, indent=1).encode()


def zst(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


READ = {
    "a.jsonl": LINES,
    "a.ndjson": LINES,
    "bom.jsonl": b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n"),
    "gaps.jsonl": b"\n" + LINES.replace(b"\n", b"\n \n"),
    "list.jsonl": LIST,
    "a.json": LIST,
    "lines.json": LINES,
    "a.csv": '\ufeffprompt,completion\r\n"q\u2028“1”",a\r\nq 2,糖尿病\r\n'.encode(),
    "A.JSONL": LINES,
    "a.jsonl.gz": gzip.compress(LINES, mtime=0),
    "parts.jsonl.gz": gzip.compress(LINES[:20], mtime=0) + gzip.compress(LINES[20:], mtime=0),
    "a.json.bz2": bz2.compress(LIST),
    "lines.json.xz": lzma.compress(LINES),
    "a.jsonl.zst": zst(LINES),
    "parts.jsonl.zst": zst(LINES[:20]) + zst(LINES[20:]),
    "a.csv.gz": gzip.compress("prompt,completion\nq\u2028“1”,a\nq 2,糖尿病\n".encode(), mtime=0),
}


@pytest.mark.parametrize("name", READ)
def test_every_format_gives_the_same_rows_to_all(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(READ[name])
    assert [row.values for row in stream_rows(tmp_path / name)] == ROWS
    rows, digest = read_file(tmp_path / name)
    assert [row.values for row in rows] == ROWS
    assert len(digest) == 64
    assert [example.turns[0][1] for example in load_examples(tmp_path / name)] == ["q\u2028“1”", "q 2"]  # type: ignore[union-attr]
    assert [d.answer for d in open_corpus(tmp_path / name)] == ["a", "糖尿病"]


def test_objects_in_parquet_have_no_fields_of_others(tmp_path: Path) -> None:
    """Arrow gives all objects of a list the same fields."""
    calls = [{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "add", "arguments": {"a": 1, "b": 2}}]
    rows: list[Any] = [
        {"completion": [{"role": "assistant", "tool_calls": [call]}], "options": {"A": "x"}} for call in calls
    ]
    rows[1]["options"] = {"A": "x", "B": "y"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    found = [row.values for row in read_file(tmp_path / "x.parquet")[0]]
    assert [row["completion"][0]["tool_calls"][0] for row in found] == calls
    assert found[0]["options"] == {"A": "x", "B": None}


def test_parquet_and_texts(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=1)
    assert [(row.key, row.values) for row in stream_rows(tmp_path / "a.parquet")] == [("1", ROWS[0]), ("2", ROWS[1])]
    (tmp_path / "a.txt").write_text("one text\n\n{x} another\n")
    assert [(r.place.split()[-1], r.values) for r in stream_rows(tmp_path / "a.txt")] == [
        ("1", {"text": "one text"}),
        ("3", {"text": "{x} another"}),
    ]


REFUSED: list[tuple[str, bytes, str]] = [
    ("a.jsonl", gzip.compress(LINES, mtime=0), "compressed with gzip; name it a.jsonl.gz"),
    ("a.jsonl", zst(LINES), "compressed with zstd; name it a.jsonl.zst"),
    ("a.jsonl.gz", LINES, "no whole .gz file"),
    ("a.jsonl.gz", gzip.compress(LINES * 99, mtime=0)[:-40], "no whole .gz file"),
    ("a.jsonl.zst", LINES, "no whole .zst file"),
    ("a.jsonl.xz", LINES, "no whole .xz file"),
    ("a.jsonl", LINES.decode().encode("utf-16"), "UTF-16; save it as UTF-8"),
    ("a.jsonl", ROWS[1]["completion"].encode("gb18030"), "line 1: not UTF-8 at byte 0"),
    ("a.csv", "prompt,completion\n糖,尿\n".encode("gb18030"), "save it as UTF-8"),
    ("a.csv", b"prompt;completion\nq;a\n", "not separated by commas"),
    ("a.csv", b'"prompt";"completion"\n"q, r";"a"\n', "not separated by commas"),
    ("a.csv", b'"a, b"\t"c"\n"q"\t"a"\n', "not separated by commas"),
    (
        "a.jsonl",
        b'{"text": "x"}\n{"text": "y", "text": "z"}\n',
        "line 2: not JSON: two values of one object are named 'text'",
    ),
    ("a.json", b'[{"text": "x"}, {"text": "y", "more": {"a": 1, "a": 2}}]', "item 2: not JSON: two values .* 'a'"),
    ("a.tsv", b"prompt\tcompletion\n", "its kind is not known"),
    ("a.jsonl", b"PAR1....PAR1", "it is parquet; name it a.parquet"),
    ("a.parquet", LINES, "is not parquet"),
    ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("a.jsonl", b"<!DOCTYPE html><html>", "a web page"),
    ("a.txt", LINES, "its lines are JSON, not texts; name it a.jsonl"),
    ("a.json", b'{"data": [{"text": "x"}]}', "not one object; keep the list in its field 'data' alone"),
    ("a.json", b'{\n "text": "x"\n}', "must hold a list of objects"),
    ("a.json", LIST + b"]", "something follows the end of the list"),
    ("a.json", b'[{"text": NaN}]', "item 1: not JSON: NaN is no JSON number"),
    ("a.json", b"[" + b'{"a":' * 99_999, "item 1: not JSON: nested too deeply"),
    ("a.jsonl", b'{"text": Infinity}', "line 1: not JSON: Infinity is no JSON number"),
]


@pytest.mark.parametrize(("name", "data", "message"), REFUSED)
@pytest.mark.parametrize("reader", [load_examples, read_file, lambda file: list(open_corpus(file))])
def test_files_that_are_refused(
    tmp_path: Path, reader: Callable[[Path], Any], name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        reader(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_directories_and_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no file; name a file in it"):
        load_examples(tmp_path)
    with pytest.raises(DataError, match="does not exist; give a .jsonl"):
        load_examples("data/train.jsonl.gz")
