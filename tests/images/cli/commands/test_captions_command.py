"""tune and evaluate on captions."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Command
from image_commands import QUICK, check

from multimodal.prompts import folder as artifacts


def check_captions(result: dict[str, Any], systems: list[str]) -> None:
    check(result, "retrieval", systems, set())
    for both in result["systems"].values():
        assert list(both) == ["i2t", "t2i"]
        assert all(list(scores) == ["r@1", "r@5", "r@10"] for scores in both.values())


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_captions(
    command: Command, clip_folder: Path, caption_folder: Path, caption_prompts: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "prompts"
    done = command("tune", caption_folder / name, "--out", out, "--model", clip_folder, "--json", "-", *QUICK)
    assert done.code == 0
    check_captions(done.json, ["zero-shot", "tuned"])
    assert f'multimodal-prompts search INDEX "words" --prompts {out}' in done.err
    state, expected = artifacts.load(out).state, artifacts.load(caption_prompts).state
    assert all(torch.equal(value, expected[key]) for key, value in state.items())

    evaluated = command("evaluate", caption_folder / name, "--prompts", out, "--json", "-", "--device", "cpu")
    check_captions(evaluated.json, ["zero-shot", "tuned"])
    assert evaluated.json["systems"] == done.json["systems"]
    done = command("evaluate", caption_folder / name, "--model", clip_folder, "--protocol", "retrieval")
    assert done.code == 0 and "I→T R@1" in done.out and "zero-shot" in done.out


def test_captions_elsewhere_gzipped(command: Command, clip_folder: Path, caption_folder: Path, tmp_path: Path) -> None:
    for name in ("captions.csv", "captions.jsonl"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((caption_folder / name).read_bytes()))
        options = ["--images", caption_folder, "--model", clip_folder, "--split", "test"]
        done = command("evaluate", tmp_path / f"{name}.gz", *options, "--json", "-")
        assert done.code == 0, done.err
        check_captions(done.json, ["zero-shot"])


def test_strength_of_captions(command: Command, caption_folder: Path, caption_prompts: Path) -> None:
    evaluate = ["evaluate", caption_folder / "captions.csv", "--prompts", caption_prompts, "--json", "-"]
    systems = command(*evaluate, "--strength", "0").json["systems"]
    assert systems["tuned"] == systems["zero-shot"]
