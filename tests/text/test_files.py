"""Files and folders that appear whole or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_output, new_folder, read_json, write_bytes, write_json


def tree(folder: Path) -> dict[str, str | None]:
    """Every path below a folder, with the text of each file."""
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else None for path in folder.rglob("*")}


class Stop(BaseException):
    """Something that no `except Exception` sees, as Ctrl-C is."""


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_written_with_its_parents_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert tree(tmp_path) == {"a": None, "a/b": None, "a/b/file": "two"}


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"")
        with new_folder(tmp_path / "folder", holds="mark"):
            pass
        assert os.umask(0o027) == 0o027  # and the mask is left as it was
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Stop

    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Stop):
        write_bytes(path, b"new")
    assert tree(tmp_path) == {"file": "old"}


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"naïve": [1, 0.1, None, True], "empty": {}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert "naïve" in (tmp_path / "file.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "file.json").read_bytes()) == value


def test_json_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    with pytest.raises(UserError, match=f"^{path} does not exist$"):
        read_json(path)
    for content in (b"{", b"", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"^{path} is not valid JSON \\(.*\\)$"):
            read_json(path)


# --- outputs that exist -------------------------------------------------------------------------------------------


def test_an_output_that_exists_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    for path in (tmp_path / "file", tmp_path / "folder"):
        check_output(path, overwrite=False)
        if path.name == "file":
            path.write_text("")
        else:
            path.mkdir()
        with pytest.raises(UserError, match=f"^{path} exists already; choose another name or pass --overwrite"):
            check_output(path, overwrite=False)
    check_output(tmp_path / "file", overwrite=True)
    check_output(tmp_path / "folder", overwrite=True, holds="mark")


def test_what_is_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("precious")
    before = tree(tmp_path)
    for name in ("file", "folder"):
        with (
            pytest.raises(
                UserError, match=f"^{tmp_path / name} is not replaced, for it is something else: it holds no m"
            ),
            new_folder(tmp_path / name, holds="mark", overwrite=True),
        ):
            raise AssertionError("not reached")
    with pytest.raises(UserError, match=f"^{tmp_path / 'folder'} is a folder; expected the name of a file$"):
        check_output(tmp_path / "folder", overwrite=True)
    assert tree(tmp_path) == before


def test_an_output_below_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "out", tmp_path / "file" / "a" / "b" / "out"):
        for overwrite in (False, True):
            with pytest.raises(UserError, match=f"^{path} cannot be written: {tmp_path / 'file'} is not a folder"):
                check_output(path, overwrite=overwrite)


def test_an_output_where_nothing_may_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(UserError, match=f"cannot be written: {tmp_path} is not a folder that you may write to"):
        check_output(tmp_path / "a" / "out", overwrite=False)
    (tmp_path / "writable").mkdir()
    check_output(tmp_path / "writable" / "out", overwrite=False)


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a" / "folder"
    with new_folder(path, holds="file") as temporary:
        (temporary / "file").write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # on the same file system: a rename is atomic
    assert tree(tmp_path) == {"a": None, "a/folder": None, "a/folder/file": "new"}


def test_a_folder_that_exists_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with new_folder(path, holds="mark") as temporary:
        (temporary / "mark").write_text("old")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="exists already"), new_folder(path, holds="mark"):
        raise AssertionError("not reached")
    assert tree(tmp_path) == before
    with new_folder(path, holds="mark", overwrite=True) as temporary:
        (temporary / "new").write_text("new")
        assert (path / "mark").read_text() == "old"  # until the new one is whole
    assert tree(tmp_path) == {"folder": None, "folder/new": "new"}


@pytest.mark.parametrize("there", [True, False])
def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "out"
    if there:
        path.mkdir()
        (path / "mark").write_text("old")
    before = tree(tmp_path)
    with pytest.raises(Stop), new_folder(path, holds="mark", overwrite=True) as temporary:
        (temporary / "new").write_text("new")
        raise Stop
    assert tree(tmp_path) == before


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "mark").write_text("old")
    before = tree(tmp_path)
    replace = os.replace

    def once(source: Path, target: Path) -> None:
        if target == path and source.name != "replaced":
            raise Stop
        replace(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(Stop), new_folder(path, holds="mark", overwrite=True) as temporary:
        (temporary / "new").write_text("new")
    assert tree(tmp_path) == before


def test_a_link_is_replaced_not_what_it_points_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "mark").write_text("kept")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dangling"):
        with new_folder(tmp_path / name, holds="mark", overwrite=True) as temporary:
            (temporary / "new").write_text("new")
        assert not (tmp_path / name).is_symlink()
        assert tree(tmp_path / name) == {"new": "new"}
    assert tree(target) == {"mark": "kept"}


def test_the_current_folder_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with new_folder(Path("."), holds="mark", overwrite=True) as temporary:
        (temporary / "mark").write_text("new")
    assert tree(tmp_path) == {"out": None, "out/mark": "new"}
