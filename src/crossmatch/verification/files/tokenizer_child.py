"""A program of its own: what AutoTokenizer makes of some directories, all their files taken together.

Started as a child process, because tokenizer_config.json, special_tokens_map.json and added_tokens.json say what
becomes of tokenizer.json, in ways that change between versions of transformers: only that library can tell. Reads one
request as JSON from standard input, answers in JSON. No code of a directory is run (`auto_map` is refused), nothing is
fetched.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

# Bytes and seconds that loading may take on top of the libraries themselves.
_MEMORY, _CPU = 2 << 30, 60


def main() -> None:
    """Answer {"directories": [...], "texts": [...]} with one answer each: see `_read`, or {"error": ...}."""
    request = json.load(sys.stdin)
    _limit(resource.RLIMIT_CPU, request["cpu"])
    _limit(resource.RLIMIT_CORE, 0)
    # A tokenizer needs no torch, which takes most of the time of loading transformers.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from transformers import AutoTokenizer

    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + _CPU)
    _limit(resource.RLIMIT_AS, _address_space() + max(_MEMORY, request["memory"]))
    json.dump([_read(path, AutoTokenizer, request["texts"]) for path in request["directories"]], sys.stdout)


def _read(path: str, auto: Any, texts: list[str]) -> dict[str, Any]:
    """Token ids of texts, with what is put around them and without; their text again, with special tokens and without;
    and the tokens that begin and end a sequence."""
    try:
        tokenizer = auto.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        framed = [tokenizer(text).input_ids for text in texts]
        plain = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        shown = [tokenizer.decode(ids, skip_special_tokens=True) for ids in plain]
        whole = [tokenizer.decode(ids, skip_special_tokens=False) for ids in plain]
        ends = {name: getattr(tokenizer, name, None) for name in ("bos_token", "eos_token")}
        return {"framed": framed, "plain": plain, "shown": shown, "whole": whole, "ends": ends}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever files can make the libraries raise; their panics are no Exception
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]}


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 1 << 38


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(what, (most, most))
    except (ValueError, OSError):
        # A system without this limit; the parent watches the time, too.
        return


if __name__ == "__main__":
    main()
