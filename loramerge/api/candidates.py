"""From adapters and recipes to candidates: merges that are evaluated without ever being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loramerge.api.prepare import prepare
from loramerge.api.result import extras_of
from loramerge.errors import NeedsBase
from loramerge.evaluation.candidate import Candidate, Rows, Unit, combined, of_adapter, scaled
from loramerge.recipe import Recipe, dump, to_mapping

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.api.opening import Opened
    from loramerge.api.session import Session


@dataclass(frozen=True)
class Entry:
    """A candidate with what is told about it."""

    candidate: Candidate
    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return self.candidate.name


@dataclass
class Maker:
    """Makes candidates of some sources. A merge is made once, however many scales it is wanted at."""

    session: Session
    opened: Sequence[Opened]
    most: int | None = None
    """How many merges are held (None: all)."""
    _made: dict[str, Candidate] = field(default_factory=dict)

    @cached_property
    def sources(self) -> list[Candidate]:
        """The sources themselves, all loaded."""
        for one in self.opened:
            one.verify()
        return [of_adapter(one.adapter) for one in self.opened]

    @property
    def names(self) -> list[str]:
        """The names of the sources."""
        return [one.adapter.name for one in self.opened]

    def adapters(self) -> list[Entry]:
        """The sources as candidates."""
        found = zip(self.opened, self.sources, strict=True)
        return [Entry(c, "adapter", {"ref": _ref(one), "rank": one.adapter.rank}) for one, c in found]

    def merge(self, recipe: Recipe, name: str) -> Entry:
        """What a recipe over the sources makes, heads left out. Raises what merging raises."""
        plain = replace(recipe, scale=1.0)
        text = dump(plain)
        if text not in self._made:
            self._made[text] = self._merged(plain)
            if self.most is not None and len(self._made) > self.most:
                del self._made[next(iter(self._made))]
        facts = {
            "method": recipe.method,
            "options": dict(recipe.options),
            "rank": recipe.rank,
            "scale": recipe.scale,
            "weights": [item.weight for item in recipe.adapters],
            "parents": self.names,
            "recipe": to_mapping(recipe),
        }
        return Entry(scaled(self._made[text], recipe.scale, name), "merge", facts)

    def weighed(self, weights: Sequence[float], name: str, **facts: Any) -> Entry:
        """Σ wᵢ · source i: a row of coefficients. Raises NeedsBase for sources with DoRA, which is no sum."""
        if dora := [source.name for source in self.sources if source.magnitudes]:
            raise NeedsBase(
                "Updates with DoRA magnitudes cannot be added up.", where=", ".join(dora), hint="without them"
            )
        table = [dict.fromkeys(source.terms, weight) for source, weight in zip(self.sources, weights, strict=True)]
        told = {"method": "sum", "weights": list(weights), "scale": 1.0, "parents": self.names, **facts}
        return Entry(combined(name, self.sources, table), "point", told)

    def _merged(self, recipe: Recipe) -> Candidate:
        from loramerge.engine.executors import one_thread
        from loramerge.engine.linear import coefficients, is_linear
        from loramerge.engine.run import run

        work = prepare(self.session, recipe, self.opened)
        with one_thread():
            # An update with DoRA is none of the source's own units.
            if is_linear(work.plan) and not any(source.magnitudes for source in self.sources):
                found = combined("", self.sources, coefficients(work.plan, work.inputs))
            else:
                terms = {done.module: ((Unit(done.delta), 1.0),) for done in run(work.plan, work.inputs)}
                found = Candidate("", terms)
            extras = extras_of(work)
        replaced: dict[str, Tensor] = {}
        rows: dict[str, Rows] = {}
        for spec, load in extras.kept:
            if spec.kind == "tokens":
                rows[f"{spec.module}.weight"] = Rows(spec.indices, load())
            else:
                replaced[spec.key] = load()
        return replace(found, replaced=replaced, rows=rows)


def contenders(kinds: Sequence[str]) -> list[int]:
    """Which candidates can be the best: what was merged; all where nothing was."""
    made = [at for at, kind in enumerate(kinds) if kind in ("merge", "point")]
    return made or list(range(len(kinds)))


def heads_of(opened: Sequence[Opened]) -> dict[str, dict[str, Tensor]]:
    """Every source with its task head, which may be none, and the heads that merges keep apart."""
    from loramerge.engine.extras import is_head
    from loramerge.formats._tensors import load, read_header

    found: dict[str, dict[str, Tensor]] = {}
    for one in opened:
        own = {
            key: one.adapter.load_extra(key)
            for key, spec in one.adapter.extras.items()
            if is_head(one.adapter, spec) and not {"modules_to_save", "original_module"} & set(key.split("."))
        }
        found[one.adapter.name] = own
        for path in sorted((one.folder / "heads").glob("*.safetensors")):
            found[path.stem] = found.get(path.stem) or {key: load(path, key) for key in read_header(path).tensors}
    return found


def _ref(one: Opened) -> str:
    origin = one.origin
    return f"{origin.repo}@{origin.commit[:12]}" if origin.repo and origin.commit else origin.path or origin.name
