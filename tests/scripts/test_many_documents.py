"""What eval/speed/many_documents.py measures: a command whole, documents that are found again, slopes between sizes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from retrieval_prompts.data.beir_folder import load

SCRIPT = Path(__file__).resolve().parents[2] / "eval" / "speed" / "many_documents.py"


@pytest.fixture
def script() -> Any:
    specification = importlib.util.spec_from_file_location("many_documents", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_documents_are_made_in_blocks_and_judged(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "BLOCK", 70)
    script.make_data(str(tmp_path / "data"), "150")
    data = load(tmp_path / "data")
    assert data.corpus.ids == [f"document-{number}" for number in range(150)]
    assert {len(document.text.split()) for document in data.corpus} == {8}
    assert len(data.split("train")[0]) == script.QUERIES
    assert data.queries["q3"] == " ".join(data.corpus[3].text.split()[:3])


def test_a_process_is_watched(script: Any) -> None:
    command = [sys.executable, "-c", "import time; held = bytearray(50_000_000); time.sleep(0.2)"]
    found = script.watched(command)
    assert found["peak_bytes"] >= found["anonymous_bytes"] > 50_000_000
    with pytest.raises(SystemExit, match="ended with status 3\nwhy"):
        script.watched([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])


def test_slopes_are_between_the_fewest_and_the_most(script: Any) -> None:
    sizes = {
        count: {step: {"peak_bytes": 500 + 3 * count, "anonymous_bytes": 7} for step in script.STEPS}
        for count in (10, 30, 20)
    }
    assert script.slopes(sizes) == {step: {"peak_bytes": 3.0, "anonymous_bytes": 0.0} for step in script.STEPS}
    assert script.slopes({10: sizes[10]}) == {}
    assert json.dumps(script.slopes(sizes))
