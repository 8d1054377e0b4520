"""A stock checkpoint gives our vectors in a process that has never imported this package; what has no stock form is
refused with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from toys import ARCHITECTURES, LONG, POSITIONS, TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError
from retrieval_prompts.interop import export as exporting
from retrieval_prompts.towers.text import TextTower, load_tower

Toy = Callable[..., Path]
ToyTower = Callable[..., TextTower]
# Also texts that name the prompts' rows, leading spaces, a lone letter, nothing
EXAMPLES = [*TEXTS, LONG, "  fox", "a", "", "\n[Q0] <|soft|> query: fox", "FOX\tdog"]

STOCK = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("error")
from sentence_transformers import SentenceTransformer

texts, folders, out = json.loads(sys.stdin.read())
arrays = {}
for name, folder in folders.items():
    model = SentenceTransformer(folder, device="cpu")
    arrays[f"{name} query"] = model.encode_query(texts)
    arrays[f"{name} document"] = model.encode_document(texts)
    arrays[f"{name} plain"] = model.encode(texts)
    arrays[f"{name} named"] = model.encode(texts, prompt_name="query")
np.savez(out, **arrays)
assert "retrieval_prompts" not in sys.modules
"""


@dataclass(frozen=True)
class Case:
    """A model, and the sides that get a prompt of `length`."""

    architecture: str
    side: str = "both"
    length: int = 5
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return " ".join([self.architecture, self.side, *(f"{key}={value}" for key, value in self.options)])


WORDS = ("prompts", (("query", "query: "), ("document", "the passage: ")))
CASES = {
    case.name: case
    for case in (
        *(Case(architecture) for architecture in ARCHITECTURES),
        *(Case(architecture, side) for architecture in ("bert", "qwen3") for side in ("query", "document")),
        *(Case(architecture, options=(WORDS,)) for architecture in ("bert", "roberta", "xlm-roberta", "qwen3")),
        Case("xlm-roberta", "query", options=(WORDS,)),
        *(Case(name, options=(("pooling", "mean"), ("include_prompt", False))) for name in ("bert", "qwen3")),
        Case("bert", options=(WORDS, ("include_prompt", False))),
        Case("qwen3", "query", options=(WORDS, ("pooling", "mean"), ("include_prompt", False))),
        Case("bert", options=(("pooling", "cls"),)),
        Case("qwen3", options=(("padding_side", "right"),)),
        Case("roberta", options=(("dense", 12), ("normalize", False), ("similarity", "dot"))),
        Case("modernbert", options=(("truncate_dim", 12),)),
        Case("mpnet", length=POSITIONS // 4, options=(("maximum", POSITIONS),)),
    )
}


def options_of(case: Case) -> dict[str, Any]:
    return {key: dict(value) if key == "prompts" else value for key, value in case.options}


@pytest.fixture(scope="module")
def models(toy_tower: ToyTower) -> dict[str, BiEncoder]:
    """A bi-encoder with prompts for each case."""
    made = {}
    for name, case in CASES.items():
        model = BiEncoder(toy_tower(case.architecture, **options_of(case)))
        if case.options == (("maximum", POSITIONS),):
            with pytest.warns(UserWarning, match="its texts are cut at 48 tokens, not 64"):
                model.attach(case.side, length=case.length)
        else:
            model.attach(case.side, length=case.length)
        made[name] = model
    return made


@pytest.fixture(scope="module")
def stock(models: dict[str, BiEncoder], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What sentence-transformers alone, in another process, makes of the exported folders."""
    parent = tmp_path_factory.mktemp("exported")
    folders = {}
    for number, (name, model) in enumerate(models.items()):
        folders[name] = str(parent / str(number))
        model.export(folders[name])
    out = parent / "vectors.npz"
    request = json.dumps([EXAMPLES, folders, str(out)])
    run = subprocess.run([sys.executable, "-c", STOCK], input=request, text=True, capture_output=True, cwd=parent)
    assert run.returncode == 0, run.stderr
    return dict(np.load(out))


@pytest.mark.parametrize("name", CASES)
def test_a_stock_checkpoint_gives_our_vectors(
    name: str, models: dict[str, BiEncoder], stock: dict[str, np.ndarray]
) -> None:
    model = models[name]
    ours = {"query": model.encode_query(EXAMPLES), "document": model.encode_document(EXAMPLES)}
    scale = max(1.0, max(float(np.abs(vectors).max()) for vectors in ours.values()))
    for side, vectors in ours.items():
        assert vectors.shape == stock[f"{name} {side}"].shape
        assert np.abs(vectors - stock[f"{name} {side}"]).max() < 1e-6 * scale
    frozen = BiEncoder(model.tower).encode_query(EXAMPLES)
    assert np.abs(frozen - ours[model_side(model)]).max() > 1e-3, "the prompt does something"


def model_side(model: BiEncoder) -> str:
    return next(iter(model.prompts))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.side == "query"])
def test_plain_encode_is_the_frozen_model(
    name: str, models: dict[str, BiEncoder], stock: dict[str, np.ndarray]
) -> None:
    frozen = models[name].tower.sentence_transformer.encode(EXAMPLES)
    assert np.abs(stock[f"{name} plain"] - frozen).max() < 1e-6


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.side == "both"])
def test_callers_that_name_only_the_prompt(
    name: str, models: dict[str, BiEncoder], stock: dict[str, np.ndarray]
) -> None:
    ours, named = models[name].encode_query(EXAMPLES), stock[f"{name} named"]
    assert np.abs(ours - named).max() < 1e-6 * max(1.0, float(np.abs(ours).max()))


def test_short_queries_by_the_prompts_name_alone(models: dict[str, BiEncoder], stock: dict[str, np.ndarray]) -> None:
    # Without a task a query has the length of a document
    short = [text for text in EXAMPLES if len(text) < 20]
    rows = [EXAMPLES.index(text) for text in short]
    assert np.abs(models["bert query"].encode_query(short) - stock["bert query named"][rows]).max() < 1e-6


def test_what_is_in_the_folder(models: dict[str, BiEncoder], tmp_path: Path) -> None:
    models["bert query"].export(tmp_path / "folder")
    modules = json.loads((tmp_path / "folder" / "modules.json").read_text())
    assert all(module["type"].startswith("sentence_transformers.") for module in modules), "no trust_remote_code"
    assert not list((tmp_path / "folder").rglob("*.py"))
    loaded = SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    rows = loaded[0].model.get_input_embeddings().weight[-5:]  # type: ignore[union-attr, operator]
    assert torch.equal(rows, models["bert query"].prompt("query")[0])  # type: ignore[index]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_model_itself_is_not_touched(toy_tower: ToyTower, tmp_path: Path) -> None:
    model = BiEncoder(toy_tower("bert")).attach("both", length=3)
    before, vectors = model.tower.fingerprint, model.encode_query(EXAMPLES)
    model.export(tmp_path / "folder")
    del model.tower.fingerprint  # computed anew
    assert model.tower.fingerprint == before == load_tower(model.tower.name).fingerprint
    assert np.array_equal(model.encode_query(EXAMPLES), vectors)


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "qwen3"])
def test_after_a_prefix_was_tried(architecture: str, toy_tower: ToyTower, tmp_path: Path) -> None:
    # The prefix has taken the place of the model's attention; the checkpoint has the stock one
    model = BiEncoder(toy_tower(architecture)).attach("query", kind="prefix", length=3).attach("query", length=3)
    model.export(tmp_path / "folder")
    loaded = SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    assert "retrieval_prompts" not in (tmp_path / "folder" / "config.json").read_text()
    assert np.abs(loaded.encode_query(EXAMPLES) - model.encode_query(EXAMPLES)).max() < 1e-6


def test_prompts_on_top_of_an_export(models: dict[str, BiEncoder], tmp_path: Path) -> None:
    models["bert query"].export(tmp_path / "first")
    model = BiEncoder(load_tower(tmp_path / "first", device="cpu"))
    assert np.abs(model.encode_query(EXAMPLES) - models["bert query"].encode_query(EXAMPLES)).max() < 1e-6
    model.attach("query", length=2, init="text:fox")
    model.export(tmp_path / "second")
    loaded = SentenceTransformer(str(tmp_path / "second"), device="cpu")
    assert np.abs(loaded.encode_query(EXAMPLES) - model.encode_query(EXAMPLES)).max() < 1e-6


def test_a_length_among_the_saved_options(toy_tower: ToyTower, tmp_path: Path) -> None:
    tower = toy_tower("bert")
    tower.transformer.processing_kwargs = {"text": {"max_length": 12}}
    model = BiEncoder(tower).attach("both", length=3)
    model.export(tmp_path / "folder")
    loaded = SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    assert np.abs(loaded.encode_query(EXAMPLES) - model.encode_query(EXAMPLES)).max() < 1e-6


@pytest.mark.parametrize("architecture", ["mpnet", "qwen3"])
def test_a_model_in_half_precision(architecture: str, toy_tower: ToyTower, tmp_path: Path) -> None:
    model = BiEncoder(toy_tower(architecture, half=True)).attach("both", length=3)
    assert model.tower.embeddings.weight.dtype == torch.bfloat16
    model.export(tmp_path / "folder")
    loaded = SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    for text in EXAMPLES:  # in a batch, padding alone rounds differently
        assert np.array_equal(loaded.encode_query(text), model.encode_query(text))
        assert np.array_equal(loaded.encode_document(text), model.encode_document(text))


# --- what is refused ------------------------------------------------------------------------------------------------


def refusal(model: BiEncoder, folder: Path, **options: Any) -> str:
    before = sorted(folder.parent.iterdir())
    with pytest.raises(UserError) as error:
        model.export(folder, **options)
    assert sorted(folder.parent.iterdir()) == before, "nothing is left behind"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_prefix_has_no_stock_form(toy_tower: ToyTower, tmp_path: Path) -> None:
    model = BiEncoder(toy_tower("bert")).attach("query", kind="prefix", length=3)
    assert refusal(model, tmp_path / "folder") == (
        "a prefix is keys and values inside every layer, and no stock checkpoint has a place for them: export needs "
        "--kind input; for a live model use BiEncoder.as_sentence_transformer()"
    )


def test_a_partial_strength_has_no_stock_form(toy_tower: ToyTower, tmp_path: Path) -> None:
    model = BiEncoder(toy_tower("bert")).attach("query", length=3)
    model.strength = 0.5
    assert refusal(model, tmp_path / "folder") == (
        "these prompts have strength 0.5, and a stock checkpoint holds whole prompts only; pass --strength 1 to "
        "export them whole"
    )


def test_an_existing_folder(models: dict[str, BiEncoder], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").write_text("")
    assert refusal(models["bert query"], folder) == (
        f"{folder} exists already; choose another name or pass --overwrite (overwrite=True)"
    )
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_an_export_is_replaced_only_on_request(models: dict[str, BiEncoder], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    models["bert query"].export(folder)
    assert "exists already" in refusal(models["bert document"], folder)
    models["bert document"].export(folder, overwrite=True)
    loaded = SentenceTransformer(str(folder), device="cpu")
    ours = models["bert document"].encode_document(EXAMPLES)
    assert np.abs(loaded.encode_document(EXAMPLES) - ours).max() < 1e-6


def test_a_failed_export_leaves_the_old_one(
    models: dict[str, BiEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    models["bert query"].export(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    message = refusal(models["bert document"], folder, overwrite=True)
    assert message.startswith(f"model {models['bert document'].tower.name}: the exported checkpoint's query vectors ")
    assert message.endswith("; use BiEncoder.as_sentence_transformer()")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_tokenizer_that_splits_the_first_word_differently(toy_tower: ToyTower, tmp_path: Path) -> None:
    # A Metaspace that marks only the first word of a text: after added tokens no word is the first
    from tokenizers import pre_tokenizers

    tower = toy_tower("xlm-roberta")
    tower.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    model = BiEncoder(tower).attach("query", length=3)
    assert refusal(model, tmp_path / "folder") == (
        f"model {tower.name}: its tokenizer splits words after an added token differently, so a stock checkpoint "
        "would not give the same vectors; use BiEncoder.as_sentence_transformer()"
    )


def test_an_export_that_was_changed_is_no_model(models: dict[str, BiEncoder], tmp_path: Path) -> None:
    models["bert both"].export(tmp_path / "export")
    load_tower(tmp_path / "export", device="cpu")
    path = tmp_path / "export" / "modules.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(UserError, match=r"modules\.json was changed or cut after it was written"):
        load_tower(tmp_path / "export", device="cpu")
