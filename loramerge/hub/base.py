"""A base model's folder: config, tokenizer and safetensors, nothing else of its repo."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loramerge.hub.session import quiet

if TYPE_CHECKING:
    from loramerge.hub.reference import HubRef
    from loramerge.hub.session import Hub

_FILES = ("*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt")


def fetch_base(hub: Hub, ref: HubRef) -> Path:
    """The folder in the cache that has a base's files; fetched if need be, and if `hub` may.

    Raises what the Hub answers with; NotFound or Offline where nothing is cached and nothing may be asked.
    """
    from huggingface_hub import snapshot_download

    fetch = partial(
        snapshot_download,
        ref.repo,
        revision=ref.revision,
        allow_patterns=[f"{ref.subfolder}/{name}" if ref.subfolder else name for name in _FILES],
        cache_dir=hub.cache_dir,
        endpoint=hub.url,
        token=hub.credentials,
        local_files_only=hub.offline,
    )
    with hub.translated(ref.repo), quiet():
        return Path(fetch()) / ref.subfolder
