"""The loop on a module of two numbers: schedules and moments by hand, and runs that are cut off at every step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from retrieval_prompts.errors import Diverged, UserError
from retrieval_prompts.training import loop as training
from retrieval_prompts.training.loop import LoopSettings, Step, fit, learning_rate

EPOCHS, STEPS = 4, 3  # of the runs below, unless said otherwise
SETTINGS = LoopSettings(epochs=EPOCHS, learning_rate=0.1, warmup=0.25, weight_decay=0.01)


class Point(nn.Module):
    """Two numbers that should move to a target."""

    def __init__(self, x: float = 0.0, y: float = 0.0) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([float(x), float(y)]))


def targets(epoch: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(epoch)
    return [torch.tensor([1.0, -2.0]) + torch.randn(2, generator=generator) / 10 for _ in range(STEPS)]


def distance(point: Point) -> Callable[[Tensor], Tensor]:
    return lambda target: ((point.place - target) ** 2).sum()


def closeness(point: Point) -> Callable[[], float]:
    return lambda: -float(((point.place.detach() - torch.tensor([1.0, -2.0])) ** 2).sum())


def scores(*values: float) -> Callable[[], float]:
    """A dev score that takes these values one after the other."""
    remaining = iter(values)
    return lambda: next(remaining)


def run(point: Point, settings: LoopSettings = SETTINGS, **options: Any) -> Iterator[Step]:
    return fit(point, targets, distance(point), closeness(point), settings, **options)


# --- what is learned and recorded ---------------------------------------------------------------------------------


def test_the_loss_falls_and_there_is_a_record_a_step() -> None:
    point = Point()
    records = list(run(point))
    assert [record.step for record in records] == list(range(EPOCHS * STEPS + 1))
    assert [record.epoch for record in records[1:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    # The first record is the module as it came: no loss, no learning rate, nothing that is better
    assert math.isnan(records[0].loss)
    assert (records[0].learning_rate, records[0].gradient_norm, records[0].best) == (0, 0, False)
    assert records[0].dev == pytest.approx(-5)  # (0, 0) is as far as 1 + 4 from (1, -2)
    assert [record.step for record in records if record.dev is not None] == [0, 3, 6, 9, 12]
    assert records[1].loss == pytest.approx(float((targets(0)[0] ** 2).sum()))
    assert records[1].gradient_norm == pytest.approx(2 * float(targets(0)[0].norm()))  # before it is clipped
    losses = [record.loss for record in records[1:]]
    assert sum(losses[-STEPS:]) < sum(losses[:STEPS])
    assert closeness(point)() == records[-1].dev


def test_the_learning_rate_by_hand() -> None:
    settings = LoopSettings(epochs=1, learning_rate=0.8, warmup=0.2)
    rates = [learning_rate(step, 20, settings) for step in range(21)]  # 4 steps up, then 16 down to 0
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[8] == pytest.approx(0.8 * (1 + math.sqrt(0.5)) / 2)  # a quarter down: cos(pi / 4)
    assert rates[12] == pytest.approx(0.4)  # half way down
    assert rates[19] == pytest.approx(0.8 * (1 - math.cos(math.pi / 16)) / 2)  # the last step still moves
    assert rates[20] == 0
    assert [learning_rate(0, 5, LoopSettings(learning_rate=0.8, warmup=warmup)) for warmup in (0, 1)] == [0.8, 0.16]
    ended = LoopSettings(learning_rate=0.8, warmup=0, floor=0.2)
    assert [learning_rate(step, 4, ended) for step in (0, 2, 4)] == pytest.approx([0.8, 0.5, 0.2])


def test_the_records_and_the_first_step_follow_the_learning_rate() -> None:
    point = Point()
    records = list(islice(run(point, LoopSettings(epochs=EPOCHS, learning_rate=0.4, warmup=0.25)), 4))
    assert [record.learning_rate for record in records] == pytest.approx([0, 0.4 / 3, 0.8 / 3, 0.4])
    one = Point()
    list(islice(run(one, LoopSettings(epochs=EPOCHS, learning_rate=0.4, warmup=0.25)), 2))
    # AdamW's first step is the learning rate in the direction of the gradient's signs, here (-, +)
    assert one.place.tolist() == pytest.approx([0.4 / 3, -0.4 / 3])


def test_weight_decay_is_decoupled_from_the_gradient() -> None:
    point = Point(3, -3)
    settings = LoopSettings(epochs=1, learning_rate=0.5, warmup=0, weight_decay=0.2)
    steps = fit(point, lambda _: [None], lambda _: (point.place * 0).sum(), scores(0, 1), settings)
    list(steps)
    assert point.place.tolist() == pytest.approx([3 * (1 - 0.5 * 0.2), -3 * (1 - 0.5 * 0.2)])


@pytest.mark.parametrize(("clip", "used"), [(1.0, [0.6, 0.8]), (2.5, [1.5, 2.0]), (100.0, [3.0, 4.0])])
def test_gradients_are_clipped_to_the_norm(tmp_path: Path, clip: float, used: list[float]) -> None:
    point = Point()
    slope = torch.tensor([3.0, 4.0])  # norm 5
    settings = LoopSettings(epochs=1, clip=clip)
    path = tmp_path / "checkpoint"
    records = list(
        fit(point, lambda _: [slope], lambda by: (by * point.place).sum(), scores(0, 1), settings, checkpoint=path)
    )
    assert records[1].gradient_norm == 5
    tensors, _ = read(path)
    assert tensors["optimizer.0.exp_avg"].tolist() == pytest.approx([0.1 * value for value in used])  # 1 - beta1
    assert tensors["optimizer.0.exp_avg_sq"].tolist() == pytest.approx([0.001 * value**2 for value in used])


def cosine_after_an_epoch(epochs: int, rate: float, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """What is called after each epoch: torch's cosine, which an epoch at 1e-5 comes before."""
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    waited: list[bool] = []
    optimizer.param_groups[0]["lr"] = 1e-5

    def end() -> None:
        if waited:
            cosine.step()
        else:
            waited.append(True)
            optimizer.param_groups[0]["lr"] = rate

    return end


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step()`")
def test_few_shot_learning_as_published_is_torchs_optimizer_with_its_cosine(tmp_path: Path, name: str) -> None:
    settings = LoopSettings(
        7, 0.02, weight_decay=0.05, clip=None, optimizer=name, eps=1e-3 if name == "adam" else 1e-8, schedule="epochs"
    )
    point, plain = Point(3, -3), Point(3, -3)
    made = (
        torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, weight_decay=0.05)
        if name == "sgd"
        else torch.optim.Adam(plain.parameters(), lr=0.02, weight_decay=0.05, eps=1e-3)
    )
    end = cosine_after_an_epoch(7, 0.02, made)
    rates = []
    for epoch in range(7):
        for target in targets(epoch):
            made.zero_grad()
            (10 * distance(plain)(target)).backward()  # a gradient that clipping would cut
            made.step()
            rates.append(made.param_groups[0]["lr"])
        end()
    loss = lambda to: lambda target: 10 * distance(to)(target)  # noqa: E731
    records = list(fit(point, targets, loss(point), None, settings))
    assert [record.learning_rate for record in records] == pytest.approx(rates)
    assert rates[:4] == [1e-5] * 3 + [0.02], "the first epoch, and then the cosine from its top"
    assert torch.allclose(point.place, plain.place, rtol=0, atol=1e-6)
    assert not torch.allclose(point.place, torch.tensor([3.0, -3.0]), atol=0.1)
    # A run that is cut short goes on with the same moments
    again, path = Point(3, -3), tmp_path / "checkpoint"
    cut = Point(3, -3)
    list(islice(fit(cut, targets, loss(cut), None, settings, checkpoint=path), 9))
    list(fit(again, targets, loss(again), None, settings, checkpoint=path))
    assert torch.equal(again.place, point.place)


def test_a_single_epoch_is_the_one_before_the_cosine() -> None:
    settings = LoopSettings(epochs=1, learning_rate=0.5, schedule="epochs")
    assert [learning_rate(step, 3, settings) for step in range(3)] == [1e-5] * 3


def test_frozen_parameters_stay() -> None:
    point = Point()
    still = nn.Parameter(torch.tensor([7.0]), requires_grad=False)
    point.register_parameter("still", still)
    list(run(point, LoopSettings(epochs=1, weight_decay=0.5)))
    assert still.item() == 7


# --- which weights are kept ---------------------------------------------------------------------------------------


def states(point: Point, steps: Iterator[Step]) -> list[list[float]]:
    """The module at each record."""
    return [point.place.tolist() for _ in steps]


def test_the_best_weights_are_restored_not_the_last() -> None:
    point = Point()
    steps = fit(point, targets, distance(point), scores(0.1, 0.2, 0.5, 0.5, 0.3), SETTINGS)
    seen = states(point, steps)
    assert point.place.tolist() == seen[2 * STEPS] != seen[-1]  # the first of two equal scores


def test_the_initial_weights_are_kept_where_no_epoch_is_better() -> None:
    point = Point(5, 5)
    records = list(fit(point, targets, distance(point), scores(0.5, 0.5, 0.4, 0.1, 0.2), SETTINGS))
    assert point.place.tolist() == [5, 5]
    assert [record.best for record in records if record.dev is not None] == [False] * 5


@pytest.mark.parametrize(
    ("patience", "values", "epochs"),
    [
        (1, (0.1, 0.2, 0.2), 2),
        (2, (0.1, 0.5, 0.4, 0.3), 3),
        (2, (0.5, 0.4, 0.3), 2),  # never better than at the start
        (2, (0.1, 0.2, 0.1, 0.3, 0.1), 4),  # a better score begins the wait anew
        (None, (0.5, 0.4, 0.3, 0.2, 0.1), 4),
    ],
)
def test_early_stopping(patience: int | None, values: tuple[float, ...], epochs: int) -> None:
    point = Point()
    settings = LoopSettings(epochs=EPOCHS, patience=patience)
    seen = states(point, fit(point, targets, distance(point), scores(*values), settings))
    assert len(seen) == 1 + epochs * STEPS
    assert point.place.tolist() == seen[STEPS * values.index(max(values))]


# --- a training that goes nowhere ---------------------------------------------------------------------------------

NINE = LoopSettings(epochs=9, learning_rate=0.1, give_up=1 / 3)


@pytest.mark.parametrize(
    ("settings", "values", "epochs"),
    [
        (NINE, (0.5, 0.5, 0.4, 0.3), 3),
        (NINE, (0.5, 0.4, 0.3, 0.5, 0.9), 3),  # what would have come later is not waited for
        (NINE, (0.5, 0.4, 0.3, 0.6, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2), 9),  # one good score is enough, and goes on counting
        (NINE, (0.5, 0.6, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2), 9),
        (replace(NINE, epochs=1), (0.5, 0.4), 1),
        (replace(NINE, epochs=5), (0.5, 0.4, 0.4), 2),  # 5 / 3 is nearer to 2
        (replace(NINE, give_up=0), (0.5, 0.4), 1),  # one epoch at least
        (replace(NINE, give_up=1), (0.5, *[0.4] * 9), 9),
        (replace(NINE, give_up=None), (0.5, *[0.4] * 9), 9),
    ],
)
def test_a_training_that_does_not_help_is_given_up(
    settings: LoopSettings, values: tuple[float, ...], epochs: int
) -> None:
    point = Point()
    steps = fit(point, targets, distance(point), scores(*values), settings)
    seen = states(point, steps)
    assert len(seen) == 1 + epochs * STEPS
    helped = max(values[1 : epochs + 1]) > values[0]
    assert steps.given_up == (not helped and settings.give_up is not None)
    assert point.place.tolist() == seen[STEPS * values.index(max(values[: epochs + 1]))]


def test_a_score_of_something_else_is_to_be_beaten() -> None:
    """Untrained prompts may be worse than the frozen model: to be better than they were is not enough."""
    point = Point()
    steps = fit(point, targets, distance(point), scores(0.1, 0.2, 0.3, 0.3), replace(NINE, to_beat=0.5))
    records = list(steps)
    assert [(record.dev, record.best) for record in records if record.dev is not None] == [
        (0.5, False),
        (0.2, False),
        (0.3, False),
        (0.3, False),
    ]
    assert steps.given_up
    assert point.place.tolist() != [0, 0], "what is kept is still the best of what there was"
    point = Point()
    more = scores(0.1, 0.2, 0.6, 0.6, 0.5, 0.7, *[0.1] * 4)
    records = list(fit(point, targets, distance(point), more, replace(NINE, to_beat=0.5)))
    assert [record.step for record in records if record.best] == [2 * STEPS, 5 * STEPS]


def test_weights_that_start_above_the_score_to_beat_are_kept_until_there_are_better_ones() -> None:
    point = Point(5, 5)
    steps = fit(point, targets, distance(point), scores(0.6, 0.55, *[0.1] * 8), replace(NINE, to_beat=0.5))
    records = list(steps)
    assert (len(records), steps.given_up) == (1 + 9 * STEPS, False), "0.55 beats 0.5"
    assert not any(record.best for record in records)
    assert point.place.tolist() == [5, 5]


@pytest.mark.parametrize("every", [1, 2, 50])
def test_a_run_that_is_given_up_is_given_up_after_a_cut_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", every)
    falling = lambda point: lambda: -float(point.place.detach().abs().sum())  # noqa: E731
    for reference, given_up in ((1.0, True), (-9.0, False)):
        settings = replace(NINE, to_beat=reference)
        whole = Point()
        done = fit(whole, targets, distance(whole), falling(whole), settings)
        expected = list(done)
        assert done.given_up == given_up == (len(expected) < 1 + 9 * STEPS)
        for cut in range(2, len(expected) + 1):
            path = tmp_path / f"{given_up}-{cut}"
            first, again = Point(), Point()
            list(islice(fit(first, targets, distance(first), falling(first), settings, checkpoint=path), cut))
            rest = fit(again, targets, distance(again), falling(again), settings, checkpoint=path)
            list(rest)
            assert str(rest.steps) == str(expected)  # as text: a loss before training is NaN
            assert rest.given_up == given_up
            assert torch.equal(again.place, whole.place)


# --- without a dev split, and what happens between epochs -----------------------------------------------------------


class Averaged(Point):
    """Its `mean` is that of the places at the ends of epochs."""

    mean: Tensor

    def __init__(self, x: float = 0.0, y: float = 0.0) -> None:
        super().__init__(x, y)
        self.register_buffer("mean", torch.zeros(2))

    def epoch_end(self, epoch: int) -> None:
        self.mean += (self.place.detach() - self.mean) / (epoch + 1)


def few_shot(point: Point, settings: LoopSettings = SETTINGS, **options: Any) -> Iterator[Step]:
    return fit(point, targets, distance(point), None, settings, **options)


def test_without_a_dev_split_the_last_weights_are_kept() -> None:
    point, scored = Point(), Point()
    records = list(few_shot(point, LoopSettings(epochs=EPOCHS, patience=1)))  # there is nothing to be patient about
    assert [record.step for record in records] == list(range(1, EPOCHS * STEPS + 1))
    assert [(record.dev, record.best) for record in records] == [(None, False)] * len(records)
    falling = scores(*range(EPOCHS + 1))  # the last ones are the best ones
    same = list(fit(scored, targets, distance(scored), falling, LoopSettings(epochs=EPOCHS)))[1:]
    assert [record.loss for record in same] == [record.loss for record in records], "it learns as it does with one"
    assert torch.equal(point.place, scored.place)


def test_epoch_end_is_called_before_the_dev_score_and_the_checkpoint(tmp_path: Path) -> None:
    point, said = Averaged(), []
    path = tmp_path / "checkpoint"

    def evaluate() -> float:
        said.append("dev")
        return len(said)

    def epoch_end(epoch: int) -> str:
        point.epoch_end(epoch)
        said.append(str(epoch))
        return "not looked at"

    steps = fit(point, targets, distance(point), evaluate, SETTINGS, epoch_end=epoch_end, checkpoint=path)
    for record in steps:
        if record.step and record.step % STEPS == 0:
            assert torch.equal(read(path)[0]["module.mean"], point.mean)
            assert torch.equal(read(path)[0]["best.mean"], point.mean)
        said.append(f"step {record.step}")
    expected = ["dev", "step 0"]
    for epoch in range(EPOCHS):
        first = epoch * STEPS + 1
        expected += [f"step {first}", f"step {first + 1}", str(epoch), "dev", f"step {first + 2}"]
    assert said == expected


def test_what_epoch_end_changes_is_kept_and_restored() -> None:
    point, ends = Averaged(), []

    def epoch_end(epoch: int) -> None:
        point.epoch_end(epoch)
        ends.append(point.place.detach().clone())

    list(few_shot(point, epoch_end=epoch_end))
    assert len(ends) == EPOCHS
    assert torch.allclose(point.mean, torch.stack(ends).mean(dim=0))
    assert torch.equal(point.place, ends[-1])
    scored = Averaged()
    values = scores(0.1, 0.2, 0.5, 0.3, 0.4)
    list(fit(scored, targets, distance(scored), values, SETTINGS, epoch_end=scored.epoch_end))
    assert torch.allclose(scored.mean, torch.stack(ends[:2]).mean(dim=0)), "the mean of the best epoch"
    assert torch.equal(scored.place, ends[1])

    def settle(_: int) -> None:
        with torch.no_grad():
            set_to.place.fill_(7)

    set_to = Point()
    list(few_shot(set_to, LoopSettings(epochs=1), epoch_end=settle))
    assert set_to.place.tolist() == [7, 7], "as one that puts an average into the weights at the end"


@pytest.mark.parametrize("every", [1, 2, 50])
def test_a_run_without_a_dev_split_is_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", every)
    settings = LoopSettings(epochs=EPOCHS, learning_rate=0.9, warmup=0.25, weight_decay=0.01)
    whole = Averaged()
    ended: list[int] = []
    expected = list(few_shot(whole, settings, epoch_end=whole.epoch_end))
    for cut in range(1, len(expected) + 1):  # records, the first one is of step 1
        path = tmp_path / f"cut-{cut}"
        first, again = Averaged(), Averaged(9, 9)
        assert (
            list(islice(few_shot(first, settings, epoch_end=first.epoch_end, checkpoint=path), cut)) == expected[:cut]
        )
        saved = max(step for step in range(cut + 1) if step % every == 0 or step % STEPS == 0)
        assert path.exists() == (saved > 0)
        if not saved:
            again = Averaged()
        ended.clear()

        def epoch_end(epoch: int, point: Averaged = again) -> None:
            ended.append(epoch)
            point.epoch_end(epoch)

        assert list(few_shot(again, settings, epoch_end=epoch_end, checkpoint=path)) == expected[saved:]
        assert ended == list(range(saved // STEPS, EPOCHS)), "an epoch that has ended does not end again"
        assert torch.equal(again.place, whole.place)
        assert torch.equal(again.mean, whole.mean)


@pytest.mark.parametrize(("good", "kept"), [(2, 0), (7, 6), (9, 9)])
def test_a_run_without_a_dev_split_that_diverges_keeps_the_last_epoch(good: int, kept: int) -> None:
    point, calls = Point(), 0

    def loss(target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return distance(point)(target) if calls <= good else point.place.norm() * math.nan

    seen = [point.place.tolist()]
    with pytest.raises(Diverged, match=rf" at step {good + 1} of 12; the prompt of step {kept} is kept; try "):
        for _ in fit(point, targets, loss, None, SETTINGS):
            seen.append(point.place.tolist())
    assert point.place.tolist() == seen[kept]


def test_a_checkpoint_keeps_the_weights_to_fall_back_to_without_a_dev_split(tmp_path: Path) -> None:
    """A run that is cut off, resumed and diverges keeps the last epoch's weights, those before the cut included."""
    path, first, again = tmp_path / "checkpoint", Point(), Point()
    places = [first.place.tolist() for _ in islice(few_shot(first, checkpoint=path), STEPS)]
    with pytest.raises(Diverged, match=f"the prompt of step {STEPS} is kept"):
        list(fit(again, targets, lambda _: again.place.norm() * math.nan, None, SETTINGS, checkpoint=path))
    assert again.place.tolist() == places[-1]


# --- a loss that is not finite ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["inf", "nan", "gradient"])
def test_a_loss_that_is_not_finite_stops_with_the_best_weights(bad: str) -> None:
    point = Point()
    calls = 0

    def loss(target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls <= 7:
            return distance(point)(target)
        # The slope of the root of 0 is infinite, and the loss itself 0
        return (point.place * 0).abs().sum().sqrt() if bad == "gradient" else point.place.norm() * float(bad)

    seen = []
    with pytest.raises(Diverged) as caught:
        for _ in fit(point, targets, loss, scores(0.1, 0.2, 0.15), SETTINGS):
            seen.append(point.place.tolist())
    assert len(seen) == 8  # no record of the step that failed
    assert point.place.tolist() == seen[STEPS]
    value = "0.0" if bad == "gradient" else bad
    assert str(caught.value).startswith(f"the loss is not finite (loss {value}, gradient norm ")
    advice = "try a smaller --lr or a larger --temperature"
    assert str(caught.value).endswith(f") at step 8 of 12; the prompt of step 3 is kept; {advice}")
    assert "\n" not in str(caught.value)


def test_a_dev_score_that_fails_leaves_the_best_weights() -> None:
    point = Point()
    remaining = iter([0.1, 0.2])

    def evaluate() -> float:
        for value in remaining:
            return value
        raise UserError("expected finite queries, got NaN or infinity in 8 of them")

    seen = []
    with pytest.raises(
        UserError, match=r"^the dev score failed \(expected .*\) at step 6 of 12; the prompt of step 3 "
    ):
        for _ in fit(point, targets, distance(point), evaluate, SETTINGS):
            seen.append(point.place.tolist())
    assert point.place.tolist() == seen[STEPS]


# --- checkpoints --------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
        return {name: file.get_tensor(name) for name in list(file.keys())}, metadata


@pytest.mark.parametrize("every", [1, 2, 50])
@pytest.mark.parametrize("patience", [None, 2])
def test_a_run_cut_off_at_any_step_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, patience: int | None
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", every)
    settings = LoopSettings(epochs=EPOCHS, learning_rate=0.9, warmup=0.25, weight_decay=0.01, patience=patience)
    whole = Point()
    expected = list(run(whole, settings, checkpoint=tmp_path / "whole"))
    assert (len(expected) < 1 + EPOCHS * STEPS) == (patience is not None)  # so early stopping is tried as well
    tensors, metadata = read(tmp_path / "whole")
    assert {"optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step"} < set(tensors)
    for cut in range(1, len(expected) + 1):  # records, the first one is of step 0
        path = tmp_path / f"cut-{cut}"
        assert list(islice(run(Point(), settings, checkpoint=path), cut)) == expected[:cut]
        saved = max(step for step in range(cut) if step % every == 0 or step % STEPS == 0)
        assert path.exists() == (saved > 0)
        again = Point(9, 9) if saved else Point()  # a resumed run takes nothing from the module that it is given
        rest = list(run(again, settings, checkpoint=path))
        assert rest == expected[saved + 1 if saved else 0 :]
        assert torch.equal(again.place, whole.place)
        now, now_metadata = read(path)
        assert now_metadata == metadata
        assert now.keys() == tensors.keys()
        assert all(torch.equal(now[name], tensors[name]) for name in tensors)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    point, again = Point(), Point()
    list(run(point, checkpoint=tmp_path / "checkpoint"))
    assert list(run(again, checkpoint=tmp_path / "checkpoint")) == []
    assert torch.equal(again.place, point.place)


def test_a_checkpoint_is_safetensors_with_json(tmp_path: Path) -> None:
    list(run(Point(), checkpoint=tmp_path / "checkpoint", identity={"data": "abc"}))
    content = (tmp_path / "checkpoint").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = {name: json.loads(text) for name, text in header.pop("__metadata__").items()}
    assert metadata["identity"]["run"] == {"data": "abc"}
    assert metadata["identity"]["settings"]["epochs"] == EPOCHS
    assert metadata["state"]["step"] == EPOCHS * STEPS
    assert {part["dtype"] for part in header.values()} == {"F32"}
    assert len(content) == 8 + size + max(part["data_offsets"][1] for part in header.values())  # and nothing else
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    list(islice(run(Point(), checkpoint=path, identity="a"), 5))
    before = path.read_bytes()
    for settings, identity in ((SETTINGS, "b"), (LoopSettings(epochs=EPOCHS, learning_rate=0.2), "a")):
        point = Point(4, 4)
        with pytest.raises(
            UserError, match=r"is the checkpoint of a run with other settings, data or model; .*delete it"
        ):
            list(run(point, settings, checkpoint=path, identity=identity))
        assert point.place.tolist() == [4, 4]
    assert path.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    list(islice(run(Point(), checkpoint=path), 5))
    good = path.read_bytes()
    tensors, _ = read(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()

    def write(change: Callable[[], Any]) -> None:
        path.unlink(missing_ok=True)
        change()

    changes: list[Callable[[], Any]] = [
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(good[:-1]),
        lambda: path.write_bytes(good[:100]),
        lambda: path.write_bytes(b"\x80\x04K\x01."),  # a pickle
        lambda: path.write_text("{}"),
        lambda: save_file(tensors, path),
        lambda: save_file(tensors, path, {**metadata, "state": "{"}),
        lambda: save_file(tensors, path, {**metadata, "state": '{"epoch": 1}'}),
        lambda: save_file({"module.other": torch.zeros(2)}, path, metadata),
        lambda: save_file({name: tensors[name] for name in sorted(tensors)[1:]}, path, metadata),
        lambda: save_file(tensors, path, {**metadata, "sha256": "1" * 10_000}),
        lambda: save_file(tensors, path, {**metadata, "history": "[" * 100_000}),
        lambda: save_file({**tensors, "module.place": torch.zeros(3)}, path, metadata),
        lambda: path.mkdir(),
    ]
    damaged = bytearray(good)
    for at in range(8, len(good), 3):
        damaged[at] ^= 1 << (at % 8)
        changes.insert(0, partial(path.write_bytes, bytes(damaged)))
        damaged[at] = good[at]
    for change in changes:
        write(change)
        with pytest.raises(
            UserError, match=r"is not a checkpoint of a training run \(.*\); delete it to start afresh"
        ) as caught:
            list(run(Point(), checkpoint=path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
