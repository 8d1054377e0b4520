"""What prompts lose on other data: the figures of an evaluation there, a test, and a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.significance import Comparison
from retrieval_prompts.experiments.elsewhere import Elsewhere, also_json, elsewhere, load_others
from retrieval_prompts.experiments.retrieval import evaluate
from retrieval_prompts.experiments.workbench import Workbench


@pytest.fixture(scope="module")
def biencoder(tmp_path_factory: pytest.TempPathFactory) -> BiEncoder:
    return BiEncoder.load(tiny.write_model(tmp_path_factory.mktemp("model")), device="cpu")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    folder = tmp_path_factory.mktemp("others")
    return load_others([tiny.write_data(folder / name, seed=seed) for seed, name in enumerate(("left", "right"), 1)])


@pytest.mark.parametrize("side", ["query", "both"])
def test_it_is_an_evaluation_of_each(biencoder: BiEncoder, others: list[Dataset], tmp_path: Path, side: str) -> None:
    biencoder.attach(side, length=3)
    found = elsewhere(biencoder, others, tmp_path)
    assert [(each.dataset, each.split) for each in found] == [("left", "test"), ("right", "test")]
    for each, other in zip(found, others, strict=True):
        whole = evaluate(biencoder, Workbench(biencoder.tower, other, tmp_path))
        assert each.systems == {name: whole.systems[name] for name in ("frozen", "tuned")}
        assert each.test == whole.tests["tuned_vs_frozen"]
        assert whole.documents_encoded == 0, "each one's own documents are in the cache"
    assert elsewhere(biencoder, []) == []


def test_it_is_one_sentence_and_json() -> None:
    test = Comparison("ndcg@10", -0.064, (-0.08, -0.04), 0.0001, 50, 250, 200)
    found = Elsewhere("conala", "test", {"frozen": {"ndcg@10": 0.648}, "tuned": {"ndcg@10": 0.584}}, test)
    assert found.sentence() == (
        "On conala (test), tuned is 6.4 points of nDCG@10 worse than frozen (58.4 against 64.8; 95 % interval -8.0 to "
        "-4.0, p = 0.0001); better on 50 of 500 queries, worse on 250, the same on 200."
    )
    (written,) = json.loads(json.dumps(also_json([found])))["also"]
    assert list(written) == ["dataset", "split", "systems", "test"]
    assert Comparison.from_dict(written["test"]) == test
    assert also_json([]) == {}


def test_there_must_be_prompts_and_test_queries(biencoder: BiEncoder, others: list[Dataset], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the bi-encoder has no prompts"):
        elsewhere(BiEncoder(biencoder.tower), others)
    data = tiny.write_data(tmp_path / "data")
    (data / "qrels" / "test.tsv").unlink()
    with pytest.raises(UserError, match=r"^--also evaluates on test queries, and .*data has no test split$"):
        load_others([data])
