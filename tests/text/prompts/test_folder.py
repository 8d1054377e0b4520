"""Prompt folders: what is written is read again bit for bit, and what is damaged is refused in one line."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts import folder as artifacts
from retrieval_prompts.prompts.folder import FORMAT, PromptFolder, load_prompts, read_description, save_prompts
from retrieval_prompts.towers.fingerprint import digest

BASE = {"name": "toy", "fingerprint": "f" * 64, "dimension": 6, "width": 4}
GENERATOR = torch.Generator().manual_seed(0)
VECTORS = {side: torch.randn(2, 3, 4, generator=GENERATOR) for side in ("query", "document")}
PROMPTS = PromptFolder("prefix", VECTORS, BASE, 0.5, {"epochs": 3, "scores": [0.1, 0.2]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_prompts(tmp_path / "prompts", PROMPTS)
    return tmp_path / "prompts"


def fields(file: Path) -> dict[str, Any]:
    """Those of a description, without the digest of them all: what is garbled is found by itself too."""
    return {name: value for name, value in json.loads(file.read_text()).items() if name != "sha256"}


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load_prompts(folder)
    message = str(error.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_round_trip(folder: Path) -> None:
    loaded = load_prompts(folder)
    assert set(loaded.vectors) == set(VECTORS)
    assert all(torch.equal(loaded.vectors[side], VECTORS[side]) for side in VECTORS)
    assert (loaded.kind, loaded.base, loaded.strength, loaded.training) == ("prefix", BASE, 0.5, PROMPTS.training)
    assert sorted(path.name for path in folder.iterdir()) == ["prompt.json", "prompt.safetensors"]


def test_the_description_can_be_read_alone(folder: Path) -> None:
    description = read_description(folder)
    assert description == json.loads((folder / "prompt.json").read_text())
    assert (description["format"], description["for"]) == (FORMAT, "text")
    assert description["tensors"] == {"query": [2, 3, 4], "document": [2, 3, 4]}


@pytest.mark.parametrize("shape", [(1, 16, 1024), (12, 16, 2 * 384)])
def test_a_folder_is_small(shape: tuple[int, int, int], tmp_path: Path) -> None:
    save_prompts(tmp_path / "prompts", PromptFolder("input", {"query": torch.randn(shape)}, BASE))
    size = sum(path.stat().st_size for path in (tmp_path / "prompts").iterdir())
    assert size < 4 * torch.Size(shape).numel() + 2000


def test_vectors_on_any_device_and_of_any_type_are_saved_as_float32(tmp_path: Path) -> None:
    vectors = torch.nn.Parameter(torch.arange(6, dtype=torch.bfloat16).view(1, 3, 2)).transpose(1, 2)
    save_prompts(tmp_path / "prompts", PromptFolder("input", {"query": vectors}, BASE))
    loaded = load_prompts(tmp_path / "prompts").vectors["query"]
    assert loaded.dtype == torch.float32
    assert loaded.tolist() == [[[0, 2, 4], [1, 3, 5]]]


# --- writing --------------------------------------------------------------------------------------------------------


def test_an_existing_folder_is_kept(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = PromptFolder("input", {"query": torch.ones(1, 2, 4)}, BASE)
    with pytest.raises(UserError) as error:
        save_prompts(folder, other)
    assert str(error.value) == f"{folder} exists already; choose another name or pass --overwrite (overwrite=True)"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    save_prompts(folder, other, overwrite=True)
    assert load_prompts(folder).kind == "input"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_a_failure_half_way_leaves_nothing(
    overwrite: bool, failure: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prompts"
    if overwrite:
        save_prompts(folder, PROMPTS)

    def fail(path: Path, value: Any) -> None:
        assert (path.parent / "prompt.safetensors").is_file(), "half of it is written"
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "write_json", fail)
        with pytest.raises(failure):
            save_prompts(folder, PromptFolder("input", {"query": torch.ones(1, 2, 4)}, BASE), overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == (["prompts"] if overwrite else [])
    if overwrite:
        assert load_prompts(folder).kind == "prefix"


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["prompt.json", "prompt.safetensors"])
def test_a_missing_file(missing: str, folder: Path) -> None:
    (folder / missing).unlink()
    assert refusal(folder) == f"{folder} is not a prompt folder: expected prompt.safetensors and prompt.json in it"


def test_no_folder_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "missing", tmp_path / "file"):
        assert refusal(folder) == f"{folder} is not a prompt folder: expected prompt.safetensors and prompt.json in it"


def test_bad_json(folder: Path) -> None:
    (folder / "prompt.json").write_text('{"format": ')
    assert refusal(folder) == (
        f"{folder / 'prompt.json'} is not valid JSON (Expecting value: line 1 column 12 (char 11))"
    )
    (folder / "prompt.json").write_bytes(b"\xff\xfe")
    assert refusal(folder).startswith(f"{folder / 'prompt.json'} is not valid JSON (")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "retrieval-prompts/2"}, "expected format 'soft-prompts/2', got 'retrieval-prompts/2'; "),
        ({"format": None}, "expected format 'soft-prompts/2', got None; update retrieval-prompts"),
        ({"base": None}, "has a missing or damaged field ("),
        ({"base": {"name": "toy"}}, "has a missing or damaged field ('fingerprint'); restore or train it again"),
        ({"base": {**BASE, "dimension": "six"}}, "has a missing or damaged field ("),
        ({"strength": "much"}, "has a missing or damaged field ("),
        ({"tensors": 3}, "has a missing or damaged field ("),
        ({"tensors": {"query": [2, 3, 4]}}, "do not belong together"),
        ({"tensors": {"query": [2, 3, 4], "document": [2, 9, 4]}}, "do not belong together"),
        (
            {"tensors": {"query": [6, 4]}},
            "expected a query prompt of shape (layers, length, width) with a length of at",
        ),
        ({"tensors": {"query": 24}}, "has a missing or damaged field ("),
        ({"kind": "input"}, "do not belong together"),
        ({"for": "speech"}, "has a missing or damaged field ('speech')"),
        ({"training": "yes"}, "has a missing or damaged field ("),
        ({"kind": "suffix"}, "expected a kind of ('input', 'prefix'), and sides of ('query', 'document')"),
        ({"strength": 1.5}, "prompt.json: strength must be from 0 (the frozen model) to 1 (the whole prompt), got 1.5"),
        ({"strength": float("nan")}, "strength must be from 0 (the frozen model) to 1 (the whole prompt), got nan"),
        ({"tensors": {}}, "expected a kind of ('input', 'prefix'), and sides of ('query', 'document')"),
        ({"tensors": {"title": [1]}}, "expected a kind of ('input', 'prefix'), and sides of ('query', 'document')"),
    ],
)
def test_a_garbled_description(change: dict[str, Any], reason: str, folder: Path) -> None:
    file = folder / "prompt.json"
    file.write_text(json.dumps(fields(file) | change))
    assert reason in refusal(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"'])
def test_a_description_that_is_no_object(content: str, folder: Path) -> None:
    (folder / "prompt.json").write_text(content)
    kind = type(json.loads(content)).__name__
    assert f"expected format 'soft-prompts/2', got '{kind}'" in refusal(folder)


def test_a_lacking_field(folder: Path) -> None:
    file = folder / "prompt.json"
    description = fields(file)
    for name in ("kind", "for", "base", "strength", "training", "tensors", "fingerprint"):
        file.write_text(json.dumps({key: value for key, value in description.items() if key != name}))
        assert refusal(folder) == f"{file} has a missing or damaged field ('{name}'); restore or train it again"


def _nudge(vectors: dict[str, torch.Tensor]) -> None:
    vectors["query"][0, 0, 0] += 1e-6


def _swap(vectors: dict[str, torch.Tensor]) -> None:
    vectors["query"], vectors["document"] = vectors["document"], vectors["query"]


@pytest.mark.parametrize(
    "tamper",
    [
        _nudge,
        _swap,
        lambda vectors: vectors.pop("document"),
        lambda vectors: vectors.update(other=torch.ones(1)),
        lambda vectors: vectors.update(query=vectors["query"].view(1, 6, 4)),
    ],
    ids=["a changed number", "swapped sides", "a missing side", "another tensor", "another shape"],
)
def test_tampered_vectors(tamper: Callable[[dict[str, torch.Tensor]], Any], folder: Path) -> None:
    vectors = load_file(folder / "prompt.safetensors")
    tamper(vectors)
    save_file(vectors, folder / "prompt.safetensors")
    assert refusal(folder) == (
        f"{folder}: prompt.safetensors and prompt.json do not belong together; restore or train it again"
    )


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x05pickle" * 20])
def test_vectors_that_are_no_safetensors(content: bytes, folder: Path) -> None:
    (folder / "prompt.safetensors").write_bytes(content)
    assert refusal(folder).startswith(f"{folder / 'prompt.safetensors'} cannot be read as safetensors (")


def test_a_folder_that_holds_other_things_is_not_replaced(tmp_path: Path) -> None:
    save_prompts(tmp_path / "out", PROMPTS)
    save_prompts(tmp_path / "out", PROMPTS, overwrite=True)
    (tmp_path / "out" / "checkpoint-10").mkdir()
    with pytest.raises(UserError, match=r"out is not replaced, as it holds other things \(checkpoint-10\)"):
        save_prompts(tmp_path / "out", PROMPTS, overwrite=True)
    assert (tmp_path / "out" / "checkpoint-10").is_dir()


# --- the first format -----------------------------------------------------------------------------------------------

FIRST = Path(__file__).parents[2] / "data" / "text_prompts_1"


def test_the_first_format_is_read_and_written_anew_bit_for_bit(tmp_path: Path) -> None:
    old = load_prompts(FIRST)
    assert (old.kind, list(old.vectors), old.strength) == ("input", ["query", "document"], 0.5)
    save_prompts(tmp_path / "new", old)
    assert (tmp_path / "new" / "prompt.safetensors").read_bytes() == (FIRST / "prompt.safetensors").read_bytes()
    new = load_prompts(tmp_path / "new")
    assert (new.kind, new.base, new.strength, new.training) == (old.kind, old.base, old.strength, old.training)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "prefix"}, "do not belong together"),
        ({"sides": []}, "has a missing or damaged field ("),
        ({"sides": {"query": {}}}, "has a missing or damaged field ("),
        ({"strength": 2}, "strength must be from 0"),
    ],
)
def test_a_damaged_folder_of_the_first_format(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    shutil.copytree(FIRST, tmp_path / "old")
    file = tmp_path / "old" / "prompt.json"
    file.write_text(json.dumps(fields(file) | change))
    assert reason in refusal(tmp_path / "old")


# --- what nobody would write ----------------------------------------------------------------------------------------


def write_sound(folder: Path, tensors: dict[str, torch.Tensor], **about: Any) -> None:
    """A prompt folder with any tensors, and digests that are right."""
    folder.mkdir()
    save_file(tensors, folder / "prompt.safetensors")
    description = {"format": FORMAT, "for": "text", "kind": "input", "base": BASE, "strength": 1.0, "training": {}}
    description["tensors"] = {name: list(value.shape) for name, value in tensors.items()}
    description["fingerprint"] = digest(tensors, before="input")
    (folder / "prompt.json").write_text(json.dumps(sealed(description | about)))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor(1.0), r"query prompt of shape \(layers, length, width\) .*, got \(\)"),
        (torch.ones(4), r"query prompt of shape \(layers, length, width\) .*, got \(4,\)"),
        (torch.ones(1, 100_000, 1), r"with a length of at most 4,096, got \(1, 100000, 1\)"),
        (torch.ones(1, 2, 4).long(), r"expected finite numbers in float32, got 'query' of int64 \(1, 2, 4\)"),
        (torch.full((1, 2, 4), torch.nan), r"expected finite numbers in float32, got 'query' of float32 \(1, 2, 4\)"),
        (torch.ones(1, 0, 4), r"expected finite numbers in float32, got 'query' of float32 \(1, 0, 4\)"),
    ],
)
def test_tensors_of_an_absurd_shape(tensor: torch.Tensor, message: str, tmp_path: Path) -> None:
    write_sound(tmp_path / "prompts", {"query": tensor})
    assert re.search(message, refusal(tmp_path / "prompts"))


def test_numbers_and_depths_beyond_all_bounds(tmp_path: Path) -> None:
    write_sound(tmp_path / "prompts", {"query": torch.ones(1, 2, 4)}, base=BASE | {"dimension": math.inf})
    assert "has a missing or damaged field (cannot convert float infinity to integer)" in refusal(tmp_path / "prompts")
    file = tmp_path / "prompts" / "prompt.json"
    for text in ("[" * 200_000, '{"strength": ' + "1" * 10_000 + "}"):
        file.write_text(text)
        assert f"{file} is not valid JSON (" in refusal(tmp_path / "prompts")


def test_links_out_of_the_folder_are_not_followed(folder: Path) -> None:
    for name in ("prompt.json", "prompt.safetensors"):
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)
        assert f"{folder / name} is a link to {folder.parent / name}, outside its folder" in refusal(folder)
        (folder / name).unlink()
        (folder.parent / name).rename(folder / name)
    load_prompts(folder)


@pytest.mark.parametrize(
    ("before", "after"),
    [('"strength": 0.5', '"strength": 0.25'), ('"name": "toy"', '"name": "toi"'), ('"epochs": 3', '"epochs": 4')],
)
def test_an_edited_description_is_refused(before: str, after: str, folder: Path) -> None:
    file = folder / "prompt.json"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    assert refusal(folder).startswith(f"{file} was changed after it was written (its sha256 differs); restore it")
    file.write_text(json.dumps(json.loads(text)))  # only its spaces
    load_prompts(folder)
