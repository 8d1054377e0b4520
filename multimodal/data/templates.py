"""Hand-written prompts around a class name: the published one of each data set, and CLIP's ensemble of 80."""

from __future__ import annotations

import re

from retrieval_prompts.errors import UserError

DEFAULT = "a photo of a {}."

PICTURES = (
    *("a photo of", "a bad photo of", "a good photo of", "a bright photo of", "a dark photo of", "a blurry photo of"),
    *("a cropped photo of", "a close-up photo of", "a low resolution photo of", "a black and white photo of"),
    *("a pixelated photo of", "a jpeg corrupted photo of", "itap of", "art of", "graffiti of", "a sculpture of"),
    *("a rendering of", "a rendition of", "a painting of", "a drawing of", "a sketch of", "a doodle of", "a tattoo of"),
)
QUALITIES = ("hard to see", "clean", "dirty", "cool", "large", "small", "nice", "weird")
MATERIALS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
# CLIP's 80 templates for ImageNet (Radford et al. 2021, section 3.1.4); their mean does not depend on their order.
ENSEMBLE = (
    *(f"{picture} {article} {{}}." for picture in PICTURES for article in ("a", "the")),
    *(f"a photo of {article} {quality} {{}}." for quality in QUALITIES for article in ("a", "the")),
    *(f"{article} {material} {{}}." for material in MATERIALS for article in ("a", "the")),
    *(f"{article} {{}} in a video game." for article in ("a", "the")),
    *(f"{picture} {{}}." for picture in ("a photo of many", "a photo of one", "a photo of my", "itap of my")),
)
# Those that PromptSRC's authors compare with (Khattak et al. 2023): the first 60 of them in CLIP's own order
_LATER = {
    *("a good photo of a {}.", "a dark photo of a {}.", "a black and white photo of a {}.", "a photo of a cool {}."),
    *("a jpeg corrupted photo of the {}.", "itap of a {}.", "itap of my {}.", "art of the {}.", "graffiti of the {}."),
    *("a drawing of the {}.", "a tattoo of the {}.", "a photo of the large {}.", "a photo of a small {}."),
    *("a photo of the small {}.", "a photo of the nice {}.", "a photo of the weird {}.", "a toy {}."),
    *("the cartoon {}.", "a plushie {}.", "the plushie {}."),
}
SIXTY = tuple(template for template in ENSEMBLE if template not in _LATER)

# Zhou et al. 2022 ("Learning to Prompt for Vision-Language Models", appendix A); other data sets use DEFAULT.
PUBLISHED = {
    "oxfordpets": "a photo of a {}, a type of pet.",
    "oxfordflowers": "a photo of a {}, a type of flower.",
    "fgvcaircraft": "a photo of a {}, a type of aircraft.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "food101": "a photo of {}, a type of food.",
    "ucf101": "a photo of a person doing {}.",
}
ALIASES = {
    "oxfordiiitpet": "oxfordpets",
    "flowers102": "oxfordflowers",
    "oxfordflowers102": "oxfordflowers",
    "describabletextures": "dtd",
}


def template_for(dataset: str) -> str:
    """The published template of a data set by its name, however that is spelt; DEFAULT for a name that is not known.

    >>> template_for("oxford_pets"), template_for("Food-101")
    ('a photo of a {}, a type of pet.', 'a photo of {}, a type of food.')
    """
    return PUBLISHED.get(known_as(dataset), DEFAULT)


def known_as(dataset: str) -> str:
    """The one spelling of a data set's name that tables here have.

    >>> known_as("Oxford-IIIT Pet"), known_as("stanford_cars")
    ('oxfordpets', 'stanfordcars')
    """
    name = re.sub(r"[\W_]", "", dataset).lower()
    return ALIASES.get(name, name)


def spoken(name: str) -> str:
    """A class name as a person writes it: underscores are spaces.

    >>> spoken("water_lilly")
    'water lilly'
    """
    return " ".join(name.replace("_", " ").split())


def fill(template: str, name: str) -> str:
    """The template with a class name in place of "{}"; underscores of the name become spaces.

    >>> fill("a photo of a {}.", "water_lilly")
    'a photo of a water lilly.'

    Raises:
        UserError: for a template without exactly one "{}".
    """
    if template.count("{}") != 1:
        raise UserError(f'expected a template with one {{}} for the class name, such as "{DEFAULT}"; got "{template}"')
    return template.replace("{}", spoken(name))
