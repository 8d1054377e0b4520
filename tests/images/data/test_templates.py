"""Templates: the published ones, names of data sets in the spellings people use, and CLIP's ensemble."""

from __future__ import annotations

import doctest

import pytest

from multimodal.data import templates
from retrieval_prompts.errors import UserError


def test_the_worked_examples() -> None:
    assert doctest.testmod(templates) == (0, 4)


@pytest.mark.parametrize(
    ("names", "template"),
    [
        (["oxford_pets", "OxfordPets", "oxford-iiit-pet", "Oxford IIIT Pet"], "a photo of a {}, a type of pet."),
        (["oxford_flowers", "flowers102", "OxfordFlowers"], "a photo of a {}, a type of flower."),
        (["fgvc_aircraft", "FGVCAircraft", "fgvc-aircraft"], "a photo of a {}, a type of aircraft."),
        (["dtd", "DTD", "DescribableTextures"], "{} texture."),
        (["eurosat", "EuroSAT"], "a centered satellite photo of {}."),
        (["food101", "food-101"], "a photo of {}, a type of food."),
        (["ucf101", "UCF-101"], "a photo of a person doing {}."),
        (["imagenet", "caltech101", "sun397", "stanford_cars", "my pictures", ""], "a photo of a {}."),
    ],
)
def test_templates_by_name(names: list[str], template: str) -> None:
    assert {templates.template_for(name) for name in names} == {template}


def test_underscores_become_single_spaces_and_nothing_else_changes() -> None:
    assert templates.fill("a {}.", "gerenuk") == "a gerenuk."
    assert templates.fill("{} texture.", "poly__dotted_") == "poly dotted texture."
    assert templates.fill("a photo of {}", "a {strange} {0} name") == "a photo of a {strange} {0} name"
    assert templates.fill("{literal} {}", "x") == "{literal} x"


@pytest.mark.parametrize("template", ["a photo", "", "{} and {}", "{name}", "{0}"])
def test_a_template_has_one_place_for_the_name(template: str) -> None:
    with pytest.raises(UserError, match=r'expected a template with one \{\} .* got "'):
        templates.fill(template, "cat")


def test_the_ensemble_is_that_of_clip() -> None:
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    assert len(templates.ENSEMBLE) == 80
    assert set(templates.ENSEMBLE) == {template("{}") for template in OPENAI_IMAGENET_TEMPLATES}
    assert templates.DEFAULT in templates.ENSEMBLE
    assert len(templates.SIXTY) == 60
    assert set(templates.SIXTY) == {template("{}") for template in OPENAI_IMAGENET_TEMPLATES[:60]}
