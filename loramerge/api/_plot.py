"""The pictures of a comparison as PNG files. The same numbers give the same bytes with one matplotlib.

Sizes follow the number of adapters, so that names stay readable: a picture of hundreds is large.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from loramerge.errors import BadOption, LoramergeError, MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from loramerge.linalg.compare import Floats


class Panel(NamedTuple):
    """How one figure is drawn: its title, its colours and the values at their ends."""

    title: str
    colours: str
    low: float
    high: float


PANELS = {
    "cosine": Panel("Cosine of the updates", "RdBu_r", -1, 1),
    "sign_conflict": Panel("Sign conflict (0.5 is chance)", "PuOr_r", 0, 1),
    "row_overlap": Panel("Overlap of row spaces (inputs)", "viridis", 0, 1),
    "column_overlap": Panel("Overlap of column spaces (outputs)", "viridis", 0, 1),
}
"""The figures of a heatmap, in reading order."""

_DPI = 120
_LETTERS = 34
"""Longer names are cut in the middle."""
_WITH_NUMBERS = 12
"""Up to so many adapters the cells hold their numbers."""
_SMALL_LETTERS = 60
"""Above so many adapters names are small."""


def target(path: Path) -> Path:
    """The path of a PNG to write. Raises BadOption for another suffix or no folder, MissingExtra without matplotlib."""
    if path.suffix.lower() != ".png":
        raise BadOption("A picture is written as PNG.", where=str(path), hint=str(path.with_suffix(".png")))
    if not path.parent.is_dir():
        raise BadOption("There is no such folder.", where=str(path.parent), hint=f"mkdir -p {path.parent}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtra("A picture needs matplotlib.", hint="pip install 'loramerge[plot]'") from None
    return path


def heatmaps(path: Path, names: Sequence[str], figures: Mapping[str, Tensor], tree: Floats) -> None:
    """Write four matrices in the order of the tree's leaves, so that adapters that are alike are neighbours."""
    from scipy.cluster import hierarchy

    order = [int(leaf) for leaf in hierarchy.leaves_list(tree)]
    labels = [_short(names[i]) for i in order]
    letters = 8 if len(names) <= _SMALL_LETTERS else 5.5
    cell = max(0.5 if len(names) <= _WITH_NUMBERS else letters / 48, 4 / len(names))
    side, margin = cell * len(names), letters / 110 * max(map(len, labels)) + 0.3
    size = max(11.0, 1.6 * side)  # of titles: a large picture is looked at from afar first
    wide, high = margin + 1.05 * side + size / 18, margin + side + size / 36
    # Placed by hand: constrained layout would draw all the names several times to find the same places.
    with _figure(path, 2 * wide, 2 * high + size / 24) as figure:
        empty = any(bool(figures[name].isnan().any()) for name in PANELS)
        title = f"{len(names)} LoRA adapters compared, like beside like"
        figure.suptitle(title + (" (grey: nothing to compare)" if empty else ""), fontsize=1.2 * size, y=0.995)
        for at, (name, panel) in enumerate(PANELS.items()):
            x, y = at % 2 * wide + margin, (1 - at // 2) * high + margin
            axes = _axes(figure, x, y, side, side)
            bar = _axes(figure, x + 1.02 * side, y + 0.1 * side, 0.03 * side, 0.8 * side)
            axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=letters)
            axes.set_yticks(range(len(labels)), labels, fontsize=letters)
            _heatmap(axes, bar, figures[name][order][:, order].numpy(), panel, size)


def dendrogram(path: Path, names: Sequence[str], bases: Sequence[str], tree: Floats) -> None:
    """Write the tree with the names at its leaves, in one colour per base model."""
    from scipy.cluster import hierarchy

    drawn = hierarchy.dendrogram(tree, no_plot=True)
    order = drawn["leaves"]
    labels = [_short(names[i]) for i in order]
    kinds = list(dict.fromkeys(bases))
    with _figure(
        path, 7.5 + 0.08 * max(map(len, labels)), 1.9 + 0.2 * len(names) + 0.22 * len(kinds), layout="constrained"
    ) as figure:
        axes = figure.add_subplot()
        for x, y in zip(drawn["dcoord"], drawn["icoord"], strict=True):
            axes.plot(x, y, color="0.25", linewidth=1.2, solid_joinstyle="miter")
        # SciPy puts the leaves at 5, 15, 25, …
        axes.set_yticks([10 * at + 5 for at in range(len(order))], labels, fontsize=9)
        axes.yaxis.tick_right()
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(10 * len(order), 0)
        axes.set_xlim(1.03 * max(1.0, float(tree[:, 2].max())), -0.01)
        axes.set_xlabel("1 − cosine of the updates (average linkage): 0 is the same direction, 1 is unrelated")
        axes.set_title(f"How {len(names)} LoRA adapters are related", fontsize=13)
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        _colour(axes, [bases[i] for i in order], kinds)


@contextmanager
def _figure(path: Path, width: float, height: float, layout: Literal["constrained"] | None = None) -> Iterator[Figure]:
    """A figure of that many inches, written when it has been drawn. No global state, no user's style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout)
        yield figure
        try:
            figure.savefig(path, format="png", metadata={"Software": None})
        except OSError as error:
            raise LoramergeError(f"The picture cannot be written: {error.strerror}.", where=str(path)) from None


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))


def _heatmap(axes: Axes, bar: Axes, values: Any, panel: Panel, size: float) -> None:
    import numpy as np

    image = axes.imshow(np.ma.masked_invalid(values), cmap=panel.colours, vmin=panel.low, vmax=panel.high)
    axes.set_facecolor("0.85")  # what could not be compared
    axes.set_title(panel.title, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(image, cax=bar)
    bar.tick_params(labelsize=0.75 * size)
    if len(values) <= _WITH_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            dark = np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114)) < 0.5
            axes.text(column, row, _number(value), ha="center", va="center", fontsize=8, color="w" if dark else "k")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def _colour(axes: Axes, bases: Sequence[str], kinds: Sequence[str]) -> None:
    """Names in the colour of their base, where there are several, and a legend below."""
    import matplotlib as mpl

    if len(kinds) < 2:
        return
    palette = mpl.colormaps["tab10" if len(kinds) <= 10 else "tab20"]
    colours = {kind: palette(at % palette.N) for at, kind in enumerate(kinds)}
    for label, base in zip(axes.get_yticklabels(), bases, strict=True):
        label.set_color(colours[base])
    handles = [axes.plot([], [], color=colour, linewidth=4, label=kind)[0] for kind, colour in colours.items()]
    axes.figure.legend(
        handles=handles, loc="outside lower left", fontsize=9, frameon=False, title="base model", alignment="left"
    )


def _short(name: str) -> str:
    half = (_LETTERS - 1) // 2
    return name if len(name) <= _LETTERS else f"{name[:half]}…{name[-half:]}"
