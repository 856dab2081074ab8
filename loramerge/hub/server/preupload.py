"""How a file is to be sent: as it is, through LFS, or not at all.

LFS takes what is not text, what has the suffix of weights, and what is larger than 10 MB. What a
.gitignore names is not sent; its patterns mean what they mean to git.

Source: https://git-scm.com/docs/gitignore
"""

from __future__ import annotations

import codecs
from fnmatch import fnmatchcase

LARGEST_REGULAR = 10 * 1000 * 1000
# fmt: off
_LFS_SUFFIXES = [
    "7z", "arrow", "bin", "bz2", "ckpt", "ftz", "gguf", "gz", "h5", "joblib", "lfs.*", "mlmodel", "model", "msgpack",
    "npy", "npz", "onnx", "ot", "parquet", "pb", "pickle", "pkl", "pt", "pth", "rar", "safetensors", "tar", "tar.*",
    "tflite", "tgz", "wasm", "xz", "zip", "zst",
]
# fmt: on

# The first file of every repo: tells git and the clients that read it what LFS takes.
GITATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LFS_SUFFIXES)


def upload_mode(path: str, size: int, sample: bytes) -> str:
    """Either "lfs" or "regular", from the name, the size and the first bytes; an empty file is regular."""
    name = path.rpartition("/")[2]
    by_name = any(fnmatchcase(name, f"*.{suffix}") for suffix in _LFS_SUFFIXES)
    return "lfs" if size and (by_name or size > LARGEST_REGULAR or not _is_text(sample)) else "regular"


def _is_text(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in sample


def is_ignored(path: str, gitignore: str) -> bool:
    """Whether the last pattern that matches the path, or a folder above it, says so."""
    ignored = False
    for line in gitignore.splitlines():
        pattern = line.rstrip()
        if not pattern or pattern.startswith("#"):
            continue
        negated = pattern.startswith("!")
        if _matches(path, pattern.removeprefix("!").removeprefix("\\")):
            ignored = not negated
    return ignored


def _matches(path: str, pattern: str) -> bool:
    wanted = pattern.removesuffix("/**").strip("/").split("/")
    if "/" not in pattern.rstrip("/"):
        wanted = ["**", *wanted]  # no slash but at the end: at any depth
    only_folders = pattern.endswith(("/", "/**"))
    reached = _spread({0}, wanted)
    for part in path.split("/")[: -1 if only_folders else None]:
        stay = {at for at in reached if wanted[at] == "**"}
        reached = _spread(stay | {at + 1 for at in reached - stay if fnmatchcase(part, wanted[at])}, wanted)
        if len(wanted) in reached:
            return True
    return False


def _spread(reached: set[int], wanted: list[str]) -> set[int]:
    """Places in a pattern, and those that they lead to because `**` may match nothing."""
    for at in sorted(reached):
        while at < len(wanted) and wanted[at] == "**":
            at += 1
            reached.add(at)
    return reached
