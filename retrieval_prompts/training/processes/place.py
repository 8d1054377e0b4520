"""Which of how many processes this one is, by what launchers set in the environment. Loads nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from retrieval_prompts.errors import UserError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torch.distributed wants, and launchers set


@dataclass(frozen=True)
class Place:
    """A process among those that were launched together; without a launcher the only one.

    Args:
        rank: its number; 0 is the first, which trains.
        count: how many there are.
        local_rank, local_count: the same of those on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> Place:
        """That of this process. Raises UserError for numbers that are none."""
        found = os.environ if environment is None else environment
        if not all(found.get(name) for name in NEEDED):
            return cls()
        rank, count, _ = (_number(found, name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        if not 0 <= rank < count:
            raise UserError(f"RANK and WORLD_SIZE say that this is process {rank} of {count}; a launcher sets both")
        local_rank = _number(found, "LOCAL_RANK") if found.get("LOCAL_RANK") else rank
        local_count = _number(found, "LOCAL_WORLD_SIZE") if found.get("LOCAL_WORLD_SIZE") else count
        return cls(rank, count, local_rank, local_count)

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.count > 1


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError as error:
        raise UserError(f"{name} is {environment[name]!r} and should be a number; a launcher sets it") from error
