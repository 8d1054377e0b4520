"""retrieval-prompts verify and multimodal-prompts verify: what is sound, and any single change to what is."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from command_line import Command, command_line

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.cli.app import main
from retrieval_prompts.evaluation.trec_runs import write_run
from retrieval_prompts.files import list_digest, sealed, write_json
from retrieval_prompts.interop.peft import write_adapter
from retrieval_prompts.prompts.folder import PromptFolder, save_prompts
from retrieval_prompts.training.loop import LoopSettings, fit

BASE = {"name": "toy", "fingerprint": "f" * 64, "dimension": 6, "width": 4}
FIRST = Path(__file__).parents[4] / "data" / "text_prompts_1"  # of an older format


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line("retrieval-prompts", main, monkeypatch, capsys, columns=300)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each: prompts, an index with words, an export, an adapter, runs, a checkpoint of training, a cache."""
    from typer.testing import CliRunner

    from retrieval_prompts.cli.app import app

    folder = tmp_path_factory.mktemp("all")
    model = tiny.write_model(tmp_path_factory.mktemp("model"))
    data = tiny.write_data(tmp_path_factory.mktemp("data") / "toy", dev=True)
    biencoder = BiEncoder.load(model, device="cpu").attach("query", length=2)
    biencoder.save(folder / "prompts")
    biencoder.export(folder / "export")
    with pytest.warns(UserWarning, match="PEFT puts input prompts before the leading special tokens"):
        write_adapter(biencoder, folder / "adapter")
    for arguments in (
        ["index", data, "--model", model, "--out", folder / "index", "--cache", folder / "cache"],
        ["evaluate", data, "--model", model, "--run", folder / "runs", "--cache", folder / "cache"],
    ):
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert done.exit_code == 0, done.output
    point = torch.nn.Linear(2, 1)
    loop, loss = LoopSettings(1), lambda _: point.weight.sum()
    list(fit(point, lambda _: [0], loss, None, loop, checkpoint=folder / "x.partial"))
    return folder


def lines(folder: Path) -> dict[str, str]:
    return {
        "adapter": "PEFT adapter",
        "cache": "cached vectors",
        "export": "checkpoint of sentence-transformers",
        "index": "index",
        "prompts": "prompts",
        "runs": "runs",
        "x.partial": "checkpoint",
    }


def test_all_is_sound(command: Command, everything: Path) -> None:
    done = command("verify", everything)
    assert (done.code, done.err) == (0, "")
    said = done.out.splitlines()
    for name, kind in lines(everything).items():
        assert any(line.startswith(str(everything / name)) and line.endswith(f": {kind}, sound") for line in said)
    assert len(said) == len(lines(everything))
    done = command("verify", everything / "index", everything / "x.partial", "--json", "-")
    assert done.json == [
        {"path": str(everything / "index"), "kind": "index", "sound": True, "reason": ""},
        {"path": str(everything / "x.partial"), "kind": "checkpoint", "sound": True, "reason": ""},
    ]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])]
)
def test_any_changed_file_of_any_artifact_is_named_in_one_line(
    damage: Callable[[Path], object], command: Command, everything: Path, tmp_path: Path
) -> None:
    files = [path.relative_to(everything) for path in sorted(everything.rglob("*")) if path.is_file()]
    tried = 0
    for name in files:
        alone = name.name == "x.partial" or name.parts[0] == "cache"  # deleted, there is nothing to look at
        unlisted = name.name == "SHA256SUMS" and damage is Path.unlink  # nobody can tell then
        if unlisted or (alone and damage is Path.unlink):
            continue
        top = name.parts[0]
        kind = lines(everything)[top]
        copy = tmp_path / str(tried)
        if (everything / top).is_dir():
            shutil.copytree(everything / top, copy / top)
        else:
            copy.mkdir()
            shutil.copy(everything / top, copy / top)
        damage(copy / name)
        done = command("verify", copy)
        assert done.code == 1, (name, done)
        (wrong,) = [line for line in done.out.splitlines() if "NOT SOUND" in line]
        assert f": {kind}, NOT SOUND: " in wrong
        tried += 1
    assert tried > 20


def test_what_has_no_checksums_cannot_be_told(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    shutil.copytree(FIRST, folder)
    done = command("verify", folder)
    assert done.code == 0
    assert done.out == f"{folder}: prompts, cannot be checked: written without checksums\n"


def test_what_is_no_artifact(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command("verify", tmp_path)
    assert (done.code, done.out) == (1, f"{tmp_path}: holds no artifact that this package knows\n")
    done = command("verify", tmp_path / "file")
    assert (done.code, done.out) == (
        1,
        f"{tmp_path / 'file'}: file, NOT SOUND: it is not an artifact of this package\n",
    )
    done = command("verify", tmp_path / "nowhere")
    assert (done.code, done.err) == (2, f"error: {tmp_path / 'nowhere'} does not exist\n")


def test_a_list_of_nothing_vouches_for_nothing(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.trec").write_text("q Q0 d 1 1.0 x\n")
    for content in ("", "what is no list\n"):
        (tmp_path / "SHA256SUMS").write_text(content)
        assert command("verify", tmp_path).out == f"{tmp_path}: runs, cannot be checked: written without checksums\n"


def test_a_link_to_itself_does_not_end_the_search(command: Command, everything: Path, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    shutil.copytree(everything / "prompts", tmp_path / "prompts")
    assert command("verify", tmp_path).out == f"{tmp_path / 'prompts'}: prompts, sound\n"


def test_a_benchmark_whose_results_or_runs_are_gone(command: Command, tmp_path: Path) -> None:
    run = {"q": {"d": 1.0}}
    write_run(tmp_path / "toy.frozen.trec", run, "frozen")
    write_run(tmp_path / "toy.bm25.trec", run, "bm25")
    for name in ("table.md", "table.csv"):
        (tmp_path / name).write_text("| |")
        list_digest(tmp_path / name)
    results: dict[str, Any] = {"datasets": {"toy": {"systems": {"frozen": {}, "bm25": {}}}}}
    write_json(tmp_path / "results.json", sealed(results))
    assert command("verify", tmp_path).out == f"{tmp_path}: runs, sound\n"
    (tmp_path / "toy.linear.trec").write_text("q Q0 d 1 1.0 x\n")  # of a system that was cut short: not in results.json
    assert command("verify", tmp_path).code == 0
    sums = (tmp_path / "SHA256SUMS").read_text()
    (tmp_path / "SHA256SUMS").write_text(sums.replace("  table.csv", " (table.csv"))  # one bit
    assert "SHA256SUMS does not list table.csv; it was changed" in command("verify", tmp_path).out
    (tmp_path / "SHA256SUMS").write_text(sums)
    (tmp_path / "results.json").rename(tmp_path / "kept")
    assert "results.json is gone, and table.md is made from it" in command("verify", tmp_path).out
    (tmp_path / "kept").rename(tmp_path / "results.json")
    (tmp_path / "toy.bm25.trec").unlink()
    (tmp_path / "SHA256SUMS").unlink()
    assert "toy.bm25.trec is gone, though results.json has figures of it" in command("verify", tmp_path).out


def test_an_edited_strength_is_no_sound_prompt(command: Command, tmp_path: Path) -> None:
    save_prompts(tmp_path / "prompts", PromptFolder("input", {"query": torch.ones(1, 2, 4)}, BASE))
    path = tmp_path / "prompts" / "prompt.json"
    path.write_text(path.read_text().replace('"strength": 1.0', '"strength": 0.5'))
    done = command("verify", tmp_path)
    assert done.code == 1
    assert "prompt.json was changed after it was written (its sha256 differs)" in done.out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("pipe", ["prompt.json", "manifest.json", "bm25/words.json", "SHA256SUMS", "x.partial"])
def test_a_pipe_in_place_of_a_file_is_not_read(command: Command, everything: Path, tmp_path: Path, pipe: str) -> None:
    artifact = {"prompt.json": "prompts", "SHA256SUMS": "runs", "x.partial": "x.partial"}.get(pipe, "index")
    place = tmp_path / artifact
    if (everything / artifact).is_dir():
        shutil.copytree(everything / artifact, place)
        place = place / pipe
        place.unlink()
    os.mkfifo(place)

    def feed() -> None:  # so that whoever reads it comes to an end
        place.open("w").close()

    threading.Thread(target=feed, daemon=True).start()
    done = command("verify", tmp_path / artifact)
    assert (done.code, done.err) == (1, "")
    assert f"NOT SOUND: {place} is not a regular file but a pipe, a socket or a device; it is not read" in done.out


def test_a_link_to_a_description_elsewhere_is_not_read(command: Command, everything: Path, tmp_path: Path) -> None:
    shutil.copytree(everything / "prompts", tmp_path / "prompts")
    (tmp_path / "other.json").write_text('{"for": "clip"}')
    (tmp_path / "prompts" / "prompt.json").unlink()
    (tmp_path / "prompts" / "prompt.json").symlink_to(tmp_path / "other.json")
    done = command("verify", tmp_path / "prompts")
    assert done.code == 1 and "other.json, outside its folder; it is not read" in done.out
