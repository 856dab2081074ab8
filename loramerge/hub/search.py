"""Find adapters on the Hub by text and by base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.hub.text import plain

if TYPE_CHECKING:
    from loramerge.hub.session import Hub

_BASE = "base_model:adapter:"


@dataclass(frozen=True, slots=True)
class Found:
    """One adapter as the Hub's list shows it."""

    repo: str
    commit: str
    base: str
    downloads: int
    gated: bool
    licence: str


def search(hub: Hub, text: str = "", base: str | None = None, limit: int = 20) -> list[Found]:
    """PEFT adapters whose repo matches `text`, of a base model where one is named; most downloaded first."""
    tags = ["peft", *([_BASE + base] if base else [])]
    fields = ["sha", "tags", "downloads", "gated"]
    found = hub.ask(
        f"adapters like {plain(text)!r}",
        lambda api: list(
            api.list_models(filter=tags, search=text or None, sort="downloads", limit=limit, expand=fields)
        ),
    )
    return [_found(info) for info in found]


def _found(info: Any) -> Found:
    tags = [plain(tag) for tag in info.tags or ()]
    return Found(
        repo=plain(info.id),
        commit=info.sha or "",
        base=next((tag.removeprefix(_BASE) for tag in tags if tag.startswith(_BASE)), ""),
        downloads=info.downloads or 0,
        gated=bool(info.gated),
        licence=next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), ""),
    )
