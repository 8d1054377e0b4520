"""Serve an index with a prompt over HTTP, and ask it: the prompt's ranking, and the frozen model's beside it.

The index holds answers about git, and posts of people who ask; six questions teach a prompt to find answers. Then the
server starts as it would in a terminal, and all that follows is plain HTTP, which any language speaks. The server needs
pip install "retrieval-prompts[serve]".
"""

import json
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

from retrieval_prompts import BiEncoder, HybridIndex, Index, from_texts, tune

ANSWERS = {
    "undo": "git revert makes a new commit that takes back what an earlier one did.",
    "unstage": "git restore --staged takes a file out of the next commit and leaves it as it is.",
    "blame": "git blame shows for each line of a file who changed it last, and when.",
    "stash": "git stash puts unfinished changes aside and gives a clean working tree.",
    "bisect": "git bisect finds the commit that brought a fault, by halving what is between good and bad.",
    "tag": "git tag gives a commit a name that stays, such as that of a release.",
    "clone": "git clone copies a repository with its whole history from another place.",
    "branch": "git switch -c starts a new line of work at the present commit.",
}
PAIRS = [
    ("my last commit was a mistake", "undo"),
    ("I added a file by accident and do not want to commit it", "unstage"),
    ("who wrote this line", "blame"),
    ("my work is half done and I have to look at something else", "stash"),
    ("it worked last month and now it does not", "bisect"),
    ("mark the version that we ship", "tag"),
]
POSTS = {f"post-{id}": f"{question}, what can I do? Did anybody find out?" for question, id in PAIRS}


def ask(address: str, **asked: object) -> dict:
    request = Request(f"{address}/search", json.dumps(asked).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


def main(folder: str = "served", *, max_steps: int = 20) -> None:
    place, data = Path(folder), from_texts(ANSWERS | POSTS, PAIRS)
    biencoder = BiEncoder.load("all-MiniLM-L6-v2")
    index = Index.build(
        biencoder.encode_corpus(data.corpus), data.corpus, data.corpus.ids, encoder=biencoder.identity()
    )
    HybridIndex.build(index, data.corpus).save(place / "index", overwrite=True)
    tune(biencoder, data, max_steps=max_steps, folds=1, out=place / "prompts", overwrite=True)

    command = [sys.executable, "-m", "retrieval_prompts.cli.app", "serve", str(place / "index"), "--port", "0"]
    command += ["--prompts", f"git={place / 'prompts'}"]  # in a terminal: retrieval-prompts serve INDEX --prompts ...
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]  # printed as soon as it listens
            found = ask(address, query="find out who changed this line", prompt="git", strength=1, k=2, frozen=True)
            for system in ("hits", "frozen"):
                print(system, *(f"{hit['score']:.2f} {hit['id']}" for hit in found[system]), sep="\n  ")
            with urlopen(f"{address}/prompts", timeout=30) as answer:
                print([prompts["name"] for prompts in json.load(answer)["prompts"]])
        finally:
            server.terminate()  # it answers what it has accepted, and ends


if __name__ == "__main__":
    main(*sys.argv[1:2])
