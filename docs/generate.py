"""Write what is generated in docs/: the JSON Schemas, and the table of metrics in evaluate.md. `make generated`."""

import json
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parent


def generated() -> Mapping[Path, str]:
    """File -> the text that it must have."""
    from crossmatch.cli.schema import all_kinds

    return {
        DOCS / "schemas" / f"{name}.json": json.dumps(kind.schema(), indent=2, ensure_ascii=False) + "\n"
        for name, kind in all_kinds().items()
    }


if __name__ == "__main__":
    for file, text in generated().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
