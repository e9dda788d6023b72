"""The model card of a merge: its recipe and its proof, for whoever finds the directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment

_TEMPLATE = """\
---
tags: [merge, lora, crossmatch]
---
# {{ title }}

{{ what }} by `crossmatch {{ versions.crossmatch }}`. All digests are in `crossmatch.json`.

| adapter | weight | blake3 |
|---|---|---|
{% for name, a in adapters.items() -%}
| {{ name }}{{ " (%s@%s)" | format(a.hub_id, a.revision) if a.hub_id }} | {{ a.weight }} \
| `{{ (a.digest or "-")[:16] }}` |
{% endfor %}
- base: {{ base.hub_id or base.path }}{{ " at " ~ base.revision if base.revision }}, blake3 `{{ base.digest[:16] }}`
- rule: {{ rule }}{% for key, value in parameters.items() %}, {{ key }} {{ value }}{% endfor %}
- stored as {{ dtypes | join(", ") }}
{% for line in notes -%}
- {{ line }}
{% endfor -%}
{% if verdict %}
**{{ verdict.verdict }}**{{ " (%s)" | format(verdict.scope) if verdict.scope }}
{%- for name, w in verdict.weights.items() if w.recovered is not none %}{{ ":" if loop.first else "," }} {{ name }} \
{{ "%.5f" | format(w.recovered) }} (claimed {{ w.claimed }}){% endfor %}

To judge the files again: `crossmatch verify .`
{% endif %}"""


def card_text(manifest: Mapping[str, Any], title: str, what: str) -> str:
    """The card in Markdown, from a merge's manifest."""
    environment = Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701: Markdown, not a page
    return environment.from_string(_TEMPLATE).render(title=title, what=what, **manifest["predicate"])


def write_card(out: Path, manifest: Mapping[str, Any], what: str = "A checkpoint merged") -> None:
    """Write README.md."""
    weights = " + ".join(f"{a['weight']} {name}" for name, a in manifest["predicate"]["adapters"].items())
    (out / "README.md").write_text(card_text(manifest, weights, what), encoding="utf-8")
