"""Damage that somebody might do on purpose, drawn from a seed: one change to one file of a directory."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOMBS = (
    r"(a+)+$",
    r"(.*)*x",
    r"(\w|.)*\.q_proj",
    r"(.+.+)+\.proj",
    ".*" * 12 + "Q",
    r"(.?){40}.{40}Q",
    r"((\w+\.?)+)*!",
)
TEXTS = (
    *(
        "",
        "x" * 5000,
        "\ud800",
        "\x00",
        "\x1b[2J\x1b]0;owned\x07",
        "‮txt.exe",
        "../base",
        "/etc/passwd",
        "nan",
        "(",
        "[z-a]",
        "\\",
    ),
    *(
        "(?P<x>a)(?P=x)",
        "(?<=a+)b",
        "a{4294967296}",
        "(" * 300 + ")" * 300,
        "no-such/repo",
        "LORA",
        "q_proj",
        "model.norm",
    ),
    *BOMBS,
)
NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    7,
    8,
    16,
    1.5,
    1e308,
    -1e308,
    5e-324,
    2**31,
    2**63,
    2**64,
    10**30,
    10**400,
    True,
    False,
    None,
)
LITERALS = ("NaN", "Infinity", "-Infinity", "1e999", "[" * 400 + "]" * 400, '{"a":' * 200 + "1" + "}" * 200, "9" * 5000)
# Where one of these stands in the value, the text of one of LITERALS takes its place.
_MARK = "\ue000literal\ue000"

Change = Callable[[random.Random, Any], Any]


def hostile(rng: random.Random) -> Any:
    """A value that does not belong there."""
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return [rng.choice((*NUMBERS, *TEXTS)) for _ in range(rng.choice((0, 1, 2, 3, 40)))]
    if kind == 3:
        return {str(rng.choice(TEXTS)): rng.choice((*NUMBERS, *TEXTS)) for _ in range(rng.randrange(3))}
    if kind == 4:
        return {str(rng.choice(BOMBS)): rng.choice((1, 4, 8))}
    if kind == 5:
        return _MARK
    return [[rng.choice(NUMBERS)], {"a": [rng.choice(TEXTS)]}]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    found = []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        found += places(value[key])
    return found


def mutate_value(rng: random.Random, value: Any) -> Any:
    """One change somewhere in a JSON value, the top included; nearer to the top more often."""
    inside = places(value)
    if not inside or rng.random() < 0.02:
        return hostile(rng)
    near = [p for p in inside if p[0] is value]
    container, key = rng.choice(near if rng.random() < 0.3 else inside)
    kind = rng.randrange(8)
    if kind < 4:
        container[key] = hostile(rng)
    elif kind == 4:
        del container[key]
    elif kind == 5 and isinstance(container, dict):
        container[rng.choice(TEXTS)] = container.pop(key)
    elif kind == 6 and isinstance(container, dict):
        container[rng.choice(TEXTS)] = hostile(rng)
    else:
        container[key] = _nudged(rng, container[key])
    return value


def _nudged(rng: random.Random, value: Any) -> Any:
    """Nearly the same value, or the same one in another type."""
    if isinstance(value, bool) or value is None:
        return rng.choice((0, 1, "true", "null", not value))
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, -value, float(value), str(value), value * 2, value + 2**32, [value]))
    if isinstance(value, str):
        return rng.choice((value + "x", value[:-1], value.upper(), [value], f"({value})+", f"{value}\n", "./" + value))
    return rng.choice(([value], str(value), [value, value]))


def encode(rng: random.Random, value: Any, *, twice: str = "") -> bytes:
    """The JSON text, sometimes with the first key of an object given again; lone surrogates as escapes."""
    text = json.dumps(value, ensure_ascii=True)
    while f'"{_escaped(_MARK)}"' in text:
        text = text.replace(f'"{_escaped(_MARK)}"', rng.choice(LITERALS), 1)
    if twice and isinstance(value, dict) and text.startswith("{") and len(text) > 2:
        text = f"{text[:-1]}, {json.dumps(twice)}: {json.dumps(value.get(twice))}}}"
    return text.encode()


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """A JSON file with one change: of a value, of bytes, of its end."""
    if rng.random() < 0.15:
        return mutate_bytes(rng, data, len(data))
    value = mutate_value(rng, json.loads(data))
    again = rng.choice(list(value)) if isinstance(value, dict) and value and rng.random() < 0.05 else ""
    return encode(rng, value, twice=again)


def mutate_safetensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file with one change: in the length, in bytes or in the JSON of its header, or of its end."""
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    kind = rng.randrange(10)
    if kind == 0:
        size = rng.choice((0, 1, 7, length - 1, length + 1, len(data), 2**31, 2**63, 2**64 - 1))
        return size.to_bytes(8, "little") + data[8:]
    if kind == 1:
        return mutate_bytes(rng, data, 8 + length)
    if kind == 2:
        return data[: rng.randrange(len(data))]
    if kind == 3:
        return data + rng.randbytes(rng.choice((1, 8, 4096)))
    value = json.loads(header)
    again = rng.choice(list(value)) if kind == 4 else ""
    if kind > 5:
        value = mutate_value(rng, value)
    elif kind == 5:
        _swap(rng, value)
    raw = encode(rng, value, twice=again)
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + body


def _swap(rng: random.Random, header: dict[str, Any]) -> None:
    """Two tensors change names, or one another dtype of its size, or another shape of its size."""
    names = [name for name in header if name != "__metadata__"]
    one, other = rng.choice(names), rng.choice(names)
    kind = rng.randrange(3)
    if kind == 0:
        header[one], header[other] = header[other], header[one]
    elif kind == 1:
        header[one]["dtype"] = rng.choice(("F16", "BF16", "I16", "F8_E4M3", "U8", "BOOL", "F64", "F4", "C64"))
    else:
        header[one]["shape"] = rng.choice(
            (header[one]["shape"][::-1], [1, *header[one]["shape"]], [0, *header[one]["shape"]])
        )


def mutate_bytes(rng: random.Random, data: bytes, end: int) -> bytes:
    """Some bytes before `end` changed, removed or inserted."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(max(1, end - 8))
        kind = rng.randrange(4)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            del changed[at]
        else:
            changed.insert(at, rng.choice(b'"{}[],:\\0e-\x00\xff'))
    return bytes(changed)


def mutate_place(rng: random.Random, file: Path, outside: Path) -> None:
    """Something else where the file was: nothing, a link (out, in a loop, to nothing, to a device), a pipe, a
    directory."""
    file.unlink()
    kind = rng.randrange(8)
    if kind == 0:
        file.symlink_to(outside)
    elif kind == 1:
        file.symlink_to(file.name)
    elif kind == 2:
        file.symlink_to(rng.choice(("/dev/zero", "/nowhere", "../../../../../../etc/passwd")))
    elif kind == 3:
        os.mkfifo(file)
    elif kind == 4:
        file.mkdir()
    elif kind == 5:
        file.touch()
    elif kind == 6:
        file.symlink_to(os.path.relpath(outside, file.parent))


def mutate(rng: random.Random, file: Path, outside: Path) -> None:
    """One change to one file, of a kind that fits it."""
    if rng.random() < 0.06:
        mutate_place(rng, file, outside)
    elif file.suffix == ".safetensors":
        file.write_bytes(mutate_safetensors(rng, file.read_bytes()))
    elif file.suffix == ".json":
        file.write_bytes(mutate_json(rng, file.read_bytes()))
    else:
        file.write_bytes(mutate_bytes(rng, file.read_bytes(), len(file.read_bytes())))
