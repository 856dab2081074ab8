"""Text as batches of tokens.

A batch has lines of one length, so there is no padding: nothing has to be masked, and a layer that sees
tokens without their places (an expert of a bank) sees only real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.errors import FormatError, NotFound

if TYPE_CHECKING:
    from torch import Tensor

Line = dict[str, list[int]]
"""What a tokenizer makes of one line: input_ids, attention_mask and, for some models, token_type_ids."""

_AT_ONCE = 256
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Batches:
    """Lines sorted by length, in lots of one length. `cut` counts those that were longer than `max_length`."""

    lots: tuple[tuple[Line, ...], ...]
    lines: int
    tokens: int
    cut: int
    max_length: int

    def __len__(self) -> int:
        return len(self.lots)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """One dictionary of tensors (lines, tokens) for each lot."""
        import torch

        for lot in self.lots:
            yield {name: torch.tensor([line[name] for line in lot]) for name in lot[0]}


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text that are not blank, as they are read. Raises NotFound and FormatError."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in file if line.strip())
    except UnicodeDecodeError as error:
        raise FormatError(f"The text is not UTF-8 (byte {error.start:,}).", where=str(path)) from None
    except FileNotFoundError:
        raise NotFound("There is no such text.", where=str(path), hint="--text FILE, one example a line") from None
    except OSError as error:
        raise FormatError(f"The text cannot be read: {error.strerror}.", where=str(path)) from None


def check_text(path: Path) -> None:
    """Raises as `read_lines`, and FormatError for a text without a line; reads no more than one."""
    if next(read_lines(path), None) is None:
        raise FormatError("The text is empty.", where=str(path), hint="one example a line")


def tokenized(
    tokenizer: Any, lines: Iterable[str], *, batch_size: int, max_length: int, max_tokens: int | None = None
) -> Batches:
    """Lines as batches of at most `batch_size`, each line cut to `max_length` tokens.

    Takes lines from the beginning while they have no more than `max_tokens` together, and at least one.
    Raises FormatError where no line has a token.
    """
    kept: list[Line] = []
    total = cut = 0
    for line, whole in _encoded(tokenizer, lines, max_length):
        size = len(line["input_ids"])
        if kept and max_tokens is not None and total + size > max_tokens:
            break
        kept.append(line)
        total += size
        cut += whole > size
    if not kept:
        raise FormatError("The tokenizer makes no token of the text.", hint="another text, or the base's own tokenizer")
    return Batches(tuple(_lots(kept, batch_size)), len(kept), total, cut, max_length)


def _encoded(tokenizer: Any, lines: Iterable[str], max_length: int) -> Iterator[tuple[Line, int]]:
    """What each line is cut to, and the number of its tokens before; lines without a token are left out."""
    source = iter(lines)
    while some := list(islice(source, _AT_ONCE)):
        found = tokenizer(some, truncation=True, max_length=max_length)
        whole = [len(ids) for ids in tokenizer(some, truncation=False, verbose=False)["input_ids"]]
        names = [name for name in _INPUTS if name in found]
        for size, *values in zip(whole, *(found[name] for name in names), strict=True):
            if values[0]:
                yield dict(zip(names, values, strict=True)), size


def _lots(lines: list[Line], size: int) -> Iterator[tuple[Line, ...]]:
    def length(line: Line) -> int:
        return len(line["input_ids"])

    for _, same in groupby(sorted(lines, key=length), key=length):
        while lot := tuple(islice(same, size)):
            yield lot
