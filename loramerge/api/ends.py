"""Merges in which one adapter is all that counts: the result is a copy of it, alpha and flags as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.methods._method import MERGE

if TYPE_CHECKING:
    from loramerge.api.prepare import Prepared
    from loramerge.core.adapter import Adapter


def lone(work: Prepared) -> Adapter | None:
    """The adapter that a merge comes down to: its share is one, all others' are zero; None where there is none.

    Only of methods that name shares, and where nothing else is asked for than that adapter: no scale, no other
    type, no rules for modules, no rank below its own, nothing that the base's weights would change.
    """
    recipe = work.recipe
    counted = [(one, share) for one, share in zip(work.adapters, work.shares, strict=True) if share != 0]
    if MERGE[recipe.method].shares is None or len(counted) != 1 or counted[0][1] != 1.0:
        return None
    changed = recipe.scale != 1.0 or recipe.rescale != "none" or recipe.dtype or recipe.modules or recipe.profile
    if changed or recipe.metric or work.base_weights or recipe.extras not in ("auto", "average"):
        return None
    adapter = counted[0][0]
    return adapter if _whole(work, adapter) else None


def _whole(work: Prepared, adapter: Adapter) -> bool:
    """Whether the rank asked for leaves every module of the adapter as it is."""
    for job in work.plan.jobs:
        spec = adapter.modules.get(job.module)
        if spec and (spec.dora or spec.held > (job.rank.asked(job.ranks) or 0)):
            return False
    return True
