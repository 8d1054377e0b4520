"""Files and folders that appear whole or not at all, checksums, locks, kinds of output folders."""

from retrieval_prompts.files.arrays import read_array
from retrieval_prompts.files.digests import (
    SUMS,
    check_all_listed,
    check_listed,
    check_seal,
    digest,
    list_all,
    list_digest,
    listed,
    of_blocks,
    sealed,
)
from retrieval_prompts.files.locks import locked
from retrieval_prompts.files.paths import (
    ADAPTER,
    CHECKPOINT,
    CLASSES,
    INDEX,
    PROMPTS,
    RUNS,
    Kind,
    check_output,
    check_place,
    default_cache,
    inside,
)
from retrieval_prompts.files.writing import new_folder, output, read_json, sweep, write_bytes, write_json

__all__ = [
    "ADAPTER",
    "CHECKPOINT",
    "CLASSES",
    "INDEX",
    "PROMPTS",
    "RUNS",
    "SUMS",
    "Kind",
    "check_all_listed",
    "check_listed",
    "check_output",
    "check_place",
    "check_seal",
    "default_cache",
    "digest",
    "inside",
    "list_all",
    "list_digest",
    "listed",
    "locked",
    "new_folder",
    "of_blocks",
    "output",
    "read_array",
    "read_json",
    "sealed",
    "sweep",
    "write_bytes",
    "write_json",
]
