"""A tiny model and a cache of its own for each file of tests: what is encoded, and what was there, is counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that document vectors are cached in."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("RETRIEVAL_PROMPTS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))
