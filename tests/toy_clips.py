"""Toy CLIPs: tiny random frozen open_clip models of each kind of text tower, with tokenizers of each kind.

Seeded: a model made twice holds the same weights. They are far from linear, and from how open_clip begins: all norms,
biases and positions are random, so that nothing left out goes unseen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import open_clip
import torch
import toys
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import nn

from multimodal.towers.text import TextTower

WIDTH, LAYERS, DIMENSION, CONTEXT_LENGTH = 32, 3, 12, 36
VISION = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
NAMES = ("wizards that jump", "fox", "soft prompt", "Brown fox, box", "dog", "question", "passage")  # not by length
FILLER = "a"  # a word of one token that no name holds


def tokenizer(kind: str, context_length: int = CONTEXT_LENGTH, **options: Any) -> Any:
    """An open_clip tokenizer: "simple" is CLIP's own; the others are Hugging Face's, made from a few sentences."""
    if kind == "simple":
        return SimpleTokenizer(context_length=context_length, **options)
    makers: dict[str, Callable[[int], Any]] = {**toys.TOKENIZERS, "headless": _headless, "one end": _one_end}
    with tempfile.TemporaryDirectory() as folder:
        makers[kind](context_length).save_pretrained(folder)
        return HFTokenizer(folder, context_length=context_length, **options)


def _headless(maximum: int) -> Any:
    """As T5's: nothing before a text, </s> behind it, and its own padding."""
    return _bytes("<pad>", maximum)


def _one_end(maximum: int) -> Any:
    """As SigLIP's: nothing before a text; </s> behind it, and on to the end."""
    return _bytes("</s>", maximum)


def _bytes(pad: str, maximum: int) -> Any:
    import transformers
    from tokenizers import processors

    tokenizer, vocabulary, _ = toys._byte_level(["<pad>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=maximum, eos_token="</s>", pad_token=pad
    )


@dataclass(frozen=True)
class Toy:
    """A kind of CLIP.

    Args:
        way: the fastest exact way through its text tower.
        tokenizer: of the kinds of `tokenizer`, with `options`.
        lead, end: what stands before a text, and the first id behind it.
        kind: the model's class; text: its text settings; quick: QuickGELU.
        hugging_face: the architecture of a Hugging Face text tower and its pooler.
    """

    way: str
    tokenizer: str = "simple"
    lead: tuple[int, ...] = (49406,)
    end: int = 49407
    kind: str = "CLIP"
    text: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    hugging_face: tuple[str, str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def model(self, seed: int = 0) -> Any:
        """A new model, in evaluation mode, frozen."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            text = {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": 49408 if self.tokenizer == "simple" else _vocabulary(self.tokenizer),
                "width": WIDTH,
                "heads": 4,
                "layers": LAYERS,
                **self.text,
            }
            extra: dict[str, Any] = {}
            vision = dict(VISION)
            if self.kind == "CoCa":
                extra["multimodal_cfg"] = {**text, "vocab_size": 16, "layers": 1}
                text |= {"embed_cls": True, "output_tokens": True}
                vision |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
            made = getattr(open_clip, self.kind)(
                embed_dim=DIMENSION, vision_cfg=vision, text_cfg=text, quick_gelu=self.quick, **extra
            )
            if self.hugging_face is not None:
                architecture, pooler = self.hugging_face
                made.text = HFTextEncoder("", DIMENSION, _config(architecture, self.tokenizer), pooler, proj_type="mlp")
                if made.text.config.is_encoder_decoder:  # open_clip keeps the encoder
                    made.text.transformer = made.text.transformer.encoder
            _stir(getattr(made, "text", made))
        return made.eval().requires_grad_(False)


TOYS = {
    "fused": Toy("shared"),
    "quick, linear projection, layer scale": Toy("shared", text={"proj_bias": True, "ls_init_value": 0.5}, quick=True),
    "no projection": Toy("shared", text={"proj_type": "none"}),
    "custom text": Toy("shared", kind="CustomTextCLIP", text={"output_tokens": True}),
    "its own eos": Toy("shared", "bert", (2,), 3, "CustomTextCLIP", {"pool_type": "eos", "eos_id": 3}),
    "byte-level": Toy("shared", "roberta", (0,), 2, "CustomTextCLIP", {"pool_type": "eos", "eos_id": 2}),
    "nothing before the text": Toy("shared", "headless", (), 1, text={"pool_type": "eos", "eos_id": 1}),
    "custom blocks": Toy("truncated", text={"qk_norm": True, "scale_heads": True, "scale_attn": True}),
    "normed hidden layer": Toy("truncated", text={"scale_fc": True, "scale_attn_inner": True}, quick=True),
    "bert, mean": Toy("truncated", "bert", (2,), 3, "CustomTextCLIP", hugging_face=("bert", "mean_pooler")),
    "bert, cls": Toy("truncated", "bert", (2,), 3, "CustomTextCLIP", hugging_face=("bert", "cls_pooler")),
    "roberta, mean": Toy("truncated", "roberta", (0,), 2, "CustomTextCLIP", hugging_face=("roberta", "mean_pooler")),
    "xlm-roberta, cls": Toy(
        "truncated",
        "xlm-roberta",
        (0,),
        2,
        "CustomTextCLIP",
        hugging_face=("xlm-roberta", "cls_last_hidden_state_pooler"),
    ),
    "mt5, mean": Toy("truncated", "headless", (), 1, "CustomTextCLIP", hugging_face=("mt5", "mean_pooler")),
    "nllb, cls": Toy("truncated", "xlm-roberta", (0,), 2, "CustomTextCLIP", hugging_face=("nllb", "cls_pooler")),
    "last": Toy("full", kind="CustomTextCLIP", text={"pool_type": "last"}),
    "coca": Toy("full", kind="CoCa"),
    "not causal": Toy("full", text={"no_causal_mask": True}),
    "siglip": Toy(
        "full",
        "one end",
        (),
        1,
        "CustomTextCLIP",
        {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        options={"clean": "canonicalize"},
    ),
}


@cache
def shared_tokenizer(name: str) -> Any:
    """The tokenizer of a kind of CLIP."""
    return tokenizer(TOYS[name].tokenizer, **TOYS[name].options)


@cache
def shared_model(name: str) -> Any:
    """The model of a kind of CLIP, made once: no test may change it."""
    return TOYS[name].model()


def tower(name: str, **options: Any) -> TextTower:
    """The text tower of a kind of CLIP."""
    return TextTower(shared_model(name), shared_tokenizer(name), **options)


@cache
def _vocabulary(kind: str) -> int:
    return len(tokenizer(kind).tokenizer)


def _config(architecture: str, tokens: str) -> Any:
    import transformers

    size: dict[str, Any] = {"vocab_size": _vocabulary(tokens), "d_model": WIDTH}
    if architecture == "mt5":
        return transformers.MT5Config(**size, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0)
    if architecture == "nllb":
        layers: dict[str, Any] = {
            "encoder_layers": 2,
            "encoder_ffn_dim": 64,
            "encoder_attention_heads": 4,
            "decoder_layers": 1,
        }
        return transformers.M2M100Config(**size, **layers, max_position_embeddings=64, pad_token_id=1)
    return toys._network(architecture, tokenizer(tokens).tokenizer).config


def _stir(module: nn.Module) -> None:
    """Random values in place of open_clip's cautious first ones."""
    for name, parameter in module.named_parameters():
        if name.startswith("visual.") or parameter.dim() == 0:
            continue
        if parameter.dim() == 1 and name.endswith("weight"):  # of a norm
            nn.init.normal_(parameter, mean=1.0, std=0.3)
        elif parameter.dim() < 2:
            nn.init.normal_(parameter, mean=0.5 if name.endswith("gamma") else 0.0, std=0.3)
        else:
            embedding = "embedding" in name
            nn.init.normal_(parameter, std=0.7 if embedding else 1.5 * parameter.shape[-1] ** -0.5)
