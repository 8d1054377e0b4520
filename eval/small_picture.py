"""The curves of small_data.py as a picture: what is recommended, and a linear adapter, by the number of judged queries.

    python eval/small_picture.py eval/results/small-scifact.json eval/results/small-conala.json \\
        --out eval/results/small.png

A point is the mean of the draws of a size, with the lowest and the highest of them; the frozen model and BM25 beside
it, which need no judgement, are lines across.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from retrieval_prompts import UserError
from retrieval_prompts.experiments.indexes.index_tradeoffs import check_picture
from retrieval_prompts.files import read_json, write_bytes

ACROSS = {"frozen": "frozen", "frozen+bm25": "frozen + BM25"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="files of small_data.py")
    parser.add_argument("--out", type=Path, required=True, help="the picture: .svg, .png or .pdf")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(arguments)
    try:
        check_picture(options.out, overwrite=options.overwrite)
        draw([read_json(path) for path in options.results], options.out)
    except UserError as error:
        sys.exit(f"error: {error}")


def curves(result: dict[str, Any]) -> dict[str, dict[int, list[float]]]:
    """What is recommended, "linear", and the systems without judgements -> judged queries -> nDCG@10 of each draw."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, drawn in result["draws"].items():
        size, systems = int(name.partition(".")[0]), drawn["systems"]
        found["recommended"][size].append(systems[drawn["recommended"]])
        for system in ("linear", *ACROSS):
            if system in systems:
                found[system][size].append(systems[system])
    return {name: {size: by_size[size] for size in sorted(by_size)} for name, by_size in found.items()}


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """A panel for each data set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(results) + 1.8, 3.8), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for panel, result in zip(panels, results, strict=True):
        for name, by_size in curves(result).items():
            means = {size: 100 * fmean(values) for size, values in by_size.items()}
            if name in ACROSS:
                style = {"linestyle": ":" if name == "frozen" else "--", "color": "0.4", "linewidth": 1.2}
                panel.axhline(fmean(means.values()), label=ACROSS[name], **style)
                continue
            spread = [
                [means[size] - 100 * min(values) for size, values in by_size.items()],
                [100 * max(values) - means[size] for size, values in by_size.items()],
            ]
            panel.errorbar(list(means), list(means.values()), yerr=spread, marker="o", capsize=3, label=name)
        panel.set_xscale("log", base=2)
        sizes = sorted({size for by_size in curves(result).values() for size in by_size})
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.set_xlabel("judged queries")
        panel.set_title(result["dataset"], fontsize=10)
        panel.grid(True, alpha=0.2)
    panels[0].set_ylabel("test nDCG@10 x 100")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=150)
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    main()
