"""Writing a result: the adapter, heads kept apart, the record, the card; then the lock's entry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from loramerge import __version__
from loramerge.api import summary
from loramerge.api.ends import lone
from loramerge.api.opening import Opened
from loramerge.core.provenance import Lineage, Parent, finite, pin, to_json
from loramerge.errors import BadConfig, BadOption, LoramergeError
from loramerge.formats._format import FORMATS, Outline, open_adapter, updates_of
from loramerge.formats._format import outline_of as as_it_is
from loramerge.hub.text import plain
from loramerge.options import dump
from loramerge.recipe import to_mapping
from loramerge.workspace.carried import carry_tokenizer
from loramerge.workspace.lock import Entry, is_name
from loramerge.workspace.results import Record, new_folder, read_record, write_card, write_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from loramerge.api.prepare import Prepared
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.core.lowrank import LowRank
    from loramerge.engine.extras import Extras

T = TypeVar("T")

_CARRIED = ("revision", "task_type", "fan_in_fan_out", "auto_mapping", "layer_replication")
"""Fields of the parents' configs that a result keeps where all parents agree."""


def check_target(session: Session, target: Path, inputs: Iterable[tuple[str, Path]]) -> None:
    """Raises BadOption, before the work, for an output that would cost one of the inputs or another entry its place."""
    if not is_name(target.name):
        raise BadOption(f"{target.name!r} cannot be the name of a result.", hint="-o NAME, of letters, digits, -")
    for entry in session.workspace.entries():
        if entry.name == target.name and entry.path != session.workspace.relative(target):
            raise BadOption(
                f"{target.name!r} is the name of a {entry.role} already.",
                where=str(session.workspace.lock),
                hint=f"another -o, or loramerge rm {target.name}",
            )
    for name, folder in inputs:
        folder = folder.resolve()
        if folder == target or folder in target.parents or target in folder.parents:
            raise BadOption(
                f"The output would take the place of the input {name!r}.", where=str(target), hint="another -o"
            )


def write(session: Session, work: Prepared, target: Path, *, force: bool = False) -> dict[str, Any]:
    """Run the plan into `target`, which appears when everything in it is written. Returns the report."""
    from loramerge.engine.executors import one_thread
    from loramerge.hub.card import card

    with new_folder(target, force) as folder, _beside(partial(lineage_of, work)) as hashing:
        with one_thread(torch=not work.plan.arrays):
            extras = extras_of(work)
            modules: dict[str, Any] = {}
            outline, updates = outline_of(work, extras), _updates(session, work, modules, hashing)
            if copied := lone(work):
                deque(updates, maxlen=0)  # what the report says comes of the run all the same
                outline, updates = as_it_is(copied), updates_of(copied)
            _write_adapter(folder, outline, updates)
            _write_heads(folder, extras)
        notes = carry_tokenizer([one.folder for one in work.opened], folder)
        written = {spec.name: modules[spec.name] for spec in outline.modules}
        report = summary.report(written, work.base, [*work.notes, *extras.notes, *notes])
        lineage = hashing.result()
        write_record(folder, Record("adapter", lineage, to_mapping(work.recipe), report))
        write_card(folder, card(target.name, lineage, report["families"], report["notes"]))
        _check(folder, outline)
    return report


@contextmanager
def _beside(function: Callable[[], T]) -> Iterator[Future[T]]:
    """What a function will have returned, or raised, beside the work inside; its error goes before one of the work."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    found = pool.submit(function)
    pool.shutdown(wait=False)
    try:
        yield found
    except LoramergeError:
        found.result()
        raise


def unrecorded(session: Session, work: Prepared, target: Path) -> Mapping[str, Any] | None:
    """The report of a result in `target` that came of this very work and is not in the lock; None for all else.

    A folder appears whole, so this is what is left of a process that died before it could record it.
    """
    path = session.workspace.relative(target)
    if not target.exists() or path in (entry.path for entry in session.workspace.entries()):
        return None
    try:
        found = read_record(target)
    except BadConfig:
        return None
    lineage = to_json(lineage_of(work))
    same = to_json(found.lineage) == lineage and finite(found.recipe) == finite(to_mapping(work.recipe))
    return found.report if same else None


def record(session: Session, target: Path) -> str:
    """Put a result into the lock under its folder's name; returns the name."""
    adapter = open_adapter(target)
    entry = Entry(
        name=target.name,
        role="result",
        files=pin(target, contents(target)),
        path=session.workspace.relative(target),
        format=adapter.format,
        base=plain(adapter.base or ""),
        rank=adapter.rank,
        modules=len(adapter.modules),
        size=adapter.nbytes,
    )
    return session.workspace.add(entry, replace_other=True).name


def contents(folder: Path) -> list[str]:
    """All files of a result, relative to its folder."""
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def versions(*more: str) -> dict[str, str]:
    """What a result's numbers can depend on, and the versions of `more` packages."""
    names = ("torch", "numpy", "scikit-learn", "safetensors", *more)
    return {"loramerge": __version__, **{name: metadata.version(name) for name in names}}


def lineage_of(work: Prepared) -> Lineage:
    """The record of a merge: what went in, every file hashed now, and all options as they were used."""
    weights = work.base_weights
    return Lineage(
        method=work.recipe.method,
        options=dump(work.options),
        parents=_parents(work),
        rank=work.recipe.rank,
        weights=work.recipe.weights,
        seed=work.recipe.seed,
        base=work.base,
        base_files=pin(weights.folder, weights.files) if weights else (),
        statistics=pin(work.root, work.recipe.files),
        versions=versions(),
    )


def _parents(work: Prepared) -> tuple[Parent, ...]:
    """The record of each adapter, so many hashed at once as modules are merged at once."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(work.plan.workers) as pool:
        return tuple(pool.map(Opened.parent, work.opened, work.weights))


def outline_of(work: Prepared, extras: Extras) -> Outline:
    """What is going to be written, known from headers."""
    return Outline(
        modules=[job.spec for job in work.plan.jobs],
        base=work.base,
        extras=extras.kept,
        config=_config(work.adapters, extras),
        pad_rank=work.plan.rank if work.recipe.profile == "vllm" else None,
    )


def _config(adapters: Sequence[Adapter], extras: Extras) -> dict[str, Any]:
    first = adapters[0].config
    same = {
        name: first[name]
        for name in _CARRIED
        if name in first and all(adapter.config.get(name) == first[name] for adapter in adapters)
    }
    saved = [name for adapter in adapters for name in adapter.config.get("modules_to_save") or ()]
    return {**same, "modules_to_save": list(dict.fromkeys(saved))}


def _updates(
    session: Session, work: Prepared, modules: dict[str, Any], hashing: Future[Lineage]
) -> Iterator[tuple[str, LowRank]]:
    from loramerge.engine.run import run

    total = len(work.plan.jobs)
    for number, done in enumerate(run(work.plan, work.inputs), 1):
        if hashing.done():
            hashing.result()  # a file that is not what it was: the rest of the work would be for nothing
        modules[done.module] = done.report
        session.progress(work.recipe.method, number, total, "modules")
        yield done.module, done.delta


def extras_of(work: Prepared) -> Extras:
    """What the result carries beside updates; of adapters that count for nothing only what is asked for by name."""
    from loramerge.engine.extras import merge_extras

    policy, shares = work.recipe.extras, work.shares
    counted = [at for at, one in enumerate(work.adapters) if shares[at] != 0 or policy == f"first:{one.name}"]
    found = merge_extras([work.adapters[at] for at in counted], [shares[at] for at in counted], policy)
    left_out = [one.name for at, one in enumerate(work.adapters) if at not in counted and one.extras]
    them = "it counts" if len(left_out) == 1 else "they count"
    said = (f"the extras of {', '.join(left_out)} left out: {them} for nothing",) if left_out else ()
    return replace(found, notes=(*found.notes, *said))


def _write_adapter(folder: Path, outline: Outline, updates: Iterator[tuple[str, LowRank]]) -> None:
    write_peft = FORMATS["peft"].write
    assert write_peft is not None
    write_peft(folder, outline, updates)


def _write_heads(folder: Path, extras: Extras) -> None:
    from loramerge.formats._stream import write_stream

    for name, sources in extras.heads.items():
        (folder / "heads").mkdir(exist_ok=True)
        bounds = {spec.key: (spec.dtype, spec.shape) for spec, _ in sources}
        write_stream(folder / "heads" / f"{name}.safetensors", bounds, ((spec.key, load()) for spec, load in sources))


def _check(folder: Path, outline: Outline) -> None:
    """Read the result back: what was written must be what was planned."""
    adapter = open_adapter(folder)
    planned = {spec.name: spec.shape for spec in outline.modules}
    assert {name: spec.shape for name, spec in adapter.modules.items()} == planned, "the result reads back differently"
