"""A program of its own: what AutoTokenizer makes of some directories, all their files taken together.

Started as a child process, because tokenizer_config.json, special_tokens_map.json and added_tokens.json say what
becomes of tokenizer.json, in ways that change between versions of transformers: only that library can tell. Reads one
request as JSON from standard input, answers in JSON. No code of a directory is run (`auto_map` is refused), nothing is
fetched.
"""

import json
import sys
from typing import Any

from crossmatch.limits import confine, confine_further

# Bytes and seconds that loading may take on top of the libraries themselves.
_MEMORY, _CPU = 2 << 30, 60


def main() -> None:
    """Answer {"directories": [...], "texts": [...]} with one answer each: see `_read`, or {"error": ...}."""
    request = json.load(sys.stdin)
    confine(request["cpu"])
    # A tokenizer needs no torch, which takes most of the time of loading transformers.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from transformers import AutoTokenizer

    confine_further(_CPU, _MEMORY + request["memory"])
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


if __name__ == "__main__":
    main()
