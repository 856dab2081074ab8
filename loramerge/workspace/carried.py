"""Tokenizer files that come along: only where all parents have the same, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja"),
)


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
