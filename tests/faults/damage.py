"""Every file of every artifact is damaged in many ways; then a command reads it, and `verify` looks at it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faults.forks import Command, Ended, commands, fresh, run, start, tree, wait
from faults.killing import at_event
from faults.trials import Trial

QUERY = "what does the evidence show about river copper"
ANSWERS = ("answer", "r.json", "bench")
LONGER = ("--epochs", "8", "--lr", "0.05", "--shots", "2")
Damage = Callable[[bytes, random.Random, bytes], bytes | None]  # content, draw, content of another -> None: deleted


@dataclass(frozen=True)
class Artifact:
    """What is damaged, and who reads it.

    Args:
        name: of a file or folder in the folder of all; a pattern where its name is a digest.
        needs: what else the reader needs of it.
        reader: prints or writes an answer; empty: only other people's tools read it, and `verify` looks at it.
        times: how often each kind of damage is tried on each file.
    """

    kind: str
    name: str
    reader: Command
    needs: tuple[str, ...] = ()
    times: int = 1


def _byte(content: bytes, draw: random.Random, _: bytes) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + bytes([(content[place] + draw.randrange(1, 256)) % 256]) + content[place + 1 :]


def _bit(content: bytes, draw: random.Random, _: bytes) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]


def _zeroed(content: bytes, draw: random.Random, _: bytes) -> bytes:
    place = draw.randrange(len(content))
    length = min(512, len(content) - place)
    return content[:place] + bytes(length) + content[place + length :]


DAMAGES: dict[str, Damage] = {
    "a byte": _byte,
    "a bit": _bit,
    "cut": lambda content, draw, _: content[: draw.randrange(len(content))],
    "emptied": lambda *_: b"",
    "deleted": lambda *_: None,
    "zeroed": _zeroed,
    "exchanged": lambda _content, _draw, other: other,
}


def artifacts(inputs: Path) -> list[Artifact]:
    bert, clip = ["--model", inputs / "bert"], ["--model", inputs / "clip"]
    cached = ["--cache", "cache"]
    text, images = "retrieval-prompts", "multimodal-prompts"
    data, pictures = inputs / "toy", inputs / "pictures"
    evaluate = [text, "evaluate", data, *bert, "--run", "answer"]
    search: Command = [text, "search", "index", QUERY, "-k", "5"]
    ranked = ["runs/toy.frozen.trec", "runs/toy.frozen+bm25.trec", "--qrels", "runs/toy.qrels.tsv", "--json", "-"]
    known = commands(inputs)
    beir = [*known["beir"][:-1], "bench", *cached]
    look = [images, "evaluate", pictures, "--json", "r.json"]
    return [
        Artifact("text prompts", "prompts", [*evaluate, "--prompts", "prompts", *cached], ("cache",), 6),
        Artifact("feedback prompts", "feedback", [*evaluate, "--prompts", "feedback", *cached], ("cache",), 4),
        Artifact("index", "index", search, times=2),
        Artifact("cached vectors", "cache", [*evaluate, *cached], times=10),
        Artifact("runs", "runs", [text, "compare", *ranked]),
        Artifact("benchmark", "bench", beir, ("cache",)),
        Artifact("checkpoint", "tuning", known["tune"], times=6),
        Artifact("export", "export", [text, "evaluate", data, "--model", "export", "--run", "answer"]),
        Artifact("adapter", "adapter", [text, "convert", "adapter", "--out", "answer", *bert], times=2),
        Artifact(
            "image prompts",
            "image prompts",
            [*look, "--prompts", "image prompts", "--cache", "features"],
            ("features",),
            6,
        ),
        Artifact("image features", "features", [*look, *clip, "--cache", "features"], times=10),
        Artifact("image index", "image index", [images, "search", "image index", "red"], times=2),
        Artifact("image checkpoint", "image tuning", known["tune pictures"], times=6),
        Artifact("class matrix", "classes", []),
    ]


def damaged(inputs: Path, work: Path, kind: str, seed: int, share: int = 1) -> Iterator[Trial]:
    """All damage to the artifact of a kind; `share`: every n-th of it."""
    sound, other = work / "sound", work / "other sound"
    (artifact,) = [each for each in artifacts(inputs) if each.kind == kind]
    made = _images if "image" in kind or kind == "class matrix" else _texts
    if not (sound / made.__name__).exists():
        for folder, data, own in ((sound, ("toy", "pictures"), 0), (other, ("other", "others"), 1)):
            (folder / made.__name__).mkdir(parents=True)
            made(inputs, folder, data, own)
    draw, folder = random.Random(f"{seed} {kind}"), work / "work"
    ended, expected = _read(artifact, _copy(artifact, sound, folder))
    assert not artifact.reader or ended.code == 0, ended.said
    number = 0
    for file in _files(artifact, sound):
        others = sorted((other / file.parent).glob(f"*{file.suffix}")) if (other / file.parent).exists() else []
        twin = other / file if (other / file).exists() else next(iter(others), None)
        for name, damage in DAMAGES.items():
            for _ in range(artifact.times if name in ("a byte", "a bit", "cut", "zeroed") else 1):
                number += 1
                content = (sound / file).read_bytes()
                new = damage(content, draw, twin.read_bytes() if twin is not None else content)
                if new == content or number % share:
                    continue
                _copy(artifact, sound, folder)
                if new is None:
                    (folder / file).unlink()
                else:
                    (folder / file).write_bytes(new)
                outcome, why = _outcome(artifact, folder, file, name, content, expected)
                yield Trial(f"damage: {artifact.kind}", f"{file}, {name}", outcome, why)


def _files(artifact: Artifact, sound: Path) -> list[Path]:
    """Of a training that was cut short only its checkpoint."""
    files = [path.relative_to(sound) for path in sorted((sound / artifact.name).rglob("*")) if path.is_file()]
    return [file for file in files if "checkpoint" not in artifact.kind or ".partial" in file.name]


def _outcome(
    artifact: Artifact, folder: Path, file: Path, damage: str, content: bytes, expected: object
) -> tuple[str, str]:
    single = artifact.kind in ("cached vectors", "image features", "checkpoint", "image checkpoint")
    alone = single and damage in ("deleted", "exchanged")  # there is nothing to look at; another's is as sound
    seen = run([_program(artifact), "verify", artifact.name], folder)
    told = "NOT SOUND" in seen.said or "cannot be checked" in seen.said or "holds no artifact" in seen.said
    if seen.wild:
        return "untidy", seen.said[-500:]
    same = not told and not alone and not _equal(folder / file, content)
    if same:
        return "silent", f"verify: {seen.said[-300:]}"
    if not artifact.reader:
        return "noticed", ""
    ended, found = _read(artifact, folder)
    if ended.wild or ended.code not in (0, 2) or (ended.code == 2 and not ended.refused):
        return "untidy", f"status {ended.code}: {ended.said[-500:]}"
    if ended.code == 2:
        return "noticed", ""
    if found != expected and "warning: " not in ended.said:
        return "silent", f"read: {ended.said[-300:]}"
    return "survived" if found == expected else "noticed", ""


def _equal(path: Path, content: bytes) -> bool:
    """Whether a file still says the same: white space of JSON, say."""
    try:
        if path.name == "SHA256SUMS":
            return path.read_bytes().lower().split() == content.lower().split()
        if path.suffix == ".json":
            return bool(json.loads(path.read_bytes()) == json.loads(content))
        if path.suffix == ".safetensors" or ".partial" in path.name:
            from safetensors.torch import load

            new, old = load(path.read_bytes()), load(content)
            return new.keys() == old.keys() and all(bool((new[name] == old[name]).all()) for name in new)
    except Exception:
        return False
    return False


def _program(artifact: Artifact) -> str:
    return "multimodal-prompts" if artifact.kind in ("image features",) else "retrieval-prompts"


def _copy(artifact: Artifact, sound: Path, folder: Path) -> Path:
    fresh(folder)
    for name in (artifact.name, *artifact.needs):
        shutil.copytree(sound / name, folder / name)
    return folder


def _read(artifact: Artifact, folder: Path) -> tuple[Ended, object]:
    """How the reader ended, and its answer: what it printed and what it wrote."""
    if not artifact.reader:
        return Ended(0, ""), None
    if "checkpoint" in artifact.kind:
        ended = run(artifact.reader, folder / artifact.name)
        return ended, tree(folder / artifact.name) if ended.code == 0 else None
    ended = run(artifact.reader, folder)
    written = {name: value for name, value in tree(folder).items() if name.startswith(ANSWERS)}
    written.pop("bench/SHA256SUMS", None)  # an older line may stay behind
    lines = [] if written else [line for line in ended.said.splitlines() if not line.startswith("warning: ")]
    return ended, (lines, written)


def _texts(inputs: Path, folder: Path, data: tuple[str, str], seed: int) -> None:
    """One of each artifact of texts."""
    wait(start(["retrieval-prompts", "--help"], folder, lambda: _prompts(inputs, folder, seed)))
    known, cached = _of(inputs, data), ["--cache", "cache"]
    _run([*known["index"][:-1], "index", *cached], folder)
    _run([*known["evaluate"][:5], "--run", "runs", *cached], folder)
    _run([*known["beir"][:-1], "bench", *cached], folder)
    _cut_short(known["tune"], folder / "tuning", seed)


def _images(inputs: Path, folder: Path, data: tuple[str, str], seed: int) -> None:
    """And of pictures."""
    known, clip = _of(inputs, data), ["--model", inputs / "clip"]
    cached = ["--cache", "features"]
    _run([*known["tune pictures"][:3], *clip, "--out", "image prompts", *cached, "--seed", seed, *LONGER], folder)
    _run([*known["index pictures"][:-1], "image index", *cached], folder)
    _run(["multimodal-prompts", "export", "image prompts", "--out", "classes"], folder)
    _cut_short(known["tune pictures"], folder / "image tuning", seed)


def _of(inputs: Path, data: tuple[str, str]) -> dict[str, Command]:
    """The commands, on other data."""
    given = {inputs / "toy": inputs / data[0], inputs / "pictures": inputs / data[1], "toy": data[0]}
    return {name: [given.get(each, each) for each in command] for name, command in commands(inputs).items()}


def _run(command: Command, folder: Path) -> None:
    ended = run(command, folder)
    assert ended.code == 0, ended.said


def _prompts(inputs: Path, folder: Path, seed: int) -> None:
    """What no command makes of tiny data: prompts that are surely used."""
    import torch

    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.interop.peft import write_adapter
    from retrieval_prompts.prompts.feedback import Start

    model = inputs / "bert"
    BiEncoder.load(model, device="cpu").attach("query", kind="prefix", length=2, seed=seed).save(folder / "prompts")
    one = BiEncoder.load(model, device="cpu").attach("query", kind="input", length=2, seed=seed)
    one.export(folder / "export")
    write_adapter(one, folder / "adapter")
    width = one.tower.dimension
    start = Start(torch.eye(width), torch.full((width,), 0.1))
    reading = BiEncoder.load(model, device="cpu").attach("query", encoder="feedback", seed=seed, start=start)
    reading.save(folder / "feedback")


def _cut_short(command: Command, folder: Path, seed: int) -> None:
    """Kill a training when it has written a checkpoint for a while."""
    seen = 0

    def perhaps() -> None:
        nonlocal seen
        seen += any(folder.glob("*.partial"))
        if seen == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    given = [*command, "--seed", seed] if seed else command
    ended = run(given, fresh(folder), partial(at_event, 0, perhaps))
    assert ended.code == -signal.SIGKILL and any(folder.glob("*.partial")), ended.said
