"""One self-contained page: facts in, HTML out. No network, no server, works from a file."""

import functools
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from crossmatch.report.view import build_view


def render_report(facts: Mapping[str, Any]) -> str:
    """The page of a study's facts (report.json). The same facts give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crossmatch.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        view=build_view(facts),
        # Our own files and the chart library: the only texts that are not escaped.
        css=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        vega=Markup(_vega()),
    )


def write_report(facts: Mapping[str, Any], out: Path) -> None:
    """Write the page beside `out` and rename it there."""
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(render_report(facts), encoding="utf-8")
    temporary.replace(out)


def _asset(name: str) -> str:
    return (files("crossmatch.report") / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _vega() -> str:
    # A closing tag inside the library's strings would end the script element.
    bundle: str = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]: the stub forgets the default
    return bundle.replace("</script", "<\\/script")
