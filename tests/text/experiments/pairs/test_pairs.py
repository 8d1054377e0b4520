"""Pairs that are made where nothing is judged: what asks for what, what is learned from them, and what is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.hybrid import UNLABELLED
from retrieval_prompts.experiments.pairs import generated as generating
from retrieval_prompts.experiments.pairs.cloze import crops, titles
from retrieval_prompts.experiments.pairs.log import queries
from retrieval_prompts.experiments.pairs.made import JUDGED, TEACHER, TooFew, corpus_of, drawn
from retrieval_prompts.experiments.pairs.prepare import log_of, prepare, settled
from retrieval_prompts.experiments.pairs.teachers import BiEncoderTeacher, CrossEncoderTeacher, load_teacher
from retrieval_prompts.experiments.retrieval import tune
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.towers.language import LanguageModel
from retrieval_prompts.training.settings import TuneSettings

SETTINGS = TuneSettings(kind="prefix", length=2, epochs=6, batch_size=32, learning_rate=0.05, folds=1)
DOCUMENTS = 150


def write(folder: Path) -> Path:
    """A BEIR folder without judgements: 150 documents with a title and two sentences, and a log of 120 queries."""
    random = np.random.default_rng(0)

    def about(words: list[str]) -> dict[str, str]:
        """A title of three of the words, in the frame of words that queries stand in, and two sentences of them."""
        first, second = (" ".join(random.permutation(words)) for _ in range(2))
        return {"title": " ".join([*tiny.FRAME, *words[:3]]), "text": f"{first}. {second}."}

    chosen = [list(random.choice(tiny.WORDS, 6, replace=False)) for _ in range(DOCUMENTS)]
    rows = [{"_id": f"d{number}", **about(words)} for number, words in enumerate(chosen)]
    log = [
        {"_id": f"q{number}", "text": " ".join([*tiny.FRAME, *words[3:]])} for number, words in enumerate(chosen[:120])
    ]
    folder.mkdir()
    for name, lines in (("corpus", rows), ("queries", log)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(write(tmp_path_factory.mktemp("pairs") / "data"), judged=False)


@pytest.fixture(scope="module")
def biencoder(model: Path) -> BiEncoder:
    return BiEncoder.load(str(model), device="cpu")


@pytest.fixture
def bench(biencoder: BiEncoder, dataset: Dataset) -> Workbench:
    return Workbench(biencoder.tower, dataset)


def test_a_title_asks_for_its_text(dataset: Dataset) -> None:
    made = titles(dataset, 0).dataset
    assert len(made.queries) == DOCUMENTS
    assert all(document.title == "" for document in made.corpus)
    for query, judged in {**made.qrels["train"], **made.qrels["dev"]}.items():
        (document,) = judged
        assert made.queries[query] == dataset.corpus[dataset.corpus.position(document)].title
    assert not made.qrels["train"].keys() & made.qrels["dev"].keys()
    assert len(made.qrels["dev"]) == DOCUMENTS // 3


def test_a_sentence_asks_for_the_rest(dataset: Dataset) -> None:
    made = crops(dataset, 0).dataset
    assert len(made.queries) == DOCUMENTS
    for query, text in made.queries.items():
        whole = dataset.corpus[dataset.corpus.position(query.removeprefix("crops:"))]
        rest = made.corpus[made.corpus.position(whole.id)]
        assert text in whole.text
        assert text not in rest.text
        assert rest.title == whole.title
        assert sorted(f"{rest.text} {text}".split()) == sorted(whole.text.split())


def test_scripts_without_spaces_have_sentences_and_words(dataset: Dataset) -> None:
    texts = [f"第{number}条河流里有很多铜矿。猎鹰在{number}号冰川上空飞行。" for number in range(100)]
    documents = [Document(f"d{n}", f"河流与铜矿的历史{n}", text) for n, text in enumerate(texts)]
    chinese = replace(dataset, corpus=corpus_of(documents, Path("corpus.jsonl")))
    made = crops(chinese, 0).dataset
    assert len(made.queries) == 100
    assert all(text.endswith("。") and text.count("。") == 1 for text in made.queries.values())
    assert set(titles(chinese, 0).dataset.queries.values()) == {document.title for document in documents}


def test_a_title_of_several_documents_asks_for_all_of_them(dataset: Dataset) -> None:
    rows = [replace(document, title=f"what is number {number // 2}") for number, document in enumerate(dataset.corpus)]
    rows += [replace(document, id=f"{document.id}.2", title=f"more {document.id} of it") for document in rows]
    made = titles(replace(dataset, corpus=corpus_of(rows, Path("corpus.jsonl"))), 0)
    judged = {**made.dataset.qrels["train"], **made.dataset.qrels["dev"]}
    assert judged["titles:d0"] == {"d0": 1, "d1": 1}
    assert len(made.dataset.queries) == DOCUMENTS // 2 + DOCUMENTS


def test_damage_to_written_queries_is_named(bench: Workbench, tmp_path: Path) -> None:
    generating.generated(bench, Copying(), 0, tmp_path)  # type: ignore[arg-type]
    (path,) = tmp_path.iterdir()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "no JSON\n", *lines[2:]]))
    with pytest.raises(UserError, match=f"{path.name}:2: expected a JSON object"):
        generating.generated(bench, Copying(), 0, tmp_path)  # type: ignore[arg-type]


def test_documents_in_chunks_are_no_place_for_a_log(biencoder: BiEncoder, tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    rows = [row | {"metadata": {"document": f"whole{n // 2}"}} for n, row in enumerate(rows)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench = Workbench(biencoder.tower, load(folder, judged=False))
    with pytest.raises(UserError, match="only where documents are not in chunks"):
        prepare(bench, TuneSettings(pairs="queries"), None)
    with pytest.warns(DataWarning, match="titles"):
        made = prepare(bench, TuneSettings(), None)
    assert made is not None
    assert made.how == "titles"


def test_documents_are_drawn_once_the_corpus_is_large(dataset: Dataset) -> None:
    few = drawn(dataset.corpus, 0, most=20)
    positions = [dataset.corpus.position(document.id) for document in few]
    assert len(set(positions)) == 20
    assert positions == sorted(positions)
    assert [document.id for document in drawn(dataset.corpus, 1, most=20)] != [document.id for document in few]


def test_a_log_follows_the_frozen_model_with_bm25(bench: Workbench, dataset: Dataset) -> None:
    made = queries(bench, dataset.queries, {})
    assert made.teacher.keys() == dataset.queries.keys()
    hybrid = bench.hybrid_of(bench.index)
    assert hybrid is not None
    vectors = bench.query_vectors(bench.frozen, dataset.queries.values())
    (ranked,) = hybrid.rank(dataset.queries, vectors, 1, [UNLABELLED])
    for query, shares in made.teacher.items():
        assert sum(shares.values()) == pytest.approx(1)
        assert max(shares, key=lambda document: shares[document]) == next(iter(ranked[query]))
    for query, judged in made.dataset.qrels["dev"].items():
        assert judged == {next(iter(ranked[query])): 1}


def test_a_teacher_has_the_say(bench: Workbench, dataset: Dataset) -> None:
    class LikesLateWords:
        def scores(self, query: str, documents: Sequence[str]) -> np.ndarray:
            return np.array([max(text.split()) for text in documents]).argsort().argsort().astype(np.float32)

    made = queries(bench, dataset.queries, {}, LikesLateWords())
    for shares in made.teacher.values():
        texts = {
            document: max(dataset.corpus[dataset.corpus.position(document)].content.split()) for document in shares
        }
        assert texts[max(shares, key=lambda document: shares[document])] == max(texts.values())
    assert made.judge == TEACHER  # so that dev may say what prompts add to BM25


def test_teachers_are_told_apart_by_their_configuration(model: Path, tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig.from_pretrained(model / "network" if (model / "network").exists() else model)
    config.num_labels = 1
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "cross")
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "cross")
    cross = load_teacher(str(tmp_path / "cross"), "cpu")
    assert isinstance(cross, CrossEncoderTeacher)
    assert cross.scores("river copper", ["lantern", "orchid falcon"]).shape == (2,)
    larger = load_teacher(str(model), "cpu")
    assert isinstance(larger, BiEncoderTeacher)
    assert larger.scores("river copper", ["river copper", "orchid falcon"]).argmax() == 0
    with pytest.raises(UserError, match="--teacher"):
        load_teacher(str(tmp_path / "none"), "cpu")


@pytest.mark.parametrize("pairs", ["titles", "crops", "queries"])
def test_prompts_learn_without_judgements(biencoder: BiEncoder, dataset: Dataset, tmp_path: Path, pairs: str) -> None:
    mine = BiEncoder(biencoder.tower)
    frozen = {name: value.clone() for name, value in mine.tower.model.state_dict().items()}
    settings = replace(SETTINGS, pairs=pairs, encoder=TuneSettings(pairs=pairs).encoder)
    found = tune(mine, Workbench(mine.tower, dataset), settings, out=tmp_path / "prompts")
    assert found.choice is not None
    assert found.choice.how.startswith(f"made of {pairs}")
    assert found.choice.frozen_weight == UNLABELLED  # made queries do not choose it
    losses = [step.loss for step in found.steps if step.step]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert all(bool((value == frozen[name]).all()) for name, value in mine.tower.model.state_dict().items())
    assert json.loads((tmp_path / "prompts" / "prompt.json").read_text())["training"]["pairs"].endswith(
        "it was made from" if pairs != "queries" else "finds for them"
    )
    if pairs == "queries":
        assert found.choice.system == ("tuned+bm25" if found.choice.strength > 0 else "frozen+bm25")
        assert found.choice.best_vs_untuned is None
        assert found.settings["encoder"] == "feedback"


def test_judged_queries_choose_what_a_log_has_taught(
    biencoder: BiEncoder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval_prompts.experiments.pairs.prepare.FEW_DEV", 12)
    judged = replace(dataset, qrels={"train": {f"q{number}": {f"d{number}": 1} for number in range(12)}})
    bench = Workbench(biencoder.tower, judged)
    made = prepare(bench, replace(SETTINGS, pairs="queries"), None)
    assert made is not None
    assert made.judge == JUDGED
    assert made.training.dev == judged.qrels["train"]
    assert made.training.train.keys() == dataset.queries.keys() - judged.qrels["train"].keys()
    found = tune(BiEncoder(biencoder.tower), bench, replace(SETTINGS, pairs="queries", epochs=1))
    assert found.choice is not None
    assert found.choice.queries == 12
    assert found.choice.how == "made of queries, by judged queries"


def test_few_judged_queries_do_not_overrule_a_log(biencoder: BiEncoder, dataset: Dataset) -> None:
    """The pairs are those that there would be without them."""
    few = replace(dataset, qrels={"train": {f"q{number}": {f"d{number}": 1} for number in range(12)}})
    settings = TuneSettings.of(pairs="queries")
    with pytest.warns(DataWarning, match=r"12 judged queries are too few to choose by \(50 are needed\)"):
        made = prepare(Workbench(biencoder.tower, few), settings, "test")
    without = prepare(Workbench(biencoder.tower, dataset), settings, "test")
    assert made is not None and without is not None
    assert (made.judge, made.dataset.qrels, made.teacher) == (without.judge, without.dataset.qrels, without.teacher)


def test_auto_takes_judged_queries_where_there_are_some(biencoder: BiEncoder, tmp_path: Path) -> None:
    judged = load(tiny.write_data(tmp_path / "judged", dev=True))
    assert prepare(Workbench(biencoder.tower, judged), TuneSettings(), "test") is None


def test_auto_says_what_it_takes_instead(bench: Workbench, dataset: Dataset) -> None:
    with pytest.warns(DataWarning, match="no judged training queries.*120 queries without judgements"):
        made = prepare(bench, TuneSettings(), None)
    assert made is not None
    assert made.how == "queries"
    assert settled(TuneSettings(seed=3), made) == TuneSettings(seed=3, pairs="queries", encoder="feedback")
    assert settled(TuneSettings(encoder="mlp"), made).encoder == "mlp"
    bench.dataset = replace(dataset, queries={})
    with pytest.warns(DataWarning, match=f"no judged training queries.*{DOCUMENTS} titles"):
        made = prepare(bench, TuneSettings(), None)
    assert made is not None
    assert made.dataset.queries == titles(dataset, 0).dataset.queries
    bench.dataset = replace(dataset, queries={"q1": "one query"})
    with pytest.warns(DataWarning, match=r"titles.*\(a log of only 1 queries, and 100 are needed\); judged queries"):
        prepare(bench, TuneSettings(), None)


def test_auto_proposes_the_fusion_where_nothing_helps(biencoder: BiEncoder, tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    rows = [json.loads(line) | {"title": ""} for line in (folder / "corpus.jsonl").read_text().splitlines()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UserError, match="frozen model with BM25"):
        prepare(Workbench(biencoder.tower, load(folder, judged=False)), TuneSettings(), None)


def test_the_evaluated_split_is_no_part_of_the_log(dataset: Dataset) -> None:
    judged = replace(dataset, qrels={"test": {"q0": {"d0": 1}}})
    assert "q0" in log_of(judged, None)
    assert log_of(judged, "test").keys() == dataset.queries.keys() - {"q0"}


def test_too_few_are_refused(bench: Workbench, dataset: Dataset) -> None:
    with pytest.raises(TooFew, match="a log of only 2 queries"):
        queries(bench, dict(list(dataset.queries.items())[:2]), {})


class Copying:
    """Writes the first words of a document; nonsense for every third one."""

    def __init__(self) -> None:
        self.identity, self.shown, self.calls = "copying", [("a", "b")], 0

    def write(self, document: str) -> str:
        self.calls += 1
        return "zebra" if self.calls % 3 == 0 else " ".join(document.split()[9:14])


def test_queries_that_do_not_find_their_document_are_left_out(bench: Workbench, tmp_path: Path) -> None:
    made = generating.generated(bench, Copying(), 0, tmp_path)  # type: ignore[arg-type]
    (path,) = tmp_path.iterdir()
    assert str(path) in made.what
    assert 100 <= len(made.dataset.queries) <= DOCUMENTS * 2 / 3 + 1
    assert "zebra" not in made.dataset.queries.values()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["document"] for row in rows] == list(bench.dataset.corpus.ids)
    path.write_text("".join(json.dumps(row | {"query": "zebra"}) + "\n" for row in rows))
    with pytest.raises(TooFew, match=rf"of the {DOCUMENTS} queries that were written .* only 0 are of one document"):
        generating.generated(bench, Copying(), 0, tmp_path)  # type: ignore[arg-type]


def test_writing_goes_on_where_it_was_cut_short(bench: Workbench, tmp_path: Path) -> None:
    generating.generated(bench, Copying(), 0, tmp_path)  # type: ignore[arg-type]
    (path,) = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + lines[-2][:9])
    writer = Copying()
    generating.generated(bench, writer, 0, tmp_path)  # type: ignore[arg-type]
    assert writer.calls == 2
    assert len(path.read_bytes().splitlines()) == DOCUMENTS


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_a_language_model_writes_one_line(tmp_path: Path, model: Path, kind: str) -> None:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    size = len(tokenizer)
    torch.manual_seed(0)
    network: transformers.PreTrainedModel
    shape: dict[str, Any] = {"vocab_size": size, "eos_token_id": 3}
    if kind == "causal":
        shape |= {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96, "bos_token_id": 2}
        network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))
    else:
        shape |= {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
        shape |= {"pad_token_id": 0, "decoder_start_token_id": 0}
        network = transformers.T5ForConditionalGeneration(transformers.T5Config(**shape))
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    language = LanguageModel(str(tmp_path / "model"))
    writer = generating.Writer(language, generating.SHOWN)
    text = " ".join(tiny.WORDS) * 40  # longer than the model reads
    assert "\n" not in writer.write(text)
    assert writer.write(text) == writer.write(text)
    assert writer.prompt("a\n b").endswith("Document: a b\nQuery:")
    assert not any(weight.requires_grad for weight in language.model.parameters())
    with pytest.raises(UserError, match="--generator"):
        LanguageModel(str(tmp_path / "none"))
