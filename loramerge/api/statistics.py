"""Statistics of a base's modules over a text, for methods that need data."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.api import basing
from loramerge.api.opening import open_ref
from loramerge.api.units import write_copy
from loramerge.errors import BadOption
from loramerge.workspace.tables import check_output

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.models.model import Model
    from loramerge.models.text import Batches
    from loramerge.training.statistics import Measurement

OUT = Path("stats.safetensors")


@dataclass(frozen=True)
class Collected:
    """What was measured: the file, over which text, of how many modules; and remarks."""

    path: Path
    base: str
    adapter: str | None
    modules: int
    lines: int
    tokens: int
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """All but the remarks."""
        return {name: value for name, value in vars(self).items() if name != "notes"}


def stats(
    session: Session,
    ref: str | None = None,
    *,
    base: str,
    text: Path,
    out: Path = OUT,
    like: str | None = None,
    modules: Sequence[str] = (),
    fisher: bool = False,
    max_tokens: int | None = None,
    max_length: int = 512,
    batch_size: int = 8,
    dtype: str = "F32",
    seed: int = 0,
    force: bool = False,
    allow_pickle: bool = False,
) -> Collected:
    """Run a base, with the adapter `ref` on it if there is one, over the lines of a text; write what was measured.

    `base` is a folder or a Hub repo. Measured are the modules of `ref`, of `like` (whose update stays
    out), or all linear layers, and of those what one of the patterns `modules` takes. Lines are cut to
    `max_length` tokens, or to what the model takes; `max_tokens` ends the text earlier.
    Raises OutputExists before any work; BadOption, NotFound, FormatError and IncompatibleError for what
    does not go together; leaves nothing behind then.
    """
    from loramerge.engine.executors import one_thread
    from loramerge.engine.plan import resolve_device
    from loramerge.models.model import open_model
    from loramerge.models.text import check_text
    from loramerge.training.choose import choose
    from loramerge.training.statistics import Measurement, check_likelihood

    source, target = (session.workspace.root / path.expanduser() for path in (text, out))
    _check(ref, like, modules, target, force)
    check_text(source)
    device = resolve_device(session.device)
    sizes: dict[str, Any] = {"max_tokens": max_tokens, "max_length": max_length, "batch_size": batch_size}
    with one_thread(), _examples(session, ref, like, allow_pickle) as (adapter, applied):
        folder, known = basing.folder(session, base)
        model = open_model(folder, adapter, applied=applied, dtype=dtype, seed=seed)
        if fisher:
            check_likelihood(model)
        batches, chosen = _batches(model, source, **sizes), choose(model, adapter, modules)
        work = Measurement(model, batches, chosen, fisher, seed, device)
        name = adapter.name if adapter and applied else None
        base_name = (adapter.base if adapter else None) or known
        _write(session, target, work, base_name, name)
    measured = len({module for _, module in work.shapes})
    return Collected(target, base_name, name, measured, batches.lines, batches.tokens, tuple(_notes(work)))


def _batches(model: Model, source: Path, *, max_length: int, **sizes: Any) -> Batches:
    """The text in lots that the model takes."""
    from loramerge.models.text import read_lines, tokenized

    return tokenized(model.tokenizer, read_lines(source), max_length=min(max_length, model.longest), **sizes)


def _write(session: Session, target: Path, work: Measurement, base: str, adapter: str | None) -> None:
    """Raises BadOption, before the text is read, where there is nothing to measure."""
    from loramerge.formats._statistics import write_statistics

    if not work.shapes:
        raise BadOption("None of the modules has statistics.", hint="--fisher, for an embedding")

    def told(done: int, total: int) -> None:
        session.progress("stats", done, total, "batches")

    found = work.collect(session.max_memory, told)
    write_statistics(target, work.shapes, found, base=base, adapter=adapter, tokens=work.batches.tokens)


def _check(ref: str | None, like: str | None, modules: Sequence[str], target: Path, force: bool) -> None:
    """Raises, before the work, for options that contradict each other and for an output that is there."""
    if ref and like:
        raise BadOption("REF has modules of its own, so --like does not apply.", hint="REF or --like, not both")
    if not (ref or like or modules):
        raise BadOption("Which modules are to be measured?", hint="REF, --like REF, or --modules '*.q_proj'")
    check_output(target, force)


@contextmanager
def _examples(
    session: Session, ref: str | None, like: str | None, allow_pickle: bool
) -> Iterator[tuple[Adapter | None, Path | None]]:
    """The adapter that is meant, and for `ref` a copy of it: in PEFT's format, whatever its own is, and no pickle."""
    meant = ref or like
    if meant is None:
        yield None, None
        return
    opened = open_ref(session, meant, allow_pickle=allow_pickle)
    opened.verify()
    if ref is None:
        yield opened.adapter, None
        return
    with tempfile.TemporaryDirectory(prefix="loramerge-") as folder:
        write_copy(Path(folder), _headless(opened.adapter))
        yield opened.adapter, Path(folder)


def _headless(adapter: Adapter) -> Adapter:
    """An adapter that has no head says so: PEFT looks for one wherever the config names a task that has."""
    if any(spec.kind == "saved" for spec in adapter.extras.values()):
        return adapter
    return replace(adapter, config={**adapter.config, "task_type": None, "modules_to_save": None})


def _notes(work: Measurement) -> Iterator[str]:
    """What a reader of the result should know."""
    model, cut = work.model, work.batches.cut
    if model.untrained:
        yield f"Random, for they are in neither base nor adapter: {', '.join(model.untrained)}."
    if cut:
        yield f"{cut:,} lines were cut to {work.batches.max_length:,} tokens."
    for names, what in (
        ([name for name in work.modules if ("grams", name) not in work.shapes], "no Gram matrix is made of"),
        (work.unused, "nothing was given to"),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            yield f"{what[0].upper()}{what[1:]} {', '.join(names[:5])}{more}."
