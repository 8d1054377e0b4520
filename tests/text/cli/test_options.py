"""Options that come from settings: one each, no more, and what was given arrives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest
import typer

from multimodal.cli.app import app as images
from multimodal.training.settings import Settings
from retrieval_prompts.cli.app import app as texts
from retrieval_prompts.cli.options import with_settings
from retrieval_prompts.prompts.settings import Values, option_of, setting
from retrieval_prompts.training.settings import TuneSettings

SETTINGS = [pytest.param(texts, TuneSettings, id="texts"), pytest.param(images, Settings, id="images")]


def _options(app: typer.Typer) -> Counter[str]:
    tune = typer.main.get_command(app).commands["tune"]  # type: ignore[attr-defined]
    return Counter(name for parameter in tune.params for name in parameter.opts)


@pytest.mark.parametrize(("app", "settings"), SETTINGS)
def test_every_setting_is_exactly_one_option_of_tune(app: typer.Typer, settings: type[Values]) -> None:
    options = _options(app)
    assert {option_of(each): options[option_of(each)] for each in fields(settings)} == {
        option_of(each): 1 for each in fields(settings)
    }


@pytest.mark.parametrize(("app", "settings"), SETTINGS)
def test_no_two_parameters_of_tune_share_an_option(app: typer.Typer, settings: type[Values]) -> None:
    assert set(_options(app).values()) == {1}


@dataclass(frozen=True)
class Two(Values):
    KIND: ClassVar[str] = "kind"
    DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {}

    kind: str = setting("a", help="which", choices=("a", "b"))
    size: int = setting(3, help="how many", low=1, option="--how-many")


@pytest.mark.parametrize(
    ("line", "given"),
    [([], {}), (["--kind", "b"], {"kind": "b"}), (["--how-many", "5", "--kind", "a"], {"kind": "a", "size": 5})],
)
def test_a_command_gets_what_was_given_and_no_defaults(line: list[str], given: dict[str, Any]) -> None:
    got: list[dict[str, Any]] = []

    @with_settings(Two)
    def command(given: dict[str, Any]) -> None:
        got.append(given)

    app = typer.Typer()
    app.command()(command)
    typer.main.get_command(app).main(line, standalone_mode=False)
    assert got == [given]
