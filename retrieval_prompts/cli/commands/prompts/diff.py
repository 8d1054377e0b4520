"""retrieval-prompts diff."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, Device, JsonFile, Overwrite, Trust
from retrieval_prompts.errors import UserError

SAME = {True: "tuned on the same documents", False: "tuned on different documents", None: "one does not say on what"}


def diff(
    a: Annotated[Path, typer.Argument(help="a prompt folder")],
    b: Annotated[Path, typer.Argument(help="another one")],
    data: Annotated[
        Path | None, typer.Option(help="a BEIR folder: how far its queries' vectors and rankings are apart")
    ] = None,
    split: Annotated[str, typer.Option(help="of these data")] = "test",
    json_file: JsonFile = None,
    model: Annotated[str | None, typer.Option(help="the base model, when it has moved  [default: as saved]")] = None,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare two prompt folders: settings that differ, distances of their vectors, and with --data what it does."""
    console.check_outputs(json_file, overwrite=overwrite)
    if data is None and split != "test":
        raise UserError("--split is a split of the data; pass --data as well")
    from retrieval_prompts.evaluation.tables import rich_table
    from retrieval_prompts.interop.sharing.hub import located
    from retrieval_prompts.prompts import shelf
    from retrieval_prompts.prompts.folder import load_prompts

    say, folders = console.printer(json_file), [load_prompts(located(each)) for each in (a, b)]
    settings, apart, same = shelf.differing(*folders), shelf.distances(*folders), shelf.same_data(*folders)
    found = None
    if data is not None:
        from retrieval_prompts.biencoder import BiEncoder
        from retrieval_prompts.data.beir_folder import load, with_test
        from retrieval_prompts.experiments.selection.differences import difference
        from retrieval_prompts.experiments.workbench import Workbench

        if folders[0].base["fingerprint"] != folders[1].base["fingerprint"]:
            raise UserError(f"--data compares prompts over one model, and {a} and {b} belong to different ones")
        first = BiEncoder.load(model, a, device=device, trust_remote_code=trust_remote_code)
        other = BiEncoder.with_prompts(first.tower, folders[1], source=str(b))
        found = difference(first, other, Workbench(first.tower, with_test(load(data))[0], cache), split)
    if json_file is not None:
        result: dict[str, Any] = {"settings": settings, "vectors": {side: asdict(one) for side, one in apart.items()}}
        result |= {"same_data": same, "queries": found.to_json() if found is not None else None}
        console.write_result(json_file, result)
    if settings:
        rows = [[name, *("" if value is None else str(value) for value in both)] for name, both in settings.items()]
        say(rich_table(rows, ["differs", str(a), str(b)]))
    else:
        say("what they are and how they were trained is the same")
    say(SAME[same])
    for side, one in apart.items():
        how = "of one position" if one.paired else "of the shorter with the nearest of the longer"
        away = f"; apart by {one.distance:.3f} of their length" if one.distance is not None else ""
        say(
            f"{side} vectors, {one.lengths[0]} and {one.lengths[1]}: cosine {how} {fmean(one.cosines):.3f} "
            f"({min(one.cosines):.3f} to {max(one.cosines):.3f}){away}"
        )
    if not apart:
        say("their vectors cannot be compared: other kinds, sides or widths")
    for sentence in found.sentences(str(a), str(b)) if found is not None else ():
        say(sentence)
