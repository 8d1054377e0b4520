"""One way to run a training that writes a prompt folder: checked before, kept on the way, saved, tidied up after.

Knows neither texts nor pictures.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import Diverged, UserError
from retrieval_prompts.files import PROMPTS, output, read_json, sweep
from retrieval_prompts.training.loop import Step

# In the record of the training: the digest of all that the run depends on, and whether nothing is still to be added
IDENTITY, FINISHED = "identity", "finished"


def digest(value: Any) -> str:
    """SHA-256 of a JSON value: what a run depends on, in a name."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


class StepLog:
    """Keeps the record of each training step, and passes it on with the number of all steps."""

    def __init__(self, on_step: Callable[[Step, int], object] | None = None) -> None:
        self.steps: list[Step] = []
        self.on_step = on_step

    def __call__(self, step: Step, total: int) -> None:
        self.steps.append(step)
        if self.on_step is not None:
            self.on_step(step, total)


class PromptOutput:
    """Where a training writes its prompts, and the checkpoint beside it from which it goes on when it was cut short.

    To be entered: then no other run writes the same folder.

    Args:
        folder: None: nothing is written, and nothing is kept on the way.
        again: the folder may be there already, if this very run made it (see `made_by`), for something beside it is
            missing; it may always be where that run was cut short before it was evaluated.

    `there`: it is. Entering raises UserError where the folder exists otherwise, unless `overwrite`, and where it cannot
    be written; what earlier runs left beside it is removed even then.
    """

    def __init__(self, folder: Path | str | None, *, overwrite: bool = False, again: bool = False) -> None:
        self.folder, self.overwrite = None if folder is None else Path(folder), overwrite
        self._held = ExitStack()
        self.there = False
        if self.folder is not None:
            record = _record(self.folder)
            self.there = not overwrite and IDENTITY in record and (again or record.get(FINISHED) is False)

    def __enter__(self) -> PromptOutput:
        if self.folder is not None:
            sweep(self.folder.parent, f"{self.folder.name}.")  # of checkpoints
            self._held.enter_context(output(self.folder, overwrite=self.overwrite or self.there, holds=PROMPTS))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def made_by(self, identity: str) -> bool:
        """Whether the folder is there and was made by the run of this identity, which then is not trained again.

        Raises:
            UserError: where another made it.
        """
        if self.there and self.folder is not None and _record(self.folder).get(IDENTITY) != identity:
            raise UserError(
                f"{self.folder} exists already, made by a run with other settings, data or model; choose another name "
                "or pass --overwrite (overwrite=True)"
            )
        if self.there and self.folder is not None:
            self._forget(self.folder)
        return self.there

    @classmethod
    def of(cls, out: Path | str | PromptOutput | None) -> PromptOutput:
        """What is given, or a new one for a folder that must not be there yet; to be entered, once more is free."""
        return out if isinstance(out, PromptOutput) else cls(out)

    @contextmanager
    def checkpoint(self, identity: str, good: Callable[..., Any] | None = None) -> Iterator[Path | None]:
        """The file in which the training of a block keeps its state; removed when the training diverges, for with the
        same settings it would only do so again.

        Args:
            identity: a digest of all that the run depends on: a run with other settings has a file of its own.
            good: writes what was trained before it diverged, good(folder, overwrite=...); the message says where.
        """
        if self.folder is None:
            yield None
            return
        try:
            yield self.folder.parent / f"{self.folder.name}.{identity[:8]}.partial"
        except Diverged as error:
            self._forget(self.folder)
            if good is None:
                raise
            kept = self.folder.with_name(f"{self.folder.name}.last-good")
            good(kept, overwrite=True)
            raise Diverged(f"{error}; the last good prompt: {kept}") from error

    def save(self, write: Callable[..., Any]) -> None:
        """Write the folder by write(folder, overwrite=...), and remove the checkpoints, those of abandoned runs too."""
        if self.folder is not None:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            write(self.folder, overwrite=self.overwrite or self.there)
            self.there = True  # it may be saved again, with what was found since
            self._forget(self.folder)

    @staticmethod
    def _forget(folder: Path) -> None:
        for file in folder.parent.glob(f"{glob.escape(folder.name)}.????????.partial*"):
            file.unlink(missing_ok=True)


def _record(folder: Path) -> dict[str, Any]:
    """What a prompt folder says of its training; empty for what is none."""
    try:
        return dict(read_json(folder / "prompt.json")["training"])
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return {}
