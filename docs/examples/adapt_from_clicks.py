"""Adapt a search to a click log: customers describe what is wrong, and click on guides, not on other complaints.

The help centre below has a guide and a complaint for each part of a bicycle. A query sounds like a complaint, so the
frozen model finds complaints first. A few dozen clicks teach a prompt what people want, without a new index.
"""

import csv
import sys
from pathlib import Path

from retrieval_prompts import BiEncoder, load, tune
from retrieval_prompts.data.sources.making import Sources, make

PARTS = ["brake", "chain", "saddle", "pedal", "light", "bell", "tyre", "wheel", "basket", "lock", "mudguard", "gear"]
PARTS += ["pump", "stand", "mirror", "rack"]
GUIDE = "How to service the {}. Clean it, check each screw, tighten it to the torque in the table, oil what moves."
COMPLAINT = "My {} makes a terrible noise since last week, what can I do about it? It drives me mad."
QUERIES = [
    "{} makes a noise",
    "what can I do about a broken {}",
    "my {} is loose again",
    "the {} rattles on every ride",
    "{} does not work since last week",
]


def write_shop(folder: Path) -> None:
    """documents.csv, and clicks.csv: what people typed, where they clicked, and how often."""
    with (folder / "documents.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title", "text"])
        for part in PARTS:
            rows.writerow([f"guide-{part}", f"{part.title()} service", GUIDE.format(part)])
            rows.writerow([f"complaint-{part}", f"Noisy {part}", COMPLAINT.format(part)])
    with (folder / "clicks.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query", "id", "clicks"])
        for part in PARTS:
            rows.writerows([query.format(part), f"guide-{part}", 9] for query in QUERIES)


def main(folder: str = "shop", *, max_steps: int = 20) -> None:
    shop = Path(folder)
    shop.mkdir(exist_ok=True)
    write_shop(shop)
    sources = Sources(documents=(f"{shop}/documents.csv",), judgements=(f"{shop}/clicks.csv",))
    made = make(shop / "data", sources, overwrite=True)  # what `retrieval-prompts corpus` does
    print("\n".join(made.said))

    biencoder = BiEncoder.load("all-MiniLM-L6-v2")
    found = tune(biencoder, load(shop / "data"), max_steps=max_steps, out=shop / "prompts", overwrite=True)
    for system, scores in found.systems.items():
        print(f"{system:12}  nDCG@10 {scores['ndcg@10']:.3f}")
    if found.recommendation is not None:
        print(found.recommendation.sentence)


if __name__ == "__main__":
    main(*sys.argv[1:2])
