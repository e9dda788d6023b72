"""Small real models and adapters, made with transformers and PEFT; no network, no GPU."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TQDM_DISABLE", "1")
# Two test processes share two cores: threads beyond one each only wait for each other, spinning (the tests of evaluate
# took six times as long), and what is this small gains nothing from a second. Before torch, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Everything that a test writes is held to its declared form (src/crossmatch/results).
os.environ.setdefault("CROSSMATCH_CHECK_RESULTS", "1")

import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import EVERY_CELL, make_adapter, make_llama
from sweeping_models import make_searched, make_study


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of tests marked `covering(axis)` each choice of the other parameters with one value of that axis, in turn; the whole
    cross product with CROSSMATCH_EVERY_CELL=1. A test without other parameters has the value that its name happens to
    give, so that the tests of a file share the values among them. A cell that is asked for by its name is run."""
    marked: dict[Any, list[Any]] = {}
    for item in items if not EVERY_CELL else ():
        mark, call = item.get_closest_marker("covering"), getattr(item, "callspec", None)
        if mark is not None and call is not None and mark.args[0] in call.params:
            marked.setdefault((item.path, item.originalname, mark.args[0]), []).append(item)  # type: ignore[attr-defined]
    left = set()
    for (_, name, axis), cells in marked.items():
        values = {
            other: _different(cell.callspec.params[other] for cell in cells) for other in cells[0].callspec.params
        }
        for cell in cells:
            places = {other: values[other].index(value) for other, value in cell.callspec.params.items()}
            turn = zlib.crc32(name.encode()) + sum(places.values()) - places[axis]
            if places[axis] != turn % len(values[axis]):
                left.add(cell)
    if left:
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]


def _different(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of read-only models: `base` (untied, bfloat16), two adapters on it, and a foreign one."""
    root = tmp_path_factory.mktemp("models")
    make_llama(root / "base")
    make_adapter(root / "base", root / "pt", seed=1)
    make_adapter(root / "base", root / "sft", seed=2)
    make_adapter(root / "base", root / "foreign", seed=3)
    return root


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only chat model with two adapters and two suites."""
    root = tmp_path_factory.mktemp("searched")
    make_searched(root)
    return root


@pytest.fixture(scope="session")
def study(searched: Path) -> dict[str, Any]:
    """A small sweep over it, as plain values."""
    return make_study(searched)


def chromium() -> str | None:
    return os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = chromium()
    if found is None:
        assert not os.environ.get("CROSSMATCH_REQUIRE_BROWSER"), "a browser is required here and there is none"
        pytest.skip("page tests skipped: no Chromium found (set CHROMIUM, or install Debian's package chromium)")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=found, args=flags)
        yield instance
        instance.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a page in the browser, all its parts open and all charts drawn, or folded as a reader meets it;
    `complaints` are its errors, warnings and requests."""
    pages = []

    def opened(html: str, *, folded: bool = False) -> Any:
        (tmp_path / "report.html").write_text(html)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        pages.append(page)
        page.complaints = []
        page.on("console", lambda m: page.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: page.complaints.append(str(e)))
        page.on("request", lambda r: page.complaints.append(r.url) if not r.url.startswith("file:") else None)
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        if not folded:
            page.click("#unfold")
        # Charts of the other tabs are drawn when these are opened.
        undrawn = "[...document.querySelectorAll('[data-chart]')].filter((c) => c.getClientRects().length)"
        page.wait_for_function(f"{undrawn}.every((c) => c.dataset.drawn === 'yes')")
        return page

    yield opened
    for page in pages:
        page.close()
