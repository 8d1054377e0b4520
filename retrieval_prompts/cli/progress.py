"""The bar that training draws on standard error."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_prompts.training.loop import Step


class Progress:
    """Called with each record of a training and the number of all steps; keeps the records, and draws a bar of them.

    As a context it closes the bar, so that what is printed next, an error too, stands on a line of its own.

    Args:
        dev: what the dev scores of the records are called; None: they are not printed. A star stands behind those
            that beat the one before training, and all since.
        before: whose dev score the one before training is.
    """

    def __init__(self, dev: str | None = None, before: str = "before training") -> None:
        self.dev, self.before = dev, before
        self.steps: list[Step] = []
        self._bar: Any = None

    def __call__(self, step: Step, total: int) -> None:
        self.steps.append(step)
        if self._bar is None:
            from tqdm import tqdm

            # A bar that waits is not closed with a line break, though lines between drew it already
            wait = 1 if self.dev is None else 0
            self._bar = tqdm(total=total, desc="tune", unit="step", initial=max(0, step.step - 1), delay=wait)
        bar = self._bar
        bar.update(step.step - bar.n)
        if not math.isnan(step.loss):  # the record of a dev score before training has none
            bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
        if self.dev is not None and step.dev is not None:
            at = f"step {step.step}"
            name = at if not math.isnan(step.loss) else f"{at}, {self.before}" if step.step else self.before
            bar.write(f"{name}: dev {self.dev} {step.dev:.4f}{' *' if step.best else ''}", file=sys.stderr)
        if step.step == total:
            bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
