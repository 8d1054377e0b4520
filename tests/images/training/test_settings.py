"""Settings: each method's defaults under what is given, and one line for every value that cannot be."""

from __future__ import annotations

import json
import math
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import pytest

from multimodal.prompts.settings import METHODS, QUICK
from multimodal.training.settings import Settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.settings import check_read, option_of, rule_of


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_defaults_under_what_is_given(name: str) -> None:
    defaults = Settings.DEFAULTS[name]
    assert set(METHODS[name]) <= set(defaults) <= {field.name for field in fields(Settings)}
    settings = Settings.of(method=name)
    assert settings == Settings(method=name) == Settings(method=name, **defaults)
    given = Settings.of(method=name, epochs=3, learning_rate=None, weight=0.25)
    assert given == replace(settings, epochs=3, weight=0.25), "None is not given"


def test_coop_is_the_default() -> None:
    assert Settings.of() == Settings.of(method="coop") == Settings()


def test_shots() -> None:
    assert Settings.of().shots == 16
    assert Settings.of(shots=None).shots is None, "all"
    assert Settings.of(shots=1).shots == 1


def test_settings_are_json_and_fixed() -> None:
    settings = Settings.of(method="promptsrc", shots=None, seed=2**32 - 1)
    assert Settings(**json.loads(json.dumps(asdict(settings)))) == settings
    with pytest.raises(FrozenInstanceError):
        settings.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"position": "behind"}, "--position must be end, middle or front, got 'behind'"),
        ({"encoder": "gru"}, "--encoder must be table, mlp or lstm, got 'gru'"),
        ({"precision": "float16"}, "--precision must be auto, float32 or bfloat16, got 'float16'"),
        *(
            ({name: value}, f"--{name.replace('_', '-')} must be 1 or more, got {value}")
            for name in ("context", "epochs", "batch_size", "views", "depth", "visual", "shots")
            for value in (0, -3, 2**31)
        ),
        *(
            ({"learning_rate": value}, rf"--lr must be above 0 and at most 1e\+06, got {re.escape(str(value))}")
            for value in (0, -1e-3, 1e38, math.inf, math.nan)
        ),
        ({"warmup": 1.5}, "--warmup must be from 0 to 1, got 1.5"),
        ({"weight_decay": -0.1}, "--weight-decay must be from 0 to 1, got -0.1"),
        ({"weight": math.nan}, r"--weight must be from 0 to 1e\+06, got nan"),
        ({"weight": -1}, r"--weight must be from 0 to 1e\+06, got -1"),
        ({"seed": -1}, "--seed must be from 0 to 4294967295, got -1"),
        ({"template": "a photo"}, 'expected a template with one {} for the class name, such as .*; got "a photo"'),
        ({"template": "{} and {}"}, 'expected a template with one {} for the class name, .*; got "{} and {}"'),
        ({"method": "coopp"}, "--method must be coop, cocoop, .*maple, .*promptsrc, feedback or auto, got 'coopp'"),
        ({"shot": 4, "learning": 1}, "no such setting: learning, shot; there are method, recipe, .*, precision"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        Settings.of(**given)


@pytest.mark.parametrize("name", [*METHODS, "auto"])
def test_every_option_that_a_method_leaves_unread_is_refused(name: str) -> None:
    """What each reads is proven in test_methods; what `auto` reads, all that it tries read."""
    settings = Settings.of(method=name)
    refused = set()
    for each in fields(Settings):
        try:
            check_read(settings, [each.name], data="labelled pictures")
        except UserError as error:
            refused.add(each.name)
            assert str(error).startswith(f"{option_of(each)} is used with --")
    readers = {each.name: rule_of(each).read_by.get("method", (name,)) for each in fields(Settings)}
    assert refused == {each for each, methods in readers.items() if name not in methods}
    if name == "auto":
        assert all(
            set(QUICK) <= set(methods) for each, methods in readers.items() if each not in refused if methods != (name,)
        )
