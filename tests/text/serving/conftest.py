"""One tiny index with prompts, and one server over it, for all tests of servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the server is in the extra `serve`")
from toy_server import NAMES, Running, running, web_of, write_home


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_home(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="package")
def server(home: Path) -> Iterator[Running]:
    """All prompts are loaded; no test may change which."""
    with running(web_of(home, *NAMES)) as found:
        yield found
