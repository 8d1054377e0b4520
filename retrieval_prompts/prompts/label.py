"""What people call their prompts: a name, a description, a version. Kept in the prompt folder; changes no vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from retrieval_prompts.errors import UserError

LONGEST = {"name": 100, "description": 2000, "version": 50}  # characters


@dataclass(frozen=True)
class Label:
    """Each is None where nobody said it.

    Raises:
        UserError: for what is empty, too long, or a name of several lines.
    """

    name: str | None = None
    description: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None:
                continue
            if not isinstance(value, str) or not value.strip() or len(value) > LONGEST[name]:
                got = f"{len(value):,} characters" if isinstance(value, str) else f"the {type(value).__name__} {value}"
                raise UserError(f"the {name} of prompts must be a text of 1 to {LONGEST[name]:,} characters, got {got}")
            if name != "description" and len(value.splitlines()) > 1:
                raise UserError(f"the {name} of prompts must be one line, got {len(value.splitlines())}")

    def to_json(self) -> dict[str, str]:
        """What was said, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def of(cls, about: Mapping[str, Any], source: object = "") -> Label:
        """What a description says; nothing in older ones.

        Raises:
            UserError: that names the source.
        """
        try:
            return cls(**{each.name: about.get(each.name) for each in fields(cls)})
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
