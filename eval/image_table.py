"""Print the committed results on images as the Markdown tables of the README.

python eval/image_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from multimodal.prompts.settings import METHODS

RESULTS = Path(__file__).parent / "results"
SHOTS = (1, 4, 16)
TITLES = {"zero-shot": "zero-shot", "zero-shot-ensemble": "zero-shot, 80 templates", "linear-probe": "linear probe"}


def base_to_new(folder: Path = RESULTS) -> str:
    """A row a system with 16 shots: accuracies, harmonic mean and calibration error x 100, mean and deviation over
    seeds."""
    rows = [
        "| data, model | system | base | new | harmonic mean | ECE base | ECE new |",
        "|---|---|---|---|---|---|---|",
    ]
    seen = set()  # a second file on the same data repeats the baselines
    for path in sorted(folder.glob("images-base-to-new-*.json"), key=lambda path: path.stem):
        result = json.loads(path.read_text())
        if result["settings"]["shots"] != 16:
            continue
        for dataset, systems in result["summary"].items():
            for name, scores in _titled(result, systems).items():
                if (dataset, result["model"], name) in seen:
                    continue
                seen.add((dataset, result["model"], name))
                cells = (_cell(scores, metric) for metric in ("base", "new", "harmonic_mean", "ece_base", "ece_new"))
                rows.append(f"| {dataset}, {result['model']} | {TITLES.get(name, name)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def by_shots(folder: Path = RESULTS) -> str:
    """A table for each data set, a row a system: prompts, heads, and what is adapted, by the shots of a base class."""
    found: dict[str, dict[str, dict[tuple[str, int], str]]] = {}
    for path in sorted(folder.glob("images-base-to-new-*.json"), key=lambda path: path.stem):
        result = json.loads(path.read_text())
        for dataset, systems in result["summary"].items():
            table, shots = found.setdefault(f"{dataset}, {result['model']}", {}), result["settings"]["shots"]
            for name, scores in _titled(result, systems).items():
                for part in ("base", "new"):
                    cells = table.setdefault(TITLES.get(name, name), {})
                    cells.setdefault((part, shots), _cell(scores, part))
    for path in sorted(folder.glob("image-heads-*.json")):
        for dataset, own in json.loads(path.read_text())["datasets"].items():
            table = found.setdefault(f"{dataset}, {own['model']}", {})
            for shots, systems in own["summary"].items():
                for name, scores in systems.items():
                    for part in set(scores) & {"base", "new"}:
                        mean, spread = scores[part]
                        cell = f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if spread else "")
                        table.setdefault(TITLES.get(name, name), {}).setdefault((part, int(shots)), cell)
    return "\n\n".join(_of_shots(name, table) for name, table in found.items())


def _of_shots(name: str, table: dict[str, dict[tuple[str, int], str]]) -> str:
    columns = [(part, shots) for part in ("base", "new") for shots in SHOTS]
    rows = [
        f"| {name} | base, 1 shot | 4 | 16 | new, 1 shot | 4 | 16 |",
        "|" + "---|" * (len(columns) + 1),
        *(f"| {system} | {' | '.join(cells.get(each, '–') for each in columns)} |" for system, cells in table.items()),
    ]
    return "\n".join(rows)


def _titled(result: dict[str, Any], systems: dict[str, Any]) -> dict[str, Any]:
    """The same by names that say which epochs and steps are not the defaults, and what is a method, not a head."""
    settings = result["settings"]
    said = {"auto": "prompt, --method auto"}
    said |= {name: f"{name}, {settings['epochs']} epochs" for name in METHODS} if "epochs" in settings else {}
    for given in settings.get("baselines", "").split(","):
        name, colon, steps = given.partition(":")
        said |= {name: f"{name}, {steps} steps"} if colon else {}
    return {said.get(name, name): scores for name, scores in systems.items()}


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
    print("\n\n".join((speed(), base_to_new(), retrieval(), by_shots())))


if __name__ == "__main__":
    main()
