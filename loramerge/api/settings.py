"""From a recipe to what holds for each module: its method, options, weights and rank."""

from __future__ import annotations

from collections.abc import Sequence

from loramerge.api import weights
from loramerge.engine.plan import Setting
from loramerge.errors import BadOption
from loramerge.linalg import ranks
from loramerge.methods._method import MERGE
from loramerge.recipe import Recipe, Rule
from loramerge.registry import near


def setting_of(recipe: Recipe) -> Setting:
    """What holds where no rule does. Raises BadOption for a rank that the method decides itself."""
    return _setting(recipe, Rule(""), ())


def overrides_of(recipe: Recipe, names: Sequence[str]) -> dict[str, Setting]:
    """What the recipe's rules say for the modules they match, adapters being called `names`. Raises BadOption."""
    return {rule.match: _setting(recipe, rule, names) for rule in recipe.modules}


def _setting(recipe: Recipe, rule: Rule, names: Sequence[str]) -> Setting:
    method = rule.method or recipe.method
    inherited = recipe.options if method == recipe.method else {}
    rank = rule.rank or recipe.rank
    if MERGE[method].rank == "own" and (rule.rank or (not rule.match and rank != "max")):
        raise BadOption(f"{method} decides its rank itself, so --rank does not apply.", hint="--method linear")
    return Setting(method, {**inherited, **rule.options}, _weights(recipe, rule, method, names), ranks.parse(rank))


def _weights(recipe: Recipe, rule: Rule, method: str, names: Sequence[str]) -> tuple[float, ...]:
    given = [item.weight for item in recipe.adapters]
    for name, weight in rule.weights.items():
        if name not in names:
            raise BadOption(
                f"No adapter here is named {name!r}.", where=rule.match, hint=", ".join(near(name, names) or names)
            )
        given[names.index(name)] = weight
    return weights.resolve(given, recipe.weights or MERGE[method].weights, normalize=recipe.normalize)
