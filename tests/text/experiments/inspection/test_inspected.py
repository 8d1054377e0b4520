"""What prompts do to queries, on data and a model small enough to say what is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.significance import Comparison
from retrieval_prompts.experiments.inspection.claims import claims, verdict
from retrieval_prompts.experiments.inspection.effects import pulls
from retrieval_prompts.experiments.inspection.inspected import Inspection, inspect
from retrieval_prompts.experiments.inspection.null import Beside, too_few
from retrieval_prompts.experiments.inspection.slots import _relevant
from retrieval_prompts.experiments.inspection.trial import Trial, without
from retrieval_prompts.experiments.retrieval import evaluate
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.report.inspection_page import inspection_report
from retrieval_prompts.report.page import render
from retrieval_prompts.towers.text import TextTower, load_tower
from retrieval_prompts.training.settings import TuneSettings


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TextTower:
    return load_tower(tiny.write_model(tmp_path_factory.mktemp("model")), device="cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    yield load(tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True))


@pytest.fixture(scope="module")
def bench(small: TextTower, dataset: Dataset) -> Workbench:
    return Workbench(small, dataset)


def tuned(bench: Workbench, **given: object) -> BiEncoder:
    """Prompts after a few steps of training, with the record of their settings."""
    settings = TuneSettings.of(**{"length": 3, "epochs": 3, "learning_rate": 0.05, "batch_size": 15, **given})
    biencoder = bench.attach(BiEncoder(bench.tower), settings)
    list(bench.train(biencoder, bench.training, settings, None))
    biencoder.training_record["settings"] = vars(settings)
    biencoder.training_record["corpus"] = bench.dataset.corpus.fingerprint
    return biencoder


def test_a_figure_beside_random_ones() -> None:
    drawn = [float(number) for number in range(39)]
    above = Beside.of(40.0, drawn, 3.0, side="above")
    assert (above.p_value, above.null_mean, above.null_low, above.null_high) == (1 / 40, 19.0, 0.0, 38.0)
    assert above.beaten and above.initial == 3.0
    assert Beside.of(40.0, drawn).p_value == 2 / 40  # either side counts: not below 0.05
    assert Beside.of(-1.0, drawn, side="above").p_value == 1.0
    assert Beside.of(-1.0, drawn, side="below").beaten
    assert not Beside.of(38.0, drawn, side="above").beaten  # as far out as one of them
    assert Beside.of(5.0, [5.0]).p_value == 1.0
    # The prompt before training was as far out, or further: training did not make it so
    assert not Beside.of(40.0, drawn, 40.0, side="above").beaten
    assert not Beside.of(-30.0, drawn, -31.0, side="below").beaten
    assert Beside.of(-30.0, drawn, 60.0, side="below").beaten


def test_the_whole_of_a_prompt(bench: Workbench, kind: str) -> None:
    biencoder = tuned(bench, kind=kind)
    counted: list[int] = []
    totals: list[int] = []

    def start(total: int) -> object:
        totals.append(total)
        return counted.append

    found = inspect(biencoder, bench, draws=4, on_start=start)  # type: ignore[arg-type]
    assert totals == [sum(counted)]
    asked = found.asked
    assert asked is not None and asked.queries == (10, 10)
    # The very figures of evaluate
    result = evaluate(biencoder, bench)
    for system in ("frozen", "tuned"):
        assert asked.systems[system] == pytest.approx(result.systems[system])
    assert ("words" in asked.systems) == (kind == "input")
    assert asked.score.draws == 4 and asked.score.initial == pytest.approx(asked.systems["initial"]["ndcg@10"])
    assert [each.name for each in asked.left_out] == ["vector 1", "vector 2", "vector 3"]
    seen = found.attention["query"]
    assert np.array(seen.vectors).shape == (2, 3)
    assert seen.total.value == pytest.approx(np.sum(seen.vectors) / 2)
    assert seen.texts == 10
    made = claims(found)
    assert [claim.beyond for claim in made] == sorted((claim.beyond for claim in made), reverse=True)
    page = render(inspection_report(found, bench, "prompts"))
    assert "Attention to the query prompt" in page and "Without each vector" in page


def test_a_vector_left_out_is_a_prompt_without_it(bench: Workbench, dataset: Dataset) -> None:
    biencoder = tuned(bench)
    queries, qrels = dataset.split("test")
    trial = Trial(bench, biencoder, queries, qrels)
    whole = trial.encode(trial.prompt)
    assert np.array_equal(whole, bench.query_vectors(biencoder, queries.values()))
    assert torch.equal(without(trial.prompt, 1), trial.prompt[:, [0, 2]])
    one = without(without(trial.prompt, 0), 0)
    assert np.array_equal(trial.encode(without(one, 0)), trial.encode(None))  # without its last it is the frozen model
    found = inspect(biencoder, bench, draws=1).asked
    assert found is not None
    moved = 1 - np.einsum("nd,nd->n", whole, trial.encode(without(trial.prompt, 1))).mean()
    assert found.left_out[1].moved.value == pytest.approx(moved, abs=1e-5)
    assert found.movement.turned.value == pytest.approx(
        1 - np.einsum("nd,nd->n", whole, trial.encode(None)).mean(), abs=1e-5
    )


def test_documents_of_a_feedback_prompt(bench: Workbench) -> None:
    biencoder = tuned(bench, encoder="feedback", feedback=2)
    counted: list[int] = []
    totals: list[int] = []

    def start(total: int) -> object:
        totals.append(total)
        return counted.append

    found = inspect(biencoder, bench, draws=2, on_start=start)  # type: ignore[arg-type]
    assert totals == [sum(counted)]
    asked = found.asked
    assert asked is not None and asked.slots is not None
    assert [each.name for each in asked.left_out] == ["vector 1", "vector 2", "vector 3", "document 1", "document 2"]
    assert {"static", "documents", "others", "initial", "initial others"} <= asked.systems.keys()
    lost = asked.tests["others_vs_tuned"]
    for less, beyond in ((-0.1, True), (-0.3, False)):  # before training it lost less, or more
        asked.tests["others_vs_tuned"] = replace(lost, difference=-0.2, p_value=0.001)
        asked.tests["initial others_vs_initial"] = replace(lost, difference=less)
        (claim,) = [claim for claim in claims(found) if "made from other queries" in claim.text]
        assert claim.beyond == beyond and f"Before training that changed it by {100 * less:+.1f}." in claim.text
    assert asked.slots.queries.keys() == {change.id for change in asked.changes}
    for change in asked.changes:
        first, second = asked.slots.queries[change.id]
        assert (first.rank, second.rank) == (1, 2) and first.moved > 0
        assert first.relevant == (asked.qrels[change.id].get(first.id, 0) > 0)
    assert "Which document moved the query" in render(inspection_report(found, bench, "prompts"))


def test_what_rows_gain_is_that_of_all_blocks() -> None:
    rows, directions = np.arange(12.0).reshape(6, 2), np.array([[1.0, 0], [0, 1], [-1, 0], [0, 2]])
    gains = rows @ directions.T
    for size in (2, 6):
        blocks = [rows[at : at + size] for at in range(0, 6, size)]
        own, average, largest = pulls(blocks, directions, 2)
        assert np.array_equal(own, gains[:, 0]) and np.array_equal(average, gains[:, 1:3].mean(axis=1))
        assert np.array_equal(largest, gains.max(axis=0))


def test_relevance_is_exchanged_between_whole_queries() -> None:
    """Documents of one query are no independent witnesses: 3 of 12 queries turn far, 2 have relevant ones."""
    moved = np.where(np.arange(12)[:, None] < 3, 0.9, 0.1) + np.zeros((12, 8))
    right = np.broadcast_to(np.isin(np.arange(12), [0, 1, 5])[:, None], (12, 8))
    found = _relevant(moved, right, moved)
    assert found is not None and found.value == pytest.approx(0.8 * (2 / 3 - 1 / 9))
    assert found.p_value > 0.1
    assert found.initial == found.value


def test_a_gain_that_was_there_before_training_is_none(bench: Workbench) -> None:
    asked = inspect(tuned(bench), bench, draws=1).asked
    assert asked is not None
    gain = Comparison("ndcg@10", 0.1, (0.05, 0.15), 0.001, 9, 1, 0)
    asked.score = Beside.of(0.7, [0.1] * 40, 0.69, side="above")
    for known, beyond in ((gain, True), (replace(gain, p_value=0.3), False)):
        asked.tests |= {"tuned_vs_frozen": gain, "tuned_vs_initial": known}
        (claim,) = [claim for claim in claims(Inspection({}, asked=asked)) if "before training 69.0" in claim.text]
        assert claim.beyond == beyond


def test_so_few_random_prompts_that_nothing_can_be_beyond_them(bench: Workbench) -> None:
    note = "Of figures that may lie on either side of random ones, --draws 1 can show none to be beyond them"
    assert any(said.startswith(note) for said in inspect(tuned(bench), bench, draws=1).notes)
    assert not Beside.of(1.0, [0.0] * 39).beaten and too_few(39)
    assert Beside.of(1.0, [0.0] * 40).beaten and not too_few(40)


def test_a_prompt_that_was_not_trained_is_its_start(bench: Workbench) -> None:
    biencoder = tuned(bench, epochs=1)
    settings = biencoder.training_record["settings"]
    biencoder.attach(length=3, init=settings["init"], seed=settings["seed"])
    biencoder.training_record["settings"] = settings
    asked = inspect(biencoder, bench, draws=1).asked
    assert asked is not None
    assert asked.systems["initial"] == asked.systems["tuned"]
    assert asked.movement.turned.initial == asked.movement.turned.value


def test_what_random_vectors_do_is_no_finding(bench: Workbench) -> None:
    """A prompt that is itself random is beyond them as often as chance has it."""
    found = inspect(BiEncoder(bench.tower).attach(length=3, init="gaussian", seed=77), bench, draws=45)
    assert sum(claim.beyond for claim in claims(found)) <= 1
    words = inspect(BiEncoder(bench.tower).attach(length=3, init="gaussian", seed=77))
    assert verdict(claims(words)) == "Nothing that was found here is beyond what untrained prompts do."


def test_without_data(bench: Workbench) -> None:
    found = inspect(tuned(bench))
    assert found.asked is None and found.attention == {} and list(found.words) == ["query"]
    assert found.notes == ["What the prompts do to queries needs data: --data DATA."]
    page = render(inspection_report(found, None, "a <b>prompt"))
    assert "a &lt;b&gt;prompt: what it says and does" in page
    assert "<b>prompt" not in page


def test_prompts_of_both_sides(bench: Workbench) -> None:
    found = inspect(BiEncoder(bench.tower).attach("both", length=2), bench, draws=1)
    assert found.words.keys() == found.attention.keys() == {"query", "document"}
    assert found.asked is not None
    alone = inspect(BiEncoder(bench.tower).attach("document", length=2), bench, draws=1)
    assert alone.asked is None and list(alone.attention) == ["document"]
    assert "There is no prompt on the query side, so queries do not move." in alone.notes


def test_fewer_queries_are_taken_evenly_and_dev_is_what_chooses(bench: Workbench) -> None:
    found = inspect(tuned(bench), bench, queries=4, draws=1)
    assert found.asked is not None and found.asked.queries == (4, 10)
    assert list(found.asked.qrels) == ["q30", "q33", "q36", "q39"]
    split = inspect(tuned(bench), bench, "dev", draws=1).asked
    assert split is not None and split.queries == (8, 8)


def test_titles_are_shown_as_text(bench: Workbench, dataset: Dataset) -> None:
    found = inspect(tuned(bench), bench, draws=1)
    assert found.asked is not None
    pull = found.asked.movement.documents[0]
    object.__setattr__(pull, "title", "<script>alert(1)</script>")
    page = render(inspection_report(found, bench, "prompts"))
    assert "&lt;script&gt;alert(1)" in page and "<script>alert(1)" not in page


def test_what_cannot_be_inspected(bench: Workbench) -> None:
    with pytest.raises(UserError, match="there is no prompt to inspect"):
        inspect(BiEncoder(bench.tower))
    with pytest.raises(UserError, match="expected one random prompt and one query at least, got 0 and 300"):
        inspect(tuned(bench), bench, draws=0)
    with pytest.raises(UserError, match="has no split 'other'"):
        inspect(tuned(bench), bench, "other", draws=1)


def test_rejected_prompts_are_looked_at_whole(bench: Workbench) -> None:
    biencoder = tuned(bench)
    biencoder.strength = 0.0
    found: Inspection = inspect(biencoder, bench, draws=40, queries=2)
    assert found.asked is not None and found.asked.movement.turned.value > 0
    assert found.notes == ["The prompts are saved with strength 0, as dev rejected them; here they are at strength 1."]
