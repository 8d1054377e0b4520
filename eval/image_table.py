"""Print the committed results on images as the Markdown tables of the README.

python eval/image_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TITLES = {"zero-shot": "zero-shot", "zero-shot-ensemble": "zero-shot, 80 templates", "linear-probe": "linear probe"}


def base_to_new(folder: Path = RESULTS) -> str:
    """A row a system: accuracies, harmonic mean and calibration error x 100, mean and deviation over seeds."""
    rows = [
        "| data, model | system | base | new | harmonic mean | ECE base | ECE new |",
        "|---|---|---|---|---|---|---|",
    ]
    seen = set()  # a second file on the same data repeats the baselines
    for path in sorted(folder.glob("images-base-to-new-*.json"), key=lambda path: path.stem):
        result = json.loads(path.read_text())
        for dataset, systems in result["summary"].items():
            for name, scores in systems.items():
                if (dataset, result["model"], name) in seen:
                    continue
                seen.add((dataset, result["model"], name))
                cells = (_cell(scores, metric) for metric in ("base", "new", "harmonic_mean", "ece_base", "ece_new"))
                rows.append(f"| {dataset}, {result['model']} | {TITLES.get(name, name)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def retrieval(folder: Path = RESULTS) -> str:
    """A row a system: R@1, 5 and 10 x 100, both ways; what is tuned is called after its method."""
    rows = [
        "| data, model | system | I→T R@1 | R@5 | R@10 | T→I R@1 | R@5 | R@10 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    seen = set()  # every file on the same data repeats zero-shot
    for path in sorted(folder.glob("images-retrieval-*.json"), key=lambda path: path.stem):
        result = json.loads(path.read_text())
        for system, scores in result["systems"].items():
            name = _method(result) if system == "tuned" else system
            if (result["data"], result["model"], name) in seen:
                continue
            seen.add((result["data"], result["model"], name))
            cells = [f"{100 * scores[way][f'r@{k}']:.1f}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
            rows.append(f"| {result['dataset']}, {result['model']} | {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def speed(folder: Path = RESULTS) -> str:
    """A row a way: seconds of a training step of the text tower, and what autograd keeps for it."""
    rows = [
        "| text tower, classes, context | way | s a step | times as fast | saved activations | gradient's difference |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("speed-text-tower-*.json")):
        result = json.loads(path.read_text())
        first = result["ways"]["published"]["seconds_per_step"]
        for way, found in result["ways"].items():
            half = ", bfloat16" if found["precision"] == "bfloat16" else ""
            chunks = f", in chunks of {found['chunks_of']}" if found["chunks_of"] else ""
            rows.append(
                f"| {result['model']}, {result['classes']:,}, {result['context']} | {way}{half}{chunks} "
                f"| {found['seconds_per_step']:.3f} | {first / found['seconds_per_step']:.1f} "
                f"| {found['peak_activation_bytes'] / 1e6:,.0f} MB | {found['gradient_difference']:.0e} |"
            )
    return "\n".join(rows)


def _method(result: dict[str, Any]) -> str:
    """That of a file's runs, which are called "coop, seed 1"."""
    name = next(iter(result["runs"])).partition(",")[0]
    return f"{name} 0 (the query alone)" if result["settings"].get("feedback") == 0 else str(name)


def _cell(scores: dict[str, Any], metric: str) -> str:
    if scores[metric] is None:
        return "–"
    spread = (scores.get("std") or {}).get(metric)
    return f"{100 * scores[metric]:.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "")


def main() -> None:
    print("\n\n".join((speed(), base_to_new(), retrieval())))


if __name__ == "__main__":
    main()
