"""A frozen open_clip model: where it comes from, how it sees images, what its weights are."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.towers.text import TextTower
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.files import check_readable
from retrieval_prompts.towers.fingerprint import digest

EMBEDDED = Path(__file__).parent.parent / "small_clip"
EMBEDDED_NAME = "small_clip"
CONFIG = "open_clip_config.json"
QUICK = "-quickgelu"  # at the end of an architecture's name
BATCH = 256  # texts encoded at once by the frozen tower


class Clip:
    """A frozen open_clip model with its preprocessing and tokenizer.

    Args:
        model: an open_clip model (CLIP, CustomTextCLIP, CoCa); it is put into evaluation mode, float32, and its
            parameters stop asking for gradients.
        preprocess: PIL image -> (3, H, W), the model's own deterministic evaluation transform.
        tokenizer: its open_clip tokenizer.
        name, pretrained: what the user called it; kept in artifacts.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Any], Tensor],
        tokenizer: Any,
        name: str,
        pretrained: str | None = None,
    ) -> None:
        if not hasattr(model, "visual") or not hasattr(model, "encode_image"):
            raise UserError(f"model {name} has no image tower; expected an open_clip model with one")
        self.model: Any = model.eval().float().requires_grad_(False)
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.name = name
        self.pretrained = pretrained
        self.text = TextTower(model, tokenizer)
        self.dimension = self.text.dimension

    @property
    def device(self) -> torch.device:
        return self.text.device

    @property
    def visual(self) -> Any:
        return self.model.visual

    @property
    def title(self) -> str:
        """The name as results show it: of a folder its last part."""
        return Path(self.name.removeprefix("local-dir:")).name if self.name.startswith("local-dir:") else self.name

    @cached_property
    def scale(self) -> float:
        """The factor of the cosine in a logit: exp of the model's logit scale."""
        return float(self.model.logit_scale.exp())

    @cached_property
    def _preprocessing(self) -> dict[str, Any]:
        return dict(getattr(self.visual, "preprocess_cfg", None) or {})

    @property
    def mean(self) -> tuple[float, ...]:
        return tuple(self._preprocessing.get("mean") or self.visual.image_mean)

    @property
    def std(self) -> tuple[float, ...]:
        return tuple(self._preprocessing.get("std") or self.visual.image_std)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        size = self.visual.image_size
        return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) as `preprocess` makes them -> (B, dimension) in float32, of unit length."""
        return F.normalize(self.model.encode_image(pixels.to(self.device)).float(), dim=-1)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (n, dimension) in float32, of unit length, by the frozen tower; long texts are cut before EOT."""
        parts = [self.text.plain(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return (
            F.normalize(torch.cat(parts).float(), dim=-1)
            if parts
            else torch.zeros(0, self.dimension, device=self.device)
        )

    @cached_property
    def image_fingerprint(self) -> str:
        """SHA-256 of all that an image's features depend on: the image tower's weights and the preprocessing."""
        settings = [self._preprocessing, self.image_size, str(self.preprocess), _settings(self.visual)]
        return digest(self.visual.state_dict(), before=_json(settings))

    @cached_property
    def text_fingerprint(self) -> str:
        """SHA-256 of all that a text's features depend on: the rest of the weights, and the tokenizer."""
        weights = {name: value for name, value in self.model.state_dict().items() if not name.startswith("visual.")}
        tokens = self.text.tokens
        sample = [tokens.of(text) for text in ("a photo of two dogs", "Eiffel tower, 1889", "naïve ☕")]
        around = [tokens.lead, tokens.trail, tokens.pad, tokens.context_length, sample]
        modules = [[name, _settings(module)] for name, module in self.model.named_children() if name != "visual"]
        pooling = [getattr(self.model, name, None) for name in ("text_pool_type", "text_eos_id")]
        causal = getattr(self.text.inner, "attn_mask", None) is not None
        return digest(weights, before=_json([around, modules, pooling, causal]))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of both towers: the space in which images and texts are compared."""
        return hashlib.sha256(f"{self.image_fingerprint} {self.text_fingerprint}".encode()).hexdigest()


def load_clip(
    model: str | None = None,
    pretrained: str | None = None,
    *,
    device: str | None = None,
    quick_gelu: bool | None = None,
) -> Clip:
    """Load a frozen open_clip model.

    Args:
        model: None for the small CLIP that comes with this package; a folder in open_clip's format (or
            "local-dir:FOLDER"); "hf-hub:NAME"; or an open_clip architecture such as "ViT-B-32".
        pretrained: with an architecture, one of its pretrained tags, or a checkpoint file.
        device: None: a GPU when there is one.
        quick_gelu: with a checkpoint file, whether it was trained with QuickGELU, as OpenAI's models and what comes of
            them were. The vectors are others, and the weights do not tell. None: as the architecture's name says
            ("ViT-B-32-quickgelu"), with a DataWarning where that is GELU. A tag knows its own.

    Raises:
        UserError: when there is no such model, or it cannot take context vectors.
    """
    import open_clip

    place = _locate(model, pretrained, quick_gelu)
    # Its "no pretrained weights" and download chatter goes through the root logger
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        loaded, _, preprocess = open_clip.create_model_and_transforms(
            place.source,
            pretrained,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            require_pretrained=True,  # random weights are nobody's wish
            force_quick_gelu=place.quick_gelu,
        )
        tokenizer = open_clip.get_tokenizer(place.source)
    except Exception as error:  # open_clip and what it calls raise whatever they like
        check_readable(Path(place.source.removeprefix("local-dir:")))
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"model {place.name} could not be loaded by open_clip: {reason}") from error
    finally:
        logging.getLogger().setLevel(level)
    if place.doubt is not None:
        warnings.warn(place.doubt, DataWarning, stacklevel=2)
    return Clip(loaded, preprocess, tokenizer, place.name, pretrained)


def reload_clip(name: str, pretrained: str | None, *, device: str | None = None) -> Clip:
    """`load_clip` of what a fingerprint will be compared with, so that nothing is left to doubt."""
    file = pretrained is not None and Path(pretrained).is_file()
    plain = file and not name.endswith(QUICK) and not _config(name).get("quick_gelu", False)
    return load_clip(name, pretrained, device=device, quick_gelu=False if plain else None)


@dataclass(frozen=True)
class _Place:
    """Where a model is.

    Args:
        name: as artifacts keep it.
        source: what open_clip is asked for.
        quick_gelu: whether its configuration is overruled.
        doubt: what is to be said of its activation.
    """

    name: str
    source: str
    quick_gelu: bool = False
    doubt: str | None = None


def _locate(model: str | None, pretrained: str | None, quick_gelu: bool | None) -> _Place:
    import open_clip

    plain = (model or EMBEDDED_NAME).removeprefix("local-dir:")
    folder = Path(plain).expanduser()
    embedded = model is None or model == EMBEDDED_NAME
    if embedded or plain.startswith("hf-hub:") or folder.is_dir() or plain != model:
        here = f"the model {plain}" if embedded or plain.startswith("hf-hub:") else f"the model folder {folder}"
        if here.startswith("the model folder") and not (folder / CONFIG).is_file():
            raise UserError(f"{folder} is not an open_clip model folder: expected {CONFIG} in it")
        if pretrained is not None:
            raise UserError(f"{here} has its own weights; leave out --pretrained {pretrained}")
        if quick_gelu is not None:
            raise UserError(f"{here} has its own activation; leave out --quick-gelu (quick_gelu)")
        if embedded:
            return _Place(EMBEDDED_NAME, f"local-dir:{EMBEDDED}")
        name = plain if plain.startswith("hf-hub:") else f"local-dir:{folder}"
        return _Place(name, name)
    known = open_clip.list_models()
    source = plain if plain in known else plain.removesuffix(QUICK)
    if source not in known:
        raise UserError(
            f"there is no model {model}: expected a folder, hf-hub:NAME, or an open_clip name like ViT-B-32"
        )
    tags = open_clip.list_pretrained_tags_by_model(source)
    if pretrained is None:
        raise UserError(f"model {model} needs --pretrained: a checkpoint file, or one of {', '.join(tags) or 'no tag'}")
    if pretrained in tags:
        return _Place(plain, source, _of_tag(source, pretrained, True if source != plain else quick_gelu))
    if not Path(pretrained).is_file():
        raise UserError(
            f"--pretrained {pretrained} is neither a file nor a tag of {model}; there are {', '.join(tags) or 'none'}"
        )
    return _of_file(plain, source, pretrained, quick_gelu)


def _of_tag(source: str, tag: str, wanted: bool | None) -> bool:
    """Whether a tag's weights were trained with QuickGELU, whatever the plain name's configuration has."""
    import open_clip

    trained = bool(open_clip.get_pretrained_cfg(source, tag).get("quick_gelu", False))
    if wanted is not None and wanted != trained:
        right = f"{'' if trained else 'out'} QuickGELU"
        raise UserError(f"the weights {tag} of {source} were trained with{right}; leave out what says otherwise")
    return trained


def _of_file(name: str, source: str, file: str, quick_gelu: bool | None) -> _Place:
    by_name = name != source or bool(_config(source).get("quick_gelu", False))
    if quick_gelu is False and by_name:
        plain = name.removesuffix(QUICK)
        raise UserError(f"model {name} is one with QuickGELU; for {file} without it, write --model {plain}")
    if by_name or quick_gelu:
        return _Place(name if by_name else f"{name}{QUICK}", source, True)
    doubt = None
    if quick_gelu is None and _may_have_quick_gelu(source):
        doubt = (
            f"{file} is read as model {name}, with GELU; if it was trained with QuickGELU, as OpenAI's CLIPs and what"
            " is made of them, its vectors are wrong: pass --quick-gelu then, else --no-quick-gelu (quick_gelu=False)"
        )
    return _Place(name, source, False, doubt)


def _config(architecture: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture; empty for any other name."""
    import open_clip

    return (open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None) or {}


def _may_have_quick_gelu(architecture: str) -> bool:
    """The towers of timm and Hugging Face have activations of their own."""
    config = _config(architecture)
    return "timm_model_name" not in config.get("vision_cfg", {}) and "hf_model_name" not in config.get("text_cfg", {})


# Values beside the weights that change what is computed; others differ between library versions that compute the same
PLAIN = {"num_heads", "heads", "eps", "pool_type", "final_ln_after_pool", "eos_id", "pad_id", "approximate"}
PLAIN |= {"kernel_size", "stride", "padding", "dilation", "groups"}


def _settings(module: nn.Module) -> list[Any]:
    """What a module computes beyond its weights: the kinds of its parts, and their plain values (heads, eps ...)."""
    return [
        [name, type(part).__name__, {key: str(value) for key, value in vars(part).items() if key in PLAIN}]
        for name, part in module.named_modules()
    ]


def _json(settings: Any) -> str:
    return json.dumps(settings, sort_keys=True, default=str)
