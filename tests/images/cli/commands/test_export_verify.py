"""export and verify."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from command_line import Command
from image_commands import fitted, refused
from tiny_clip import NAMES


def test_export(command: Command, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    done = command("export", prompts, "--out", out, "--device", "cpu")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{out}: classes.safetensors, classes.json, index/ (4 classes)\n"
    assert sorted(path.name for path in out.iterdir()) == [
        *("SHA256SUMS", "classes.json", "classes.safetensors", "index")
    ]
    assert json.loads((out / "classes.json").read_text())["names"] == list(NAMES)
    refused(command("export", prompts, "--out", out), r"export exists already; .*--overwrite")
    done = command("export", prompts, "--out", out, "--classes", "cat,dog", "--overwrite")
    assert done.out.endswith("(2 classes)\n")
    assert json.loads((out / "classes.json").read_text())["names"] == ["cat", "dog"]
    refused(command("search", out / "index", "cat"), "index is not an index of images; texts are searched by")


def test_export_says_where_the_head_is(
    command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path
) -> None:
    headed = fitted(tmp_path / "headed", clip_folder, picture_folder, head="proker")
    for given, said in (
        ((), "with the head that answers for them: proker"),
        (("--classes", "cat,dog"), "without the head, .* of the training alone, at full strength: the prompt's class"),
        (("--strength", "0.5"), "without the head, .* of the training alone, at full strength: the prompt's class"),
    ):
        done = command("export", headed, "--out", tmp_path / "out", "--overwrite", *given)
        assert done.code == 0 and re.match(said, done.out.splitlines()[1])


def test_verify(command: Command, prompts: Path, index: Path, picture_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(prompts, tmp_path / "prompts")
    shutil.copytree(index, tmp_path / "index")
    assert command("export", prompts, "--out", tmp_path / "export").code == 0
    picture = picture_folder / "test" / "blue" / "0.png"
    assert command("classify", prompts, picture, "--cache", tmp_path / "cache").code == 0
    kinds = {"cache": "image features", "export": "classifier", "index": "index", "prompts": "prompts"}
    done = command("verify", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert [line.rpartition(": ")[2] for line in done.out.splitlines()] == [f"{each}, sound" for each in kinds.values()]
    tried = 0
    for name, kind in kinds.items():
        for path in sorted((tmp_path / name).rglob("*.*")):
            if path.is_file():
                whole = path.read_bytes()
                path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
                done = command("verify", tmp_path)
                path.write_bytes(whole)
                assert done.code == 1, path
                (wrong,) = [line for line in done.out.splitlines() if "NOT SOUND" in line]
                assert wrong.startswith(str(tmp_path / name)) and f": {kind}, NOT SOUND: " in wrong
                tried += 1
    assert tried > 14
