"""Download the openly licensed pictures and their names into a folder, with `npm` and `apt-get`.

    python -m eval.small_clip.fetch build/small_clip

Needs npm, apt-get and dpkg-deb. What is there already is not fetched again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tarfile
from pathlib import Path

NPM_PACKAGES = {
    # colour emoji
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/fxemoji": "1.2.2",
    "@iconify-json/streamline-emojis": "1.2.4",
    # icons
    "@iconify-json/flat-color-icons": "1.2.3",
    "@iconify-json/game-icons": "1.2.4",
    "@iconify-json/icon-park": "1.2.4",
    "@iconify-json/healthicons": "1.2.13",
    "@iconify-json/maki": "1.2.5",
    "@iconify-json/temaki": "1.2.6",
    "@iconify-json/mdi": "1.2.3",
    "@iconify-json/ph": "1.2.2",
    "@iconify-json/streamline-color": "1.2.2",
    "@iconify-json/streamline-plump-color": "1.2.2",
    "@iconify-json/streamline-ultimate-color": "1.2.2",
    "@iconify-json/streamline-kameleon-color": "1.2.2",
    "@iconify-json/streamline-stickies-color": "1.2.2",
    # names, keywords and categories of emoji
    "emojibase-data": "17.0.0",
    # held out: never trained on
    "@iconify-json/fluent-emoji-flat": "1.2.6",
}
DEBIAN_PACKAGES = ["openclipart-svg"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages are unpacked, under raw/")
    options = parser.parse_args()
    raw: Path = options.folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for package, version in NPM_PACKAGES.items():
        fetch_npm(package, version, raw)
    for package in DEBIAN_PACKAGES:
        fetch_debian(package, raw)


def fetch_npm(package: str, version: str, raw: Path) -> None:
    """Unpack `package@version` into `raw/<last part of its name>`."""
    target = raw / package.rpartition("/")[2]
    if target.exists():
        return
    packed = subprocess.run(
        ["npm", "pack", "--silent", f"{package}@{version}"], cwd=raw, check=True, capture_output=True, text=True
    )
    archive = raw / packed.stdout.strip().splitlines()[-1]
    partial = raw / (target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    (partial / "package").rename(target)
    partial.rmdir()
    archive.unlink()
    print(target)


def fetch_debian(package: str, raw: Path) -> None:
    """Unpack the newest `package` of the machine's Debian sources into `raw/<package>`."""
    target = raw / package
    if target.exists():
        return
    subprocess.run(["apt-get", "download", package], cwd=raw, check=True)
    archive = next(raw.glob(f"{package}_*.deb"))
    partial = raw / (package + ".partial")
    subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
    partial.rename(target)
    archive.unlink()
    print(target)


if __name__ == "__main__":
    main()
