"""No network, at most two threads, a cache of the tests' own; toy towers (toys.py) and a tiny CLIP as fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny_clip
import toys

if TYPE_CHECKING:
    from multimodal.data.images import ImageData
    from multimodal.towers.clip import Clip
    from retrieval_prompts.towers.text import TextTower

# Before torch and huggingface_hub are imported; subprocesses inherit them
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # one of a process a core
    os.environ["OMP_NUM_THREADS"] = "1"
else:
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
    from retrieval_prompts.towers.text import load_tower

    return lambda architecture, **options: load_tower(toy(architecture, **options), device="cpu")


@pytest.fixture(params=toys.ARCHITECTURES)
def tower(request: pytest.FixtureRequest, toy_tower: Callable[..., TextTower]) -> TextTower:
    """A toy tower of each architecture."""
    return toy_tower(request.param)


@pytest.fixture(params=toys.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny CLIP of tiny_clip.py, in open_clip's format."""
    return tiny_clip.write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(clip_folder: Path) -> Clip:
    """The same, loaded once: no test may change it."""
    from multimodal.towers.clip import load_clip

    return load_clip(str(clip_folder), device="cpu")


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of four colours; see `tiny_clip.write_images`."""
    return tiny_clip.write_images(tmp_path_factory.mktemp("pictures") / "colours")


@pytest.fixture(scope="session")
def colours(picture_folder: Path) -> ImageData:
    from multimodal.data.images import load_images

    return load_images(picture_folder)


@pytest.fixture(scope="session")
def caption_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """captions.csv and captions.jsonl, and pictures/."""
    return tiny_clip.write_captions(tmp_path_factory.mktemp("captioned"))
