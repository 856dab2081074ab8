"""The licence that an adapter's card declares."""

from __future__ import annotations

from pathlib import Path

from loramerge.hub.text import plain

_MAX_CARD = 1 << 20


def declared(folder: Path) -> str | None:
    """The `license` of the front matter of a folder's README.md; None where there is none."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > _MAX_CARD:
        return None
    import yaml
    from huggingface_hub import metadata_load

    try:
        found = (metadata_load(card) or {}).get("license")
    except (ValueError, yaml.YAMLError):
        return None  # a card is a stranger's text; a broken one declares nothing
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return plain(", ".join(map(str, names))) or None
