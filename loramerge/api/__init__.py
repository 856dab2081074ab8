"""What the commands call and Python users import; the same names as the commands.

from loramerge import api

session = api.Session(Path("work"))
api.pull(session, ["acme/math-lora", "./my-own-lora"])
merged = api.lego(session, [], k=8)
api.push(session, merged.name, "me/merged")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loramerge.api.advising import advise as advise
    from loramerge.api.comparing import compare as compare
    from loramerge.api.evaluating import Evaluated as Evaluated
    from loramerge.api.evaluating import Sweep as Sweep
    from loramerge.api.evaluating import evaluate as evaluate
    from loramerge.api.lineage import log as log
    from loramerge.api.lineage import rebuild as rebuild
    from loramerge.api.look import inspect as inspect
    from loramerge.api.look import show as show
    from loramerge.api.making import Merged as Merged
    from loramerge.api.making import lego as lego
    from loramerge.api.making import make as make
    from loramerge.api.making import merge as merge
    from loramerge.api.making import planned as planned
    from loramerge.api.making import recipe_of as recipe_of
    from loramerge.api.opening import open_ref as open_ref
    from loramerge.api.path import ema as ema
    from loramerge.api.path import interpolate as interpolate
    from loramerge.api.path import places as places
    from loramerge.api.path import recipe_at as recipe_at
    from loramerge.api.path import sweep as sweep
    from loramerge.api.publish import push as push
    from loramerge.api.pulling import pull as pull
    from loramerge.api.session import Session as Session
    from loramerge.api.sources import listing as listing
    from loramerge.api.sources import remove as remove
    from loramerge.api.sources import search as search
    from loramerge.api.sources import verify as verify
    from loramerge.api.statistics import stats as stats
    from loramerge.api.suite import Asked as Asked
    from loramerge.api.units import assemble as assemble
    from loramerge.api.units import decompose as decompose
    from loramerge.report.make import report as report
    from loramerge.search.tune import Search as Search
    from loramerge.search.tune import tune as tune

_WHERE = {
    "Asked": "suite",
    "Evaluated": "evaluating",
    "Merged": "making",
    "Session": "session",
    "Sweep": "evaluating",
    "advise": "advising",
    "assemble": "units",
    "compare": "comparing",
    "decompose": "units",
    "ema": "path",
    "evaluate": "evaluating",
    "inspect": "look",
    "interpolate": "path",
    "lego": "making",
    "listing": "sources",
    "log": "lineage",
    "make": "making",
    "merge": "making",
    "open_ref": "opening",
    "places": "path",
    "planned": "making",
    "pull": "pulling",
    "push": "publish",
    "rebuild": "lineage",
    "recipe_at": "path",
    "recipe_of": "making",
    "remove": "sources",
    "search": "sources",
    "show": "look",
    "stats": "statistics",
    "sweep": "path",
    "verify": "sources",
}

# Built over this package and offered by it, so that everything a command does is found in one place.
_ABOVE = {
    "Search": "loramerge.search.tune",
    "report": "loramerge.report.make",
    "tune": "loramerge.search.tune",
}

__all__ = sorted([*_WHERE, *_ABOVE])


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that a command pays only for what it does.
    where = _ABOVE.get(name) or (f"loramerge.api.{_WHERE[name]}" if name in _WHERE else None)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(where), name)
