"""One answer record."""

from typing import Any

Record = dict[str, Any]

Records = dict[tuple[str, str, str], list[Record]]
