"""Names of data sets, the splits that are scored, where folders lie, and what fetching leaves behind."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import tiny

from retrieval_prompts.data import beir_sets
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.data.beir_sets import FORUMS, LICENSED, PUBLIC, eval_split, expand, folder_of, for_average
from retrieval_prompts.errors import UserError


def test_there_are_the_data_sets_of_the_paper() -> None:
    assert len({*PUBLIC, *LICENSED}) == 19  # 18, and MS MARCO
    assert len(FORUMS) == len(set(FORUMS)) == 12


def test_cqadupstack_is_its_twelve_forums() -> None:
    names = expand(["scifact", "cqadupstack", "mine"])
    assert names[0] == "scifact"
    assert names[-1] == "mine"
    assert names[1:-1] == [f"cqadupstack/{forum}" for forum in FORUMS]
    assert len(expand(["all"])) == len(PUBLIC) - 1 + 12
    with pytest.raises(UserError, match="cqadupstack/gis was named twice"):
        expand(["cqadupstack", "cqadupstack/gis"])
    with pytest.raises(UserError, match="at least one data set"):
        expand([])


def test_ms_marco_is_scored_on_dev_and_all_others_on_test(tmp_path: Path) -> None:
    dataset = load(tiny.write_data(tmp_path / "data", dev=True))
    assert eval_split("msmarco", dataset) == "dev"
    assert eval_split("scifact", dataset) == "test"
    without = load(tiny.write_data(tmp_path / "without"))
    with pytest.raises(UserError, match=r"without has no dev split, only test, train; name one with --split"):
        eval_split("msmarco", without)


def test_a_folder_that_is_there_is_taken_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "cqadupstack" / "gis").mkdir(parents=True)
    assert folder_of("mine", tmp_path) == tmp_path / "mine"
    assert folder_of("cqadupstack/gis", tmp_path) == tmp_path / "cqadupstack" / "gis"


@pytest.mark.parametrize("name", ["../elsewhere", ".", "/etc"])
def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="expected the name of a folder in"):
        folder_of(name, tmp_path / "data")


def test_unknown_and_licensed_names_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data set of BEIR is called 'sciFacts'"):
        folder_of("sciFacts", tmp_path)
    with pytest.raises(UserError, match="may not be handed out"):
        folder_of("bioasq", tmp_path)


def test_a_set_is_fetched_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    util = pytest.importorskip("beir.util", reason="beir is not installed")
    archive = tmp_path / "away" / "scifact.zip"
    archive.parent.mkdir()
    source = tiny.write_data(tmp_path / "away" / "scifact")
    with zipfile.ZipFile(archive, "w") as file:
        for path in source.rglob("*"):
            file.write(path, path.relative_to(source.parent))
    asked: list[str] = []

    def download(url: str, save_path: str, chunk_size: int = 1024) -> None:
        asked.append(url)
        Path(save_path).write_bytes(archive.read_bytes())

    monkeypatch.setattr(util, "download_url", download)
    data_dir = tmp_path / "datasets"
    for _ in range(2):
        assert len(load(folder_of("scifact", data_dir)).corpus) == 40
    assert asked == [beir_sets.ADDRESS.format("scifact")]
    assert [path.name for path in data_dir.iterdir()] == ["scifact"]


@pytest.mark.parametrize("content", [None, b"<html>not found</html>"])
def test_a_failed_download_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    util = pytest.importorskip("beir.util", reason="beir is not installed")

    def download(url: str, save_path: str, chunk_size: int = 1024) -> None:
        if content is None:
            raise OSError("no route to host")
        Path(save_path).write_bytes(content)

    monkeypatch.setattr(util, "download_url", download)
    with pytest.raises(UserError, match=r"scifact does not exist, and https://.* could not be fetched \(.*\); put"):
        folder_of("scifact", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cqadupstack_counts_once_in_an_average() -> None:
    def found(value: float) -> dict[str, Any]:
        return {"frozen": {"ndcg@10": value}}

    forums = {f"cqadupstack/{forum}": found(number / 100) for number, forum in enumerate(FORUMS)}
    merged = for_average({"scifact": found(0.5), **forums})
    assert list(merged) == ["scifact", "cqadupstack"]
    assert merged["cqadupstack"]["frozen"]["ndcg@10"] == pytest.approx(0.055)  # the mean of 0 to 11, in hundredths
    forums.popitem()
    assert len(for_average(forums)) == 11
