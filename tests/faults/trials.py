"""What came of an injected fault: one of five outcomes, and the reason where it is none of the good ones."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from faults.forks import CUT, Command, Ended, commands, fresh, run, tree

# survived: ended as if undisturbed, or went on to that end; noticed: one line says what is wrong; lost: work or an old
# output is gone; silent: another answer without a word; untidy: a traceback, a wrong status or a file left behind
OUTCOMES = ("survived", "noticed", "lost", "silent", "untidy")


@dataclass(frozen=True)
class Trial:
    kind: str
    what: str
    outcome: str
    why: str = ""


def table(trials: Iterable[Trial]) -> dict[str, dict[str, int]]:
    """Kind -> "injected" and each outcome -> how many; the last row, "all", is of all kinds."""
    counted: dict[str, Counter[str]] = {}
    for trial in trials:
        counted.setdefault(trial.kind, Counter())[trial.outcome] += 1
    rows = {
        kind: {"injected": found.total(), **{name: found[name] for name in OUTCOMES}}
        for kind, found in sorted(counted.items())
    }
    rows["all"] = {name: sum(row[name] for row in rows.values()) for name in ("injected", *OUTCOMES)}
    return rows


@dataclass(frozen=True)
class Disturbed:
    """A command that is disturbed, and what it leaves when nothing disturbs it.

    Args:
        expected: file -> digest, see `forks.tree`.
        before: the folder that it begins with: empty, or with the output of another run that is to be replaced.
    """

    kind: str
    what: str
    command: Command
    expected: Mapping[str, str]
    before: Path

    def trial(self, outcome: str, why: str = "") -> Trial:
        return Trial(self.kind, self.what, outcome, why)

    def judged(self, folder: Path, ended: Ended, codes: Collection[int], words: str = "") -> Trial:
        """The outcome of a run that ended in a folder, after one more run there in peace.

        Args:
            codes: the exit statuses that the disturbed run may have; of a user's mistake it must say one line.
            words: between "|"; one of them must be in that line.
        """
        mute = ended.code == 2 and (not ended.refused or not any(word in ended.errors[0] for word in words.split("|")))
        if ended.wild or ended.code not in codes or mute:
            return self.trial("untidy", f"status {ended.code}: {ended.said[-600:]}")
        left = tree(folder)
        # A benchmark is added to file by file: what is not whole is said by `verify`, and made again by the next run
        if (broken := self._broken(folder, left)) and "beir" not in self.command:
            return self.trial("lost", broken)
        if ended.code == 0 and any(left.get(name) != value for name, value in self.expected.items()):
            return self.trial("silent", "status 0, and another output")
        again = run(self.command, folder)
        found = tree(folder)
        if again.refused and "exists already" in again.said and left.keys() >= self.expected.keys():
            again = Ended(0, "")  # it had ended before the fault
        if again.code:
            return self.trial("untidy" if again.wild else "lost", f"again, status {again.code}: {again.said[-600:]}")
        if other := [name for name, value in self.expected.items() if found.get(name) != value]:
            return self.trial("lost" if set(other) - found.keys() else "silent", f"missing or other: {other}")
        if broken := self._broken(folder, found):
            return self.trial("lost", f"after the next run: {broken}")
        if stray := sorted(found.keys() - self.expected.keys()):
            return self.trial("untidy", f"left behind: {stray}")
        return self.trial("noticed" if ended.code == 2 else "survived")

    def _broken(self, folder: Path, left: Mapping[str, str]) -> str:
        """What lies under a final name and is not whole; or that the old output is gone."""
        if odd := [name for name, value in left.items() if value == CUT]:
            return f"half-written: {odd}"
        if (self.before / "out").exists() and not (folder / "out").exists():
            return "the old output is gone"
        if not (folder / "out").exists():
            return ""
        verified = run([self.command[0], "verify", "out"], folder)
        return verified.said if "NOT SOUND" in verified.said else ""


def disturbed(kind: str, inputs: Path, work: Path, name: str, overwrite: bool) -> Disturbed:
    """A command of `forks.commands`, with what it leaves undisturbed, in a folder to work in."""
    command, whole, old = commands(inputs)[name], work / f"{name}, whole", work / f"{name}, old"
    if not whole.exists():
        ended = run(command, fresh(whole))
        assert ended.code == 0, ended.said
        other = {inputs / "toy": inputs / "other", inputs / "pictures": inputs / "others"}
        ended = run([other.get(each, each) for each in command], fresh(old))
        assert ended.code == 0, ended.said
        shutil.rmtree(old / "cache")
    given = [*command, *(["--overwrite"] if overwrite else [])]
    what = f"{name}{', --overwrite' if overwrite else ''}"
    return Disturbed(kind, what, given, tree(whole), old if overwrite else fresh(work / "empty"))
