"""One self-contained page: facts in, HTML out. No network, no server, works from a file."""

import base64
import functools
import gzip
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from altair.utils.schemapi import debug_mode
from markupsafe import Markup

from crossmatch.report.page.study import analysis_view, build_view, evaluation_view
from crossmatch.report.page.sweep import sweep_view


# Charts are not held to Vega-Lite's schema: with the data in them that takes a minute. Tests draw them, as SVG and in a
# browser, and look at what stands there.
def render_report(facts: Mapping[str, Any]) -> str:
    """The page of a study's facts (report.json). The same facts give the same bytes."""
    with debug_mode(False):
        return _rendered("page.html", build_view(facts))


def render_evaluation(facts: Mapping[str, Any]) -> str:
    """The page of what `crossmatch evaluate` left: `name`, its `summary`, and `samples` and `interference` if any."""
    with debug_mode(False):
        return _rendered("page.html", evaluation_view(facts))


def render_analysis(facts: Mapping[str, Any]) -> str:
    """The page of the facts of `crossmatch analyse`."""
    with debug_mode(False):
        return _rendered("analysis.html", analysis_view(facts))


def render_sweep(facts: Mapping[str, Any]) -> str:
    """The page of the facts of `crossmatch sweep`."""
    return _rendered("sweep.html", sweep_view(facts))


def write_page(page: str, out: Path) -> None:
    """Write a page beside `out` and rename it there."""
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(out)


def _rendered(template: str, view: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crossmatch.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        view=view,
        # Our own files and the chart library: the only texts that are not escaped.
        css=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        vega=_packed(_vega()),
        packed=_packed(json.dumps(_shown_by_script(view), ensure_ascii=False, separators=(",", ":"))),
    )


def _shown_by_script(view: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script needs: charts, answers side by side, their order."""
    kept = {name: view.get(name) for name in ("charts", "samples", "reference", "order")}
    return {**kept, "name": view["slug"]}


def _packed(text: str) -> Markup:
    """A text that browsers unpack themselves: gzip, without a time, in base64. No character of it ends an element."""
    return Markup(base64.b64encode(gzip.compress(text.encode("utf-8", "surrogatepass"), 9, mtime=0)).decode())


def _asset(name: str) -> str:
    return (files("crossmatch.report") / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _vega() -> str:
    return vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]: the stub forgets the default
