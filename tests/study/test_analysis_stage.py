"""The study's last stage."""

from pathlib import Path
from typing import Any

import pytest

from crossmatch import Adapter, Checkpoint
from crossmatch.runtime import SILENT
from crossmatch.study.ledger import Ledger
from crossmatch.study.stages import analysis


def test_a_killed_analysis_goes_on_with_the_directions_it_had(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapters = Checkpoint(models / "base"), {"pt": Adapter(models / "pt")}
    (tmp_path / "stages").mkdir()
    assemble = analysis.assemble

    def killed(*given: Any, **how: Any) -> None:
        assemble(*given, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis, "assemble", killed)
    with pytest.raises(KeyboardInterrupt):
        analysis.explain(base, adapters, tmp_path, Ledger(tmp_path, SILENT))
    kept = list((tmp_path / "directions").rglob("*.safetensors"))
    assert kept
    monkeypatch.setattr(analysis, "assemble", assemble)
    analysis.explain(base, adapters, tmp_path, Ledger(tmp_path, SILENT))
    assert f'"cached": {len(kept)}' in (tmp_path / "analysis.json").read_text()
    assert not (tmp_path / "directions").exists()
