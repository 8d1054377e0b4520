"""Prompt folders of CLIP: what they hold, and that a damaged, mixed-up or foreign one is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from multimodal.prompts.folder import Saved, load, save
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.folder import DESCRIPTION, FORMAT, VECTORS, PromptFolder, load_prompts, save_prompts

BASE = {"name": "ViT-B-32", "pretrained": "openai", "fingerprint": "ab" * 32}


def saved(**given: Any) -> Saved:
    state = {"encoder.vectors": torch.arange(12.0).view(1, 3, 4), "meta.0.bias": torch.tensor([0.5, -1])}
    whole: dict[str, Any] = {
        "state": state,
        "settings": {"method": "coop", "context": 3, "shots": None},
        "base": BASE,
        "classes": ("dog", "café au_lait"),
        "strength": 0.5,
        "temperature": 1.25,
        "training": {"dataset": "pets", "pictures": ["a/1.jpg"]},
    }
    return Saved(**{**whole, **given})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "prompts", saved())
    return tmp_path / "prompts"


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_folder_holds_what_was_saved(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [DESCRIPTION, VECTORS]
    expected, found = saved(), load(folder)
    assert {name: value.tolist() for name, value in found.state.items()} == {
        name: value.tolist() for name, value in expected.state.items()
    }
    for name in ("settings", "base", "classes", "strength", "temperature", "training"):
        assert getattr(found, name) == getattr(expected, name)
    description = json.loads((folder / DESCRIPTION).read_text())
    assert description["format"] == FORMAT and description["classes"] == ["dog", "café au_lait"]


def test_the_same_prompts_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "again", saved())
    for name in (DESCRIPTION, VECTORS):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_weights_are_kept_in_float32_wherever_they_were(tmp_path: Path) -> None:
    weights = torch.randn(4, 6, dtype=torch.float64).T.requires_grad_()  # neither contiguous nor detached
    save(tmp_path / "prompts", saved(state={"a": weights}))
    found = load(tmp_path / "prompts").state["a"]
    assert torch.equal(found, weights.detach().float()) and not found.requires_grad


def test_an_existing_folder_is_replaced_only_when_told_to(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prompts exists already; choose another name or pass --overwrite"):
        save(folder, saved(strength=1.0))
    assert load(folder).strength == 0.5
    save(folder, saved(strength=1.0), overwrite=True)
    assert load(folder).strength == 1.0
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "me.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"photos is not replaced, as it is something else: it holds no prompt.json"):
        save(photos, saved(), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "prompts"]


@pytest.mark.parametrize("name", [DESCRIPTION, VECTORS])
def test_a_part_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, r"prompts is not a prompt folder: expected prompt.safetensors and prompt.json in it")


def damage_weights(folder: Path) -> None:
    state = load_file(folder / VECTORS)
    state["meta.0.bias"][0] += 1e-6
    save_file(state, folder / VECTORS)


def rename_weights(folder: Path) -> None:
    save_file({f"x.{name}": value for name, value in load_file(folder / VECTORS).items()}, folder / VECTORS)


def cut_weights(folder: Path) -> None:
    (folder / VECTORS).write_bytes((folder / VECTORS).read_bytes()[:-4])


def halve_weights(folder: Path) -> None:
    save_file({name: value.bfloat16() for name, value in load_file(folder / VECTORS).items()}, folder / VECTORS)


def described(**fields: Any) -> Callable[[Path], None]:
    """Put fields of the description in the place of others; None: take them out."""

    def change(folder: Path) -> None:
        description = {**json.loads((folder / DESCRIPTION).read_text()), "sha256": None, **fields}
        kept = {name: value for name, value in description.items() if value is not None}
        (folder / DESCRIPTION).write_text(json.dumps(kept))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage_weights, "prompt.safetensors and prompt.json do not belong together; restore or train it again"),
        (rename_weights, "prompt.safetensors and prompt.json do not belong together; restore or train it again"),
        (cut_weights, r"prompt.safetensors cannot be read as safetensors \(.*\); restore or train it again"),
        (halve_weights, "prompt.safetensors and prompt.json do not belong together; restore or train it again"),
        *(
            (described(**{name: None}), f"has a missing or damaged field \\('{name}'\\); restore or train it again")
            for name in (
                "settings",
                "base",
                "classes",
                "strength",
                "temperature",
                "training",
                "for",
                "tensors",
                "fingerprint",
            )
        ),
        (described(base={"name": "a", "pretrained": None}), r"missing or damaged field \('fingerprint'\)"),
        (described(classes=3), "has a missing or damaged field"),
        (described(strength="much"), "has a missing or damaged field"),
        (described(strength=1.5), r"prompt.json: strength must be from 0 \(the frozen model\) to 1 .*, got 1.5"),
        (described(temperature=0), "expected a temperature above 0, got "),
        (described(temperature=float("inf")), "expected a temperature above 0, got "),
        (described(temperature=float("nan")), "expected a temperature above 0, got "),
        (
            described(format="multimodal-prompts/2"),
            "expected format 'soft-prompts/2', got 'multimodal-prompts/2'",
        ),
        (lambda folder: (folder / DESCRIPTION).write_text("[]"), "expected format 'soft-prompts/2', got 'list'"),
        (lambda folder: (folder / DESCRIPTION).write_text("{"), "prompt.json is not valid JSON"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    refused(folder, message)


def test_parts_of_two_folders_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "other", saved(state={"encoder.vectors": torch.ones(1, 3, 4)}))
    shutil.copy(tmp_path / "other" / VECTORS, folder / VECTORS)
    refused(folder, "prompts: prompt.safetensors and prompt.json do not belong together")


def test_prompts_for_texts_are_another_programs(folder: Path, tmp_path: Path) -> None:
    base = {"name": "bert", "fingerprint": "0" * 64, "dimension": 4, "width": 4}
    save_prompts(tmp_path / "texts", PromptFolder("input", {"query": torch.ones(1, 2, 4)}, base))
    refused(tmp_path / "texts", "expected prompts for CLIP, got prompts for texts; use retrieval-prompts$")
    with pytest.raises(UserError, match=r"expected prompts for texts, got prompts for CLIP; use multimodal-prompts$"):
        load_prompts(folder)


def test_no_folder_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere is not a prompt folder: expected prompt.safetensors and prompt.json in it")


def test_the_first_format_is_read_and_written_anew_bit_for_bit(tmp_path: Path) -> None:
    first = Path(__file__).parents[2] / "data" / "clip_prompts_1"
    old = load(first)
    assert old.classes == ("dog", "red car") and old.temperature == 1.25
    save(tmp_path / "new", old)
    assert (tmp_path / "new" / VECTORS).read_bytes() == (first / VECTORS).read_bytes()
    assert old.training.pop("images_encoded") == 0  # of that run, not of its prompts
    assert str(load(tmp_path / "new")) == str(old)
    shutil.copytree(first, tmp_path / "old")
    damage = load_file(first / VECTORS)
    save_file({name: value + 1e-3 for name, value in damage.items()}, tmp_path / "old" / VECTORS)
    refused(tmp_path / "old", "do not belong together")
