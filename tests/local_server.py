"""A completions server on this machine: a real tiny Llama and its tokenizer behind the API, as four programs speak it.

What it does wrong is said by `faults`, each spent on one completion, and `always`, on every one.
"""

import json
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from helpers import make_llama

SPECIAL = ["<s>", "<|end|>", "<|user|>", "<|assistant|>", "<pad>"]
CORPUS = [
    "what is a disease of the blood and the heart",
    "the old cell in the kidney is very new",
    "high blood pressure and low blood pressure, an answer to a question",
    "Question: what is anaemia?\nAnswer: a low level of haemoglobin in blood",
] * 5


def make_bytes_model(out: Path) -> Path:
    """A tiny Llama with a byte-level BPE tokenizer that puts <s> before a text unless told not to."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    size = len(fast)
    make_llama(
        out, dtype=torch.float32, vocab_size=size, initializer_range=0.2, bos_token_id=0, eos_token_id=1, pad_token_id=4
    )
    model: Any = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        for token in range(size):
            # A token without letters of its own is not generated, so that answers are made of words.
            if not fast.decode([token]).strip().isascii() or token in (0, 2, 3, 4):
                model.lm_head.weight[token] = 0
    model.save_pretrained(out)
    fast.save_pretrained(out)
    return out


@cache
def _load(path: Path) -> tuple[Any, Any]:
    """Model and tokenizer, read once for all servers of a test run."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(path)


class LocalServer:
    """Serves the model at `path` under `names` while the `with` block lasts; `kind`: whose manners it has.

    penalty: a repetition penalty of its own, which acts unless a request sets one; limit: context in tokens.
    """

    def __init__(
        self, path: Path, kind: str = "vllm", names: tuple[str, ...] = ("tiny",), penalty: float = 1.0
    ) -> None:
        self.model, self.tokenizer = _load(path)
        self.kind, self.names, self.penalty, self.limit = kind, names, penalty, 200
        self.answers_as: str | None = None
        self.echoes = True
        self.faults: list[str] = []
        self.always = ""
        self.asked: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def __enter__(self) -> "LocalServer":
        outer = self

        class Handler(_Handler):
            server_of = outer

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.http.shutdown()
        self.http.server_close()

    def fault(self) -> str:
        with self.lock:
            return self.faults.pop(0) if self.faults else self.always

    @torch.inference_mode()
    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one completion, as an honest server of this kind gives it."""
        text = request["prompt"]
        if isinstance(text, str):
            special = self.kind not in ("vllm", "listed") or request.get("add_special_tokens", True)
            ids = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        else:
            if self.kind == "other":
                raise ValueError("prompt: a string is needed")
            ids = list(text)
            # SGLang gives ids back as text without special tokens.
            text = self.tokenizer.decode(ids, skip_special_tokens=self.kind == "sglang")
        if len(ids) + request["max_tokens"] > self.limit:
            raise ValueError(f"This model's maximum context length is {self.limit} tokens.\nYou asked for more.")
        made, reason = self.generate(ids, request)
        every = [*ids, *made]
        values = torch.log_softmax(self.model(torch.tensor([every])).logits[0].double(), -1)
        entries = [self.entry(values[i - 1] if i else None, token) for i, token in enumerate(every)]
        shown = made[:-1] if reason == "stop" else made
        choice: dict[str, Any] = {"index": 0, "text": self.decode(shown), "finish_reason": reason, "logprobs": None}
        if self.kind == "llamacpp":
            if request.get("echo"):
                raise ValueError("Only no echo is supported")
            if request.get("logprobs"):
                # It tells nothing of a token that ends inside a character.
                told = [(v, e) for v, e in zip(values[len(ids) - 1 :], entries[len(ids) :], strict=False)]
                content = [
                    self.as_object(e, v, request["logprobs"]) for v, e in told if not e["text"].endswith("\ufffd")
                ]
                choice["logprobs"] = {"content": content}
        else:
            if request.get("echo") and self.kind != "listed":
                choice["text"] = text + choice["text"]
            if request.get("logprobs"):
                told = entries if request.get("echo") and self.kind != "listed" else entries[len(ids) :]
                choice["logprobs"] = self.as_lists(told)
            if request.get("prompt_logprobs") is not None:
                choice["prompt_logprobs"] = [self.as_places(e) for e in entries[: len(ids)]]
        if self.kind == "other":
            choice["logprobs"] = choice["logprobs"] if self.echoes else None
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(made), "total_tokens": len(every)}
        return {
            "object": "text_completion",
            "model": self.answers_as or self.names[0],
            "choices": [choice],
            "usage": usage,
        }

    def generate(self, ids: list[int], request: dict[str, Any]) -> tuple[list[int], str]:
        warmth = request.get("temperature", 1.0)
        generator = torch.Generator().manual_seed(request.get("seed", 0))
        penalty = request.get("repetition_penalty", self.penalty)
        made: list[int] = []
        while len(made) < request["max_tokens"]:
            logits = self.model(torch.tensor([[*ids, *made]])).logits[0, -1].double()
            for token in {*ids, *made}:
                logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
            for token, bias in (request.get("logit_bias") or {}).items():
                logits[int(token)] += bias
            drawn = torch.multinomial(torch.softmax(logits / (warmth or 1.0), -1), 1, generator=generator)
            made.append(int(drawn) if warmth else int(logits.argmax()))
            if made[-1] == self.tokenizer.eos_token_id:
                return made, "stop"
        return made, "length"

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def entry(self, values: torch.Tensor | None, token: int) -> dict[str, Any]:
        if values is None:
            return {"id": token, "text": self.decode([token]), "value": None, "top": (0, None)}
        best = int(values.argmax())
        return {
            "id": token,
            "text": self.decode([token]),
            "value": float(values[token]),
            "top": (best, float(values[best])),
        }

    def as_lists(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        offsets, size = [], 0
        for entry in entries:
            offsets.append(-1 if self.kind == "sglang" else size)
            size += len(entry["text"])
        tops = []
        for entry in entries:
            best, value = entry["top"]
            own = {} if self.kind == "sglang" else {entry["text"]: entry["value"]}
            tops.append(None if entry["value"] is None else {**own, self.decode([best]): value})
        return {
            "tokens": [e["text"] for e in entries],
            "token_logprobs": [e["value"] for e in entries],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def as_object(self, entry: dict[str, Any], values: torch.Tensor, count: int) -> dict[str, Any]:
        best = values.topk(min(count, len(values)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        top = [{"id": token, "token": self.decode([token]), "logprob": value} for value, token in pairs]
        return {"id": entry["id"], "token": entry["text"], "logprob": entry["value"], "top_logprobs": top}

    def as_places(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        if entry["value"] is None:
            return None
        best, value = entry["top"]
        own = {"logprob": entry["value"], "rank": 1 if best == entry["id"] else 7, "decoded_token": entry["text"]}
        return {str(entry["id"]): own, str(best): {"logprob": value, "rank": 1, "decoded_token": self.decode([best])}}


class _Handler(BaseHTTPRequestHandler):
    server_of: LocalServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args

    def do_GET(self) -> None:
        told = {"vllm": ("/version", "version"), "llamacpp": ("/props", "build_info")}.get(self.server_of.kind)
        if told and self.path == told[0]:
            self.reply(200, {told[1]: "0.1.2"})
            return
        if not self.path.startswith("/v1/"):
            self.reply(404, {"detail": "Not Found"})
            return
        owner = {"vllm": "vllm", "listed": "vllm", "sglang": "sglang", "llamacpp": "llamacpp"}.get(
            self.server_of.kind, "someone"
        )
        rows = [{"id": name, "owned_by": owner, "root": "weights"} for name in self.server_of.names]
        self.reply(200, {"object": "list", "data": rows})

    def do_POST(self) -> None:
        server = self.server_of
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            ids = server.tokenizer(request["content"], add_special_tokens=request["add_special"])["input_ids"]
            self.reply(200, {"tokens": ids})
            return
        with server.lock:
            server.asked.append({**request, "key": self.headers["Authorization"]})
        fault = server.fault()
        if fault == "slow":
            time.sleep(0.6)
        if fault.isdigit():
            self.reply(int(fault), {"error": {"message": "too\nbusy", "code": int(fault)}}, {"Retry-After": "0"})
            return
        if fault == "hang up":
            self.connection.close()
            return
        try:
            reply = server.complete(request)
        except ValueError as error:
            self.reply(400, {"error": {"message": str(error), "type": "BadRequestError"}})
            return
        self.reply(200, LIES[fault](reply) if fault in LIES else reply, fault=fault)

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None, fault: str = "") -> None:
        raw = b"<html>oops" if fault == "garbage" else json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if fault == "drip":
                for i in range(40):
                    self.wfile.write(raw[i : i + 1])
                    time.sleep(0.03)
            self.wfile.write(raw[: len(raw) // 2] if fault == "drop" else raw)
        except OSError:
            pass  # the client has gone, as it should


def _lie(change: Any) -> Any:
    def lie(reply: dict[str, Any]) -> dict[str, Any]:
        found = reply["choices"][0]["logprobs"]
        if found:
            change(found)
        return reply

    return lie


def _noise(found: dict[str, Any]) -> None:
    shift = float(torch.rand(1)) * 3
    found["token_logprobs"] = [v if v is None else v - shift for v in found["token_logprobs"]]
    found["top_logprobs"] = [t and {name: v - shift for name, v in t.items()} for t in found["top_logprobs"]]


def _early(found: dict[str, Any]) -> None:
    # The off-by-one of a server that reads the logits after a token as those of the token.
    for name in ("token_logprobs", "top_logprobs"):
        found[name] = [None, *found[name][2:], found[name][-1]]


def _constant(found: dict[str, Any]) -> None:
    found["token_logprobs"] = [None if v is None else -0.5 for v in found["token_logprobs"]]
    found["top_logprobs"] = [None if t is None else {"x": -0.5} for t in found["top_logprobs"]]


LIES: dict[str, Any] = {
    "two": lambda r: {**r, "choices": r["choices"] * 2},
    "none": lambda r: {**r, "choices": []},
    "mute": lambda r: {**r, "choices": [{**r["choices"][0], "text": "something else"}]},
    "other model": lambda r: {**r, "model": "huge"},
    "aborted": lambda r: {**r, "choices": [{**r["choices"][0], "finish_reason": "abort"}]},
    "uncounted": lambda r: {**r, "usage": None},
    "list": lambda r: [r],
    "error": lambda r: {"object": "error", "message": "worker died"},
    "nan": _lie(lambda f: f["token_logprobs"].__setitem__(-2, float("nan"))),
    "null": _lie(lambda f: f["token_logprobs"].__setitem__(-2, None)),
    "positive": _lie(lambda f: f["token_logprobs"].__setitem__(-2, 0.7)),
    "text": _lie(lambda f: f["token_logprobs"].__setitem__(-2, "-1.0")),
    "short": _lie(lambda f: f["token_logprobs"].pop(1)),
    "left out": _lie(lambda f: [f[name].pop(-2) for name in ("tokens", "token_logprobs", "top_logprobs")]),
    "above the top": _lie(lambda f: f["token_logprobs"].__setitem__(-2, -0.0)),
    "too much": _lie(lambda f: f["top_logprobs"].__setitem__(-2, {"a": -0.1, "b": -0.2})),
    "not greedy": _lie(lambda f: f["token_logprobs"].__setitem__(-1, -20.0)),
    "noise": _lie(_noise),
    "early": _lie(_early),
    "constant": _lie(_constant),
    "shape": _lie(lambda f: f.update(tokens="abc")),
}
