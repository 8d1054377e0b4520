"""What a source holds and a data folder does not: counted by reason, with a few places. Knows no format."""

from __future__ import annotations

from retrieval_prompts.errors import few


class LeftOut:
    """Reason -> how often, and the first places."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._places: dict[str, list[str]] = {}

    def note(self, why: str, place: str) -> None:
        """Count one thing that is left out, or taken otherwise than it stands."""
        self.counts[why] = self.counts.get(why, 0) + 1
        if len(places := self._places.setdefault(why, [])) < 4:
            places.append(place)

    def lines(self) -> list[str]:
        """A sentence a reason, the most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda each: -each[1])
        return [f"{why}: {count:,} ({_named(self._places[why], count)})" for why, count in ordered]

    def because(self) -> str:
        """For the end of a message: what was left out, if anything."""
        return f": {'; '.join(self.lines())}" if self.counts else ""


def _named(places: list[str], count: int) -> str:
    return few(places) if count <= len(places) else f"{', '.join(places[:3])} and {count - 3:,} more"
