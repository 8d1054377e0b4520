"""No network, at most two threads, a cache of the tests' own; and the toy towers of toys.py as fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import toys

if TYPE_CHECKING:
    from retrieval_prompts.tower import TextTower

# Before torch and huggingface_hub are imported; subprocesses inherit them
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that document vectors are cached in."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("RETRIEVAL_PROMPTS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(architecture, options of `toys.build`) -> the folder of a toy model, made once."""
    made: dict[str, Path] = {}

    def folder(architecture: str, **options: Any) -> Path:
        key = f"{architecture} {sorted(options.items())}"
        if key not in made:
            made[key] = toys.build(tmp_path_factory.mktemp(architecture), architecture, **options)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def toy_tower(toy: Callable[..., Path]) -> Callable[..., TextTower]:
    """(architecture, options of `toys.build`) -> a tower, loaded anew at each call."""
    from retrieval_prompts.tower import load_tower

    return lambda architecture, **options: load_tower(toy(architecture, **options), device="cpu")


@pytest.fixture(params=toys.ARCHITECTURES)
def tower(request: pytest.FixtureRequest, toy_tower: Callable[..., TextTower]) -> TextTower:
    """A toy tower of each architecture."""
    return toy_tower(request.param)


@pytest.fixture(params=toys.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param
