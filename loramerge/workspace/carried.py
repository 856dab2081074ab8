"""Tokenizer files that come along: only where all parents have the same, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from loramerge.hub.pull import TOKENIZER


def carry_tokenizer(sources: Sequence[Path], folder: Path) -> list[str]:
    """Copy the files that all sources share into `folder`; returns a sentence about those left out."""
    left_out = []
    for name in TOKENIZER:
        having = [source / name for source in sources if (source / name).is_file()]
        if len(having) == len(sources) and len({path.read_bytes() for path in having}) == 1:
            shutil.copyfile(having[0], folder / name)
        elif having:
            left_out.append(name)
    return [f"tokenizer files left out, the adapters' differ: {', '.join(left_out)}"] if left_out else []
