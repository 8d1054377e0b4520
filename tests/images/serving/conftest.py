"""One tiny index of pictures with prompts, and one server over it, for all tests of servers of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("uvicorn", reason="the server is in the extra `serve`")
from toy_picture_server import NAMES, Home, write_home
from toy_server import Running, running

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Clip) -> Home:
    return write_home(tmp_path_factory.mktemp("served"), tiny_model)


@pytest.fixture(scope="package")
def server(home: Home) -> Iterator[Running]:
    """All prompts are loaded; no test may change which."""
    with running(home.web(*NAMES)) as found:
        yield found


@pytest.fixture(scope="package")
def classify(server: Running) -> Callable[..., Any]:
    def call(**body: Any) -> Any:
        said = server.call("POST", "/classify", body)
        assert said.status == 200, said.body
        return said.json

    return call
