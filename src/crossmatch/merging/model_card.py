"""The model card of a merge: its recipe and its proof, for whoever finds the directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from crossmatch.checkpoint import MANIFEST, read_json, read_text
from crossmatch.export.model_index import eval_results
from crossmatch.merging.card_answers import without_answers

CARD = "README.md"
CHECKPOINT = "A checkpoint merged"

_TEMPLATE = """\
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
    """The card in Markdown, from a merge's manifest, without what stands before it."""
    environment = Environment(autoescape=False, keep_trailing_newline=True)
    return environment.from_string(_TEMPLATE).render(title=title, what=what, **manifest["predicate"])


def metadata(manifest: Mapping[str, Any], what: str, results: Sequence[Any] = (), name: str = "") -> str:
    """What the Hub reads of a card, YAML between dashes: `base_model` (base and adapters, those that are on the hub),
    `base_model_relation`, tags, and figures as `model-index`; results: huggingface_hub's EvalResults."""
    from huggingface_hub import ModelCardData

    predicate = manifest["predicate"]
    parts = [predicate["base"], *predicate["adapters"].values()]
    bases = list(dict.fromkeys(part["hub_id"].partition("@")[0] for part in parts if part.get("hub_id")))
    adapter = what != CHECKPOINT
    relation: dict[str, Any] = {"base_model_relation": "adapter" if adapter else "merge"} if bases else {}
    data = ModelCardData(
        base_model=bases or None,
        library_name="peft" if adapter else "transformers",
        tags=["merge", "lora", "crossmatch"],
        model_name=name if results else None,
        eval_results=list(results) or None,
        **relation,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def write_card(out: Path, manifest: Mapping[str, Any], what: str = CHECKPOINT) -> None:
    """Write README.md."""
    text = metadata(manifest, what) + card_text(manifest, _title(manifest), what)
    (out / CARD).write_text(text, encoding="utf-8")


def add_results(out: Path, summary: Mapping[str, Any], variant: str) -> bool:
    """Put the figures of a variant, which is this merge, into its card in the Hub's form.

    False, and nothing changed, for a card that is no longer ours: somebody has written on it.
    """
    manifest, file = read_json(out / MANIFEST), out / CARD
    body = card_text(manifest, _title(manifest), CHECKPOINT)
    before = read_text(file) if file.is_file() else ""
    if not without_answers(before).endswith(f"\n---\n{body.rstrip()}\n"):
        return False
    text = metadata(manifest, CHECKPOINT, eval_results(summary, variant), variant) + body
    if text.rstrip() == without_answers(before).rstrip():
        return True
    temporary = file.with_name(f".{CARD}.crossmatch-partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
    return True


def _title(manifest: Mapping[str, Any]) -> str:
    return " + ".join(f"{a['weight']} {name}" for name, a in manifest["predicate"]["adapters"].items())
