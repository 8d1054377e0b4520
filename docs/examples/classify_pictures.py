"""Classify a folder of pictures after a few examples a class: which tiles are sound, cracked or stained?

The tiles are drawn here; pictures of your own lie in train/<class>/*.jpg, and in test/<class>/*.jpg where accuracy is
to be measured. The model is the small CLIP that comes along; for photographs name another, as in
PromptClassifier(load_clip("ViT-B-32", "openai")).
"""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from multimodal import PromptClassifier, load_images
from multimodal.experiments.protocols import evaluate
from multimodal.experiments.which_system import advice

CLASSES = {"sound": "a clean tile", "cracked": "a cracked tile", "stained": "a stained tile"}


def draw(kind: str, seed: int) -> Image.Image:
    chance = random.Random(f"{kind} {seed}")
    glaze = tuple(chance.randint(150, 230) for _ in range(3))
    picture = Image.new("RGB", (96, 96), glaze)
    pen = ImageDraw.Draw(picture)
    stain = tuple(part - 30 for part in glaze)
    pen.rectangle((4, 4, 91, 91), outline="white", width=chance.randint(1, 3))
    x, y = chance.randint(20, 70), chance.randint(20, 70)
    if kind == "cracked":
        pen.line([(x + 9 * step - 40, y + chance.randint(-9, 9)) for step in range(10)], fill="gray")
    if kind == "stained":
        pen.ellipse((x - 12, y - 9, x + 12, y + 9), fill=stain)
    return picture


def main(folder: str = "tiles", *, shots: int = 8, epochs: int = 20) -> None:
    place = Path(folder)
    for split, count in (("train", shots), ("test", 30)):
        for kind, name in CLASSES.items():
            (place / "pictures" / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(kind, 1000 * (split == "test") + number).save(place / "pictures" / split / name / f"{number}.png")

    data = load_images(place / "pictures")
    train = data.split("train")
    classifier = PromptClassifier(shots=shots, epochs=epochs)
    classifier.fit(train.pictures, [data.classes[label] for label in train.labels])
    classifier.save(place / "prompts", overwrite=True)

    result = evaluate("few-shot", data, [classifier])
    for system, scores in result.systems.items():
        print(f"{system:20} {scores['accuracy']:.1%} of {result.settings['images']} test pictures")
    print(*advice(result).values())

    new = [draw(kind, 5000) for kind in CLASSES]  # pictures need not be files
    for found, chances in zip(classifier.predict(new), classifier.predict_proba(new), strict=True):
        print(f"{found} ({chances.max():.0%})")


if __name__ == "__main__":
    main(*sys.argv[1:2])
