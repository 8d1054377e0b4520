"""Prompts and an index of pictures for the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command, command_line
from image_commands import fitted

from multimodal.cli import app as cli


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line("multimodal-prompts", cli.main, monkeypatch, capsys)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, picture_folder: Path) -> Path:
    return fitted(tmp_path_factory.mktemp("prompts") / "coop", clip_folder, picture_folder)


@pytest.fixture(scope="module")
def caption_prompts(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, caption_folder: Path) -> Path:
    from multimodal.experiments.captions import CaptionSplits, tune
    from multimodal.towers.clip import load_clip
    from multimodal.training.settings import Settings

    out = tmp_path_factory.mktemp("prompts") / "captions"
    settings = Settings.of(epochs=2, learning_rate=0.05, batch_size=8, shots=None)
    data = CaptionSplits.read(caption_folder / "captions.csv")
    tune(load_clip(str(clip_folder), device="cpu"), data, settings, out)
    return out


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, caption_folder: Path) -> Path:
    """Of the captioned pictures, without their captions."""
    from multimodal.data.pictures import load_pictures
    from multimodal.towers.clip import load_clip
    from multimodal.vectors.image_index import build_index

    folder = tmp_path_factory.mktemp("index") / "index"
    clip = load_clip(str(clip_folder), device="cpu")
    build_index(clip, load_pictures(caption_folder), root=caption_folder).save(folder)
    return folder
