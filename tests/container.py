"""What the containers in docs/serving run, with folders of this machine in place of theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "serving"


def command_of(compose: str, places: Mapping[str, Path]) -> list[str]:
    """The entrypoint and the command of a compose file, the entrypoint of the image where it has none.

    Args:
        places: path in the container -> here.
    """
    texts = [(FOLDER / name).read_text() for name in (compose, "Dockerfile")]
    entry = re.search(r"^ +entrypoint: (\[.*\])$", texts[0], re.M) or re.search(
        r"^ENTRYPOINT (\[.*\])$", texts[1], re.M
    )
    command = re.search(r"^ +command: (\[.*\])$", texts[0], re.M)
    default = re.search(r"^CMD (\[.*\])$", texts[1], re.M)
    assert entry and command and default
    if "entrypoint" not in texts[0]:
        assert json.loads(command[1])[: len(json.loads(default[1]))] == json.loads(default[1])
    mounted = re.findall(r"\}:(/\w+):ro$", texts[0], re.M)
    assert {*mounted, "/run/secrets/token"} == places.keys()
    return [str(places.get(word, word)) for word in (*json.loads(entry[1]), *json.loads(command[1]))]
