"""Files and folders that appear whole or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import (
    ADAPTER,
    CHECKPOINT,
    CLASSES,
    INDEX,
    PROMPTS,
    RUNS,
    SUMS,
    Kind,
    check_all_listed,
    check_listed,
    check_output,
    check_readable,
    check_seal,
    inside,
    list_all,
    list_digest,
    locked,
    new_folder,
    of_blocks,
    output,
    read_json,
    sealed,
    sweep,
    unreplaced,
    write_bytes,
    write_json,
    writing,
)


def tree(folder: Path) -> dict[str, str | None]:
    """Every path below a folder, with the text of each file."""
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else None for path in folder.rglob("*")}


MARKED, FILE = Kind(("mark",), ("new",)), Kind(("file",))


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
        with new_folder(tmp_path / "folder", holds=MARKED):
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


def test_a_full_disk_says_what_it_had_no_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"^\\[Errno 28\\] No space left on device: '{tmp_path / 'file'}'$"):
        write_bytes(tmp_path / "file", b"new")
    with (
        pytest.raises(OSError, match=f"^\\[Errno 28\\] No space left on device: '{tmp_path / 'out'}'$"),
        new_folder(tmp_path / "out", holds=MARKED) as new,
    ):
        (new / "mark").write_text("")
    assert tree(tmp_path) == {}


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"naïve": [1, 0.1, None, True], "empty": {}, "no character": "caf\udce9"}
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
    check_output(tmp_path / "folder", overwrite=True, holds=MARKED)


def test_what_is_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("precious")
    before = tree(tmp_path)
    for name in ("file", "folder"):
        with (
            pytest.raises(
                UserError, match=f"^{tmp_path / name} is not replaced, as it is something else: it holds no m"
            ),
            new_folder(tmp_path / name, holds=MARKED, overwrite=True),
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
    with new_folder(path, holds=FILE) as temporary:
        (temporary / "file").write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # on the same file system: a rename is atomic
    assert tree(tmp_path) == {"a": None, "a/folder": None, "a/folder/file": "new"}


def test_a_folder_that_exists_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with new_folder(path, holds=MARKED) as temporary:
        (temporary / "mark").write_text("old")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="exists already"), new_folder(path, holds=MARKED):
        raise AssertionError("not reached")
    assert tree(tmp_path) == before
    with new_folder(path, holds=MARKED, overwrite=True) as temporary:
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
    with pytest.raises(Stop), new_folder(path, holds=MARKED, overwrite=True) as temporary:
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

    monkeypatch.setattr(writing, "_exchange", lambda *_: False)  # a system that cannot

    def once(source: Path, target: Path) -> None:
        if target == path and source.name != "replaced":
            raise Stop
        replace(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(Stop), new_folder(path, holds=MARKED, overwrite=True) as temporary:
        (temporary / "new").write_text("new")
    assert tree(tmp_path) == before


def test_a_link_is_replaced_not_what_it_points_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "mark").write_text("kept")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dangling"):
        with new_folder(tmp_path / name, holds=MARKED, overwrite=True) as temporary:
            (temporary / "new").write_text("new")
        assert not (tmp_path / name).is_symlink()
        assert tree(tmp_path / name) == {"new": "new"}
    assert tree(target) == {"mark": "kept"}


def test_the_current_folder_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with new_folder(Path("."), holds=MARKED, overwrite=True) as temporary:
        (temporary / "mark").write_text("new")
    assert tree(tmp_path) == {"out": None, "out/mark": "new"}


# --- what each kind of folder holds ---------------------------------------------------------------------------------


def test_a_folder_that_holds_anything_else_is_a_users_own(tmp_path: Path) -> None:
    kind = Kind(("manifest.json", "*.faiss"), ("words/*.json",))
    out = tmp_path / "out"
    (out / "words").mkdir(parents=True)
    for name in ("manifest.json", "a.faiss", "words/b.json"):
        (out / name).write_text("")
    check_output(out, overwrite=True, holds=kind)
    for other in ("index.html", "words/c.txt", "words/deep/d.json", ".hidden"):
        (out / other).parent.mkdir(exist_ok=True)
        (out / other).write_text("precious")
        with pytest.raises(UserError, match=rf"out is not replaced, as it holds other things \({other}\); choose"):
            check_output(out, overwrite=True, holds=kind)
        (out / other).unlink()
    (out / "words" / "deep").rmdir()
    (out / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds other things \(empty\)"):
        check_output(out, overwrite=True, holds=kind)
    (out / "empty").rmdir()
    (out / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"holds other things \(link\)"):
        check_output(out, overwrite=True, holds=kind)
    (out / "link").unlink()
    (out / "a.faiss").unlink()
    with pytest.raises(UserError, match=r"it is something else: it holds no \*\.faiss; choose another name"):
        check_output(out, overwrite=True, holds=kind)


@pytest.mark.parametrize("kind", [INDEX, RUNS, CHECKPOINT, ADAPTER, CLASSES, PROMPTS])
def test_a_web_site_is_none_of_ours(kind: Kind, tmp_path: Path) -> None:
    for name in ("index.html", *(need.replace("*", "x") for need in kind.needs)):
        (tmp_path / name).write_text("precious")
    before = tree(tmp_path)
    with (
        pytest.raises(UserError, match=r"holds other things \(index\.html\)"),
        new_folder(tmp_path, holds=kind, overwrite=True),
    ):
        raise AssertionError("not reached")
    assert tree(tmp_path) == before


# --- runs that were killed, and runs at once ------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from retrieval_prompts.files import Kind, new_folder, write_bytes, writing

def die(*_, **__):
    os.kill(os.getpid(), 9)

what, out = sys.argv[1], Path(sys.argv[2])
if what == "file":
    writing.os.replace = die
    write_bytes(out, b"new")
if what != "exchange":
    writing._exchange = lambda *_: False
calls = []
def replace(source, target, own=os.replace):
    calls.append(target)
    if what == "first rename" or len(calls) == 2:
        die()
    own(source, target)
if what != "written":
    writing.os.replace = replace
if what == "exchange":
    writing.shutil.rmtree = die
with new_folder(out, holds=Kind(("mark",)), overwrite=True) as new:
    (new / "mark").write_text("new")
    if what == "written":
        die()
"""


def killed(what: str, out: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, what, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["written", "first rename", "second rename", "exchange"])
def test_what_a_killed_run_left_is_cleared_away_and_nothing_is_lost(when: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out, holds=FILE) as new:
        (new / "mark").write_text("old")
    killed(when, out)
    assert len(list(tmp_path.iterdir())) > 1
    if when != "second rename":  # where the system cannot exchange, nothing is under the name
        assert tree(out) == {"mark": "new" if when == "exchange" else "old"}
    with pytest.raises(UserError, match="out exists already"), output(out, overwrite=False, holds=MARKED):
        raise AssertionError("not reached")
    assert tree(tmp_path) == {"out": None, "out/mark": "new" if when == "exchange" else "old"}
    killed(when, out)
    with new_folder(out, holds=MARKED, overwrite=True) as new:
        (new / "mark").write_text("newer")
    assert tree(tmp_path) == {"out": None, "out/mark": "newer"}


def test_what_a_killed_write_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    killed("file", tmp_path / "file")
    (left,) = tmp_path.iterdir()
    assert re.fullmatch(r"\.file\.new-[a-z0-9_]{8}", left.name)
    (tmp_path / ".file.news-12345678").write_text("a user's own")
    handle, name = writing._temporary_file(tmp_path / "other")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".file.news-12345678", Path(name).name])
    os.close(handle)
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".file.news-12345678"]
    sweep(tmp_path / "nowhere")


def test_of_two_runs_into_one_output_the_later_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out"
    script = (
        "import sys; from pathlib import Path; from retrieval_prompts.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"^{path} is being written by another run; wait until it ends"),
            output(path, overwrite=True),
        ):
            raise AssertionError("not reached")
        other.communicate("")
    assert tree(tmp_path) == {}  # neither the lock nor the folders above are left
    with locked(path), locked(path), locked(tmp_path / "other"):  # once more is free
        assert (tmp_path / "deep" / ".out.lock").exists()
    assert tree(tmp_path) == {}


def test_a_thread_that_writes_an_output_keeps_others_out(tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        locked(tmp_path / "out"),
        pytest.raises(UserError, match="out is being written by another run"),
    ):
        pool.submit(lambda: locked(tmp_path / "out").__enter__()).result()


def test_a_folder_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="out exists already; choose another name"),
        new_folder(tmp_path / "out", holds=MARKED) as new,
    ):
        (new / "mark").write_text("new")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mark").write_text("of another program")
    assert tree(tmp_path) == {"out": None, "out/mark": "of another program"}


def test_files_and_folders_are_on_disk_before_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name.partition(".new-")[0])
        fsync(handle)

    def rename(source: Path, target: Path) -> None:
        done.append(f"rename {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    with new_folder(tmp_path / "out", holds=MARKED) as new:
        (new / "mark").write_text("")
    assert done == ["mark", ".out", "rename out", tmp_path.name]
    done.clear()
    write_bytes(tmp_path / "file", b"")
    assert done == [".file", "rename file", tmp_path.name]


def test_a_folder_that_another_run_replaces_is_read_again(tmp_path: Path) -> None:
    folder, seen = tmp_path / "out", []
    folder.mkdir()

    def read() -> int:
        seen.append(folder.stat().st_ino)
        if len(seen) == 1:
            folder.rename(tmp_path / "old")
            folder.mkdir()
            raise UserError("half of the old folder, half of the new")
        return len(seen)

    assert unreplaced(folder, read) == 2


def test_an_old_folder_that_cannot_be_deleted_does_not_undo_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(writing, "_exchange", lambda *_: False)
    monkeypatch.setattr(os, "unlink", fail)
    for text in ("old", "new"):
        with new_folder(tmp_path / "out", holds=MARKED, overwrite=True) as new:
            (new / "mark").write_text(text)
    assert (tmp_path / "out" / "mark").read_text() == "new"


def test_what_fails_in_a_folder_that_stays_fails_once(tmp_path: Path) -> None:
    calls = []

    def read() -> None:
        calls.append(1)
        raise UserError("damaged")

    for folder in (tmp_path, tmp_path / "nowhere"):
        calls.clear()
        with pytest.raises(UserError, match=r"^damaged$"):
            unreplaced(folder, read)
        assert calls == [1]


def test_files_of_libraries_get_the_permissions_of_others(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", holds=MARKED) as new:
        (new / "mark").touch(mode=0o600)  # as a library's temporary file has them
    (tmp_path / "own").touch()
    assert (tmp_path / "out" / "mark").stat().st_mode == (tmp_path / "own").stat().st_mode


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_text("")
    check_readable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith(".safetensors"))
    with pytest.raises(UserError, match=r"model\.safetensors may not be read; ask its owner"):
        check_readable(tmp_path)


# --- checksums ------------------------------------------------------------------------------------------------------


def test_json_knows_when_it_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, sealed({"strength": 0.5, "all": {1: (2, math.nan)}, "name": "naïve"}))
    value = read_json(path)
    assert value.keys() == {"strength", "all", "name", "sha256"}
    assert check_seal(path, value)
    assert check_seal(path, dict(reversed(value.items())))  # the order of fields is nothing
    assert sealed(value) == value
    with pytest.raises(UserError, match=rf"^{path} was changed after it was written \(its sha256 differs\)"):
        check_seal(path, value | {"strength": 1.0})
    with pytest.raises(UserError, match="was changed"):
        check_seal(path, value | {"more": None})
    assert not check_seal(path, {"strength": 1.0})  # of an older version


def test_a_folder_lists_its_files_as_sha256sum_does(tmp_path: Path) -> None:
    for name in ("a b.trec", "c.trec"):
        (tmp_path / name).write_text(name)
        list_digest(tmp_path / name)
    (tmp_path / "c.trec").write_text("again")
    list_digest(tmp_path / "c.trec", b"again")
    done = subprocess.run(["sha256sum", "--check", SUMS], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "a b.trec: OK\nc.trec: OK\n"
    assert check_listed(tmp_path / "c.trec")
    (tmp_path / "other").write_text("")
    assert not check_listed(tmp_path / "other")
    (tmp_path / "c.trec").write_text("aga")
    with pytest.raises(UserError, match=r"c\.trec was changed or cut after it was written: it is not what SHA256SUMS"):
        check_listed(tmp_path / "c.trec")


def test_a_list_of_ones_own_is_kept_and_read_in_all_its_forms(tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("run")
    value = hashlib.sha256(b"run").hexdigest()
    others = f"# mine\n{'0' * 64} *mine.bin\n"
    for line in (f"{value.upper()}  run.trec", f"{value} *run.trec", f"{value}  ./run.trec\r"):
        (tmp_path / SUMS).write_text(f"{others}{line}\n", newline="")
        assert check_listed(tmp_path / "run.trec")
        list_digest(tmp_path / "run.trec")
        assert (tmp_path / SUMS).read_text() == f"{others}{value}  run.trec\n"


def test_a_file_that_is_written_again_keeps_its_line_of_the_list(tmp_path: Path) -> None:
    for name in ("b", "a", "b"):
        (tmp_path / name).write_text(name)
        list_digest(tmp_path / name)
    assert [line.split()[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()] == ["b", "a"]


def test_a_list_that_was_cut_is_noticed_where_it_has_all_files(tmp_path: Path) -> None:
    for name in ("a.json", "b.json", "README.md"):
        (tmp_path / name).write_text(name)
    assert not check_all_listed(tmp_path, ["*.json"])
    list_all(tmp_path)
    whole = (tmp_path / SUMS).read_text()
    for cut in ("", whole[:100]):
        (tmp_path / SUMS).write_text(cut)
        with pytest.raises(UserError, match=r"SHA256SUMS does not list [ab]\.json"):
            check_all_listed(tmp_path, ["*.json"])
    (tmp_path / SUMS).write_text("".join(line for line in whole.splitlines(True) if "README" not in line))
    assert check_all_listed(tmp_path, ["*.json"])


@pytest.mark.parametrize("overwrite", [True, False])
def test_the_root_is_no_output(overwrite: bool) -> None:
    for holds in (None, INDEX):
        with pytest.raises(UserError, match="/ "):
            check_output(Path("/"), overwrite=overwrite, holds=holds)
        with pytest.raises(UserError, match="/ is not a name for an output"), output(Path("/"), overwrite=overwrite):
            raise AssertionError


def test_digests_by_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcdefgh" * 3)
    hashes = {
        number: hashlib.sha256(b"abcdefghabcdefghabcdefgh"[number * 10 :][:10]).hexdigest() for number in range(3)
    }
    assert of_blocks(path, block=10) == hashes
    assert of_blocks(path, [2, 0], block=10) == {0: hashes[0], 2: hashes[2]}
    path.write_bytes(b"")
    assert of_blocks(path) == {}


# --- paths in files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "", ".", "..\\a", "a\0b"])
def test_a_path_in_a_file_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names the file .*, which lies outside it; it is not read"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b") == tmp_path / "a" / "b"


def test_a_link_out_of_a_folder_is_not_followed_but_in_a_hubs_cache(tmp_path: Path) -> None:
    blob, snapshot = tmp_path / "blobs" / "0", tmp_path / "snapshots" / "main"
    for folder in (blob.parent, snapshot):
        folder.mkdir(parents=True)
    blob.write_text("")
    (snapshot / "a").symlink_to(blob)
    (snapshot / "b").symlink_to(tmp_path / "secret")
    (snapshot / "c").symlink_to(snapshot / "a")
    assert inside(snapshot, "a") == snapshot / "a"
    inside(snapshot, "c")
    with pytest.raises(UserError, match=f"b is a link to {tmp_path / 'secret'}, outside its folder; it is not read"):
        inside(snapshot, "b")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a").symlink_to(blob)
    with pytest.raises(UserError, match="a is a link to"):
        inside(tmp_path / "plain", "a")


@pytest.mark.parametrize("text", ["[" * 200_000 + "]" * 200_000, "1" * 10_000])
def test_json_beyond_all_bounds_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON \(.*\)$"):
        read_json(tmp_path / "a.json")
