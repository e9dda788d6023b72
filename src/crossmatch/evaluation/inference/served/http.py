"""JSON over HTTP with a deadline, retries and one-line reasons; nothing here knows what is asked."""

import json
import random
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2

from crossmatch.errors import InputError

T = TypeVar("T")

LONGEST_PAUSE = 30.0
LONGEST_WISH = 300.0
LARGEST_REPLY = 1 << 27
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class ServerError(Exception):
    """A request that came to nothing; the text is one line.

    again: asking again may help; reached: the server said something; wait: seconds that it asked for.
    """

    def __init__(self, reason: str, *, again: bool = True, reached: bool = True, wait: float | None = None) -> None:
        super().__init__(one_line(reason))
        self.again, self.reached, self.wait = again, reached, wait


class Transport:
    """Requests to one server.

    timeout: seconds for one request, from connecting to the last byte; retries: further tries after the first;
    pause: seconds before the first of them, doubled each time (at most 30 s), with jitter.
    Raises InputError if the URL cannot be one.
    """

    def __init__(self, url: str, key: str | None, timeout: float, retries: int, pause: float) -> None:
        try:
            parts = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise InputError(f"{url} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.userinfo:
            raise InputError(f"{parts.host or url} is no server; give its URL as http://host:port, the key apart")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._timeout, self._retries, self._pause = timeout, retries, pause
        self._stop = threading.Event()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        # Proxies of the environment are not asked: the server is named, and mostly this machine.
        self._client = httpx2.Client(
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=timeout,
            limits=httpx2.Limits(max_connections=None),
            verify=ssl.create_default_context() if parts.scheme == "https" else False,
            trust_env=False,
        )
        weakref.finalize(self, self._client.close)

    def ask(self, path: str, payload: Any, read: Callable[[Any], T]) -> T:
        """POST `payload` (None: GET) and return what `read` makes of the reply; a ServerError of `read` counts too.

        Raises ServerError when no try is left or none would help, with the last reason.
        """
        stop = self._stop
        for attempt in range(self._retries + 1):
            try:
                return read(self._once(path, payload))
            except ServerError as error:
                wait = error.wait if error.wait is not None else self._backoff(attempt)
                if not error.again or attempt == self._retries or stop.is_set():
                    tried = f" ({attempt + 1} tries)" if attempt else ""
                    raise ServerError(f"{error}{tried}", again=False, reached=error.reached) from error
                if wait > LONGEST_WISH:
                    raise ServerError(f"{error}; it asks for {wait:.0f} s of waiting", again=False) from error
                stop.wait(wait)
        raise AssertionError("the last try returns or raises")

    def abandon(self) -> None:
        """Let nobody wait for a further try: whoever asked has gone."""
        self._stop.set()
        self._stop = threading.Event()

    def _backoff(self, attempt: int) -> float:
        # Many threads that failed together must not come back together.
        return min(LONGEST_PAUSE, self._pause * 2**attempt) * random.uniform(0.5, 1.0)

    def _once(self, path: str, payload: Any) -> Any:
        try:
            status, headers, body = self._exchange(path, payload)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise ServerError(f"{self.url} did not answer within {self._timeout:g} s", reached=False) from error
        except httpx2.HTTPError as error:
            raise self._unreached(error) from error
        if status != httpx2.codes.OK:
            again = status in _AGAIN or status > 504
            wish = _wish(headers.get("Retry-After")) if again else None
            raise ServerError(f"{self.url} answered {status}: {_complaint(body)}", again=again, wait=wish)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ServerError(f"{self.url} answered with what is not JSON: {error}") from error

    def _exchange(self, path: str, payload: Any) -> tuple[int, httpx2.Headers, bytes]:
        deadline = time.monotonic() + self._timeout
        content = None if payload is None else json.dumps(payload).encode()
        body = bytearray()
        with self._client.stream("GET" if payload is None else "POST", self.url + path, content=content) as response:
            for part in response.iter_bytes():
                # The client's timeout is for one read; a server that drips bytes would never meet it.
                if time.monotonic() > deadline:
                    raise TimeoutError
                body += part
                if len(body) > LARGEST_REPLY:
                    raise ServerError(f"{self.url} answered with more than {LARGEST_REPLY >> 20} MiB", again=False)
        return response.status_code, response.headers, bytes(body)

    def _unreached(self, error: httpx2.HTTPError) -> ServerError:
        """Why no reply came: the client's error wraps the system's."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return ServerError(f"{self.url}: {cause.verify_message}", again=False, reached=False)
            if isinstance(cause, ConnectionRefusedError):
                return ServerError(f"{self.url} refuses the connection; is the server up?", reached=False)
            cause = cause.__cause__ or cause.__context__
        return ServerError(f"{self.url} dropped the connection: {error or type(error).__name__}", reached=False)


def one_line(text: str, limit: int = 300) -> str:
    """Printable text on one line, of at most `limit` characters: what a server says is nobody's markup."""
    flat = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _complaint(body: bytes) -> str:
    """The message in an error's body, in the shapes that servers use, else its text."""
    text = body.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text or "nothing"
    while isinstance(found, dict):
        inner = next((found[name] for name in ("error", "message", "detail") if found.get(name)), None)
        if inner is None:
            break
        found = inner
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _wish(header: str | None) -> float | None:
    """Seconds in a Retry-After header, which holds seconds or a date."""
    if header is None:
        return None
    try:
        wished = float(header)
    except ValueError:
        wished = _seconds_until(header)
    return None if wished is None else max(0.0, wished)


def _seconds_until(date: str) -> float | None:
    """Seconds from now to a date as HTTP writes it, in UTC where it names no zone; None for what is no date."""
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
