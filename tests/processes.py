"""Two processes of one launch, without a launcher: this one is the first, another one is started to help."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def helper(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """While the block runs this process is the first of two, and `retrieval-prompts ARGUMENTS` runs in the other."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "retrieval_prompts.cli.app", *map(str, arguments)]
    environment = {**os.environ, **together, "RANK": "1", "OMP_NUM_THREADS": "1"}
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        try:
            for name, value in {**together, "RANK": "0"}.items():
                patch.setenv(name, value)
            yield process
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()
