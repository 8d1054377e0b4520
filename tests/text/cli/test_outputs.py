"""Outputs that exist: refused before any work, replaced on request."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import Command
from text_commands import ONCE, refused, tree

from retrieval_prompts.biencoder import BiEncoder


def test_outputs_that_exist_are_refused_before_any_work(
    command: Command, model: Path, data: Path, query_prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work before the check")

    folder, file, new = tmp_path / "folder", tmp_path / "file", tmp_path / "new"
    shutil.copytree(query_prompts, folder)
    file.write_text("old")
    before = tree(tmp_path)
    monkeypatch.setattr("retrieval_prompts.data.beir_folder.load", work)
    monkeypatch.setattr("retrieval_prompts.data.beir_folder.load_corpus", work)
    monkeypatch.setattr(BiEncoder, "load", work)
    for arguments in (
        ["tune", data, "--out", folder],
        ["tune", data, "--out", new, "--json", file],
        ["evaluate", data, "--json", file],
        ["evaluate", data, "--run", file],
        ["index", data, "--out", folder],
        ["export", query_prompts, "--out", folder],
    ):
        path = file if file in arguments else folder
        refused(command(*arguments), f"{path} exists already; choose another name or pass --overwrite")
    # What is no output of ours stays, whatever is passed
    for arguments, path, holds in (
        (["tune", data, "--out", data], data, "prompt.json"),
        (["tune", data, "--out", file], file, "prompt.json"),
        (["index", data, "--out", folder], folder, "manifest.json"),
        (["export", query_prompts, "--out", folder], folder, "modules.json"),
    ):
        message = f"{path} is not replaced, as it is something else: it holds no {holds}; choose another name"
        refused(command(*arguments, "--overwrite"), message)
    refused(command("evaluate", data, "--json", folder, "--overwrite"), f"{folder} is a folder; expected the name of a")
    message = f"{folder} is not replaced, as it is something else: it holds no results.json; choose another name"
    refused(command("evaluate", data, "--run", folder, "--overwrite"), message)
    refused(command("tune", data, "--out", file / "out"), f"{file / 'out'} cannot be written: {file} is not a folder")
    assert tree(tmp_path) == before


def test_outputs_are_replaced_on_request(
    command: Command, model: Path, data: Path, query_prompts: Path, index: Path, tmp_path: Path
) -> None:
    out, result, run, place, checkpoint = (tmp_path / name for name in ("out", "result", "run", "index", "checkpoint"))
    shutil.copytree(query_prompts, out)
    shutil.copytree(index, place)
    checkpoint.mkdir()
    (checkpoint / "modules.json").write_text("[]")
    (checkpoint / "config_sentence_transformers.json").write_text("{}")
    result.write_text("old")
    run.mkdir()
    (run / "results.json").write_text("{}")
    (run / "data.frozen.trec").write_text("")
    before = tree(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    for arguments in (
        ["tune", data, "--model", model, "--out", out, "--json", result, "--seed", "1", *ONCE],
        ["evaluate", data, "--model", model, "--run", run, "--json", result],
        ["index", data, "--model", model, "--out", place, "--factory", "SQfp16"],
        ["export", query_prompts, "--out", checkpoint],
    ):
        assert command(*arguments, "--overwrite").code == 0
    after = tree(tmp_path)
    for name in (
        "out/prompt.safetensors",
        "result",
        "run/results.json",
        "index/index.faiss",
        "checkpoint/modules.json",
    ):
        assert before[name] != after[name]
    assert sorted(path.name for path in tmp_path.iterdir()) == names  # nothing lies beside them
