"""Pictures of committed results, which pages show from where they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File


def on_files(files: Any, config: Any) -> Any:
    root = Path(config.docs_dir).parent
    for picture in sorted((root / "eval/results").glob("*.png")):
        files.append(File.generated(config, f"eval/results/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace("](../eval/results/", "](eval/results/")
