"""The model card of a result: what the Hub reads (YAML front matter) and what people read. No time, no versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loramerge.core.provenance import FilePin, Lineage, Parent, digest
from loramerge.hub.text import markdown, plain

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_USAGE = """\
```python
from peft import PeftModel
from transformers import AutoModel  # or the class of your task

model = AutoModel.from_pretrained({base!r})
model = PeftModel.from_pretrained(model, "this repository's id, or a folder with its files")
```"""


def card(
    title: str,
    lineage: Lineage,
    families: Sequence[Mapping[str, object]] = (),
    notes: Iterable[str] = (),
) -> str:
    """The text of `README.md`. Rows of `families` become a table with the first row's keys as its head.

    Names, options and notes may come from strangers: they are shown as text, whatever they hold.
    """
    parts = [
        f"---\n{_front_matter(lineage)}\n---",
        f"# {markdown(title)}",
        _summary(lineage),
        _use(lineage),
        f"## Made of\n\n{_table(_parent_row(parent) for parent in lineage.parents)}",
        f"## How\n\n{_how(lineage)}",
        f"## What it kept\n\n{_table(families)}" if families else "",
        _licences(lineage.parents),
        "## Notes\n\n" + "\n".join(f"- {markdown(note)}" for note in notes) if (notes := list(notes)) else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def licence(parents: Iterable[Parent]) -> str | None:
    """The parents' common licence; "other" where they differ or some name none; None where nobody names one."""
    found = {parent.licence for parent in parents}
    return found.pop() if len(found) == 1 else "other"


def _front_matter(lineage: Lineage) -> str:
    from huggingface_hub import ModelCardData

    base = _repo(lineage.base)
    shared = licence(lineage.parents)
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base else None,
        library_name="peft",
        license=plain(shared) if shared else None,
        license_name="licences-of-the-parents" if shared == "other" else None,
        tags=["lora", "loramerge", "merge", _tag(lineage.method)],
        loramerge=_block(lineage),
    )
    return str(data.to_yaml()).strip()


def _repo(base: str | None) -> str | None:
    return base if base and _REPO.fullmatch(base) else None


def _block(lineage: Lineage) -> dict[str, Any]:
    """The lineage that machines read off the card: parents by repo, commit and hash."""
    parents = [
        {
            "name": plain(parent.name),
            **({"repo": plain(parent.repo), "commit": plain(parent.commit or "")} if parent.repo else {}),
            **({"subfolder": plain(parent.subfolder)} if parent.subfolder else {}),
            "sha256": digest(parent.files),
            "weight": parent.weight,
        }
        for parent in lineage.parents
    ]
    options = {plain(key): _shown(value) for key, value in sorted(lineage.options.items())}
    return {
        "method": lineage.method,
        "options": options,
        "rank": lineage.rank,
        "seed": lineage.seed,
        "parents": parents,
    }


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else plain(str(value))


def _tag(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")


def _summary(lineage: Lineage) -> str:
    names = ", ".join(markdown(parent.name) for parent in lineage.parents)
    base = f" of {markdown(lineage.base)}" if lineage.base else ""
    return (
        f"A LoRA adapter{base}, made from {len(lineage.parents)} adapters ({names}) by the method"
        f" *{markdown(lineage.method)}* of loramerge. Its lineage is in `loramerge.json`;"
        " `loramerge rebuild` makes the same weights from it again."
    )


def _use(lineage: Lineage) -> str:
    return f"## Use\n\n{_USAGE.format(base=_repo(lineage.base) or 'the base model')}"


def _parent_row(parent: Parent) -> dict[str, object]:
    where = f"{parent.repo}@{(parent.commit or '')[:12]}" if parent.repo else "a local adapter"
    return {
        "adapter": parent.name,
        "from": f"{where}:{parent.subfolder}" if parent.subfolder else where,
        "weight": f"{parent.weight:.6g}",
        "licence": parent.licence or "not stated",
        "sha256": _weights_hash(parent.files),
    }


def _weights_hash(files: Sequence[FilePin]) -> str:
    found = [pin.sha256[:12] for pin in files if pin.path.endswith((".safetensors", ".bin"))]
    return found[0] if found else ""


def _how(lineage: Lineage) -> str:
    options = {"method": lineage.method, "rank": lineage.rank, "seed": lineage.seed, **lineage.options}
    return _table({"option": key, "value": _shown(value)} for key, value in options.items())


def _licences(parents: Sequence[Parent]) -> str:
    if licence(parents) != "other":
        return ""
    lines = "\n".join(f"- {markdown(p.name)}: {markdown(p.licence or 'not stated')}" for p in parents)
    return (
        "## Licences\n\nThe adapters that this one was made from have different licences, or some state none."
        f" Whoever uses it has to keep all of them:\n\n{lines}"
    )


def _table(rows: Iterable[Mapping[str, object]]) -> str:
    rows = list(rows)
    head = list(rows[0]) if rows else []
    lines = [[markdown(key) for key in head], ["---"] * len(head)]
    lines += [[markdown(_number(row.get(key, ""))) for key in head] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
