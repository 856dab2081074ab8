"""Weights in torch's pickle format: only when allowed, and only tensors.

Unpickling runs what the file says. torch's weights_only reader takes nothing but tensors (and has had
no known hole since 2.6), so it is the only one used, without a fallback, after the zip container has
been looked through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from loramerge.errors import BadTensor, FormatError, UnsafePickle
from loramerge.formats._tensors import Entry, Header, check_name, check_shape, dtype_name, finite

if TYPE_CHECKING:
    from zipfile import ZipFile

    from torch import Tensor

MAX_BYTES = 8_000_000_000
_MAX_ENTRIES = 200_000
_MAX_PROGRAM = 50_000_000


def refuse_unless(allowed: bool, path: Path) -> None:
    """Raises UnsafePickle unless it was allowed."""
    if not allowed:
        raise UnsafePickle(
            f"{path.name} is a Python pickle, which can run code when it is read.",
            where=str(path),
            hint="--allow-pickle, if you trust who made it; better, ask for adapter_model.safetensors",
        )


def read_header(path: Path) -> Header:
    """The tensors in a file, described as a safetensors header would. Reads the file.

    Raises UnsafePickle for a container or content that no weights file has, BadTensor as for safetensors.
    """
    tensors: dict[str, Entry] = {}
    end = 0
    for name, tensor in _state(path).items():
        check_name(name, str(path))
        check_shape(name, tuple(tensor.shape), str(path))
        entry = Entry(_dtype(name, tensor, path), tuple(tensor.shape), end, end + tensor.nbytes)
        tensors[name], end = entry, entry.end
    return Header(tensors, {}, str(path))


def load(path: Path, name: str) -> Tensor:
    """One tensor, as stored; raises BadTensor where it holds NaN or infinity."""
    return finite(_state(path)[name], name, str(path))


def check_same_names(path: Path, names: Collection[str]) -> None:
    """Raises FormatError where a pickle beside safetensors does not name the same tensors. Runs nothing."""
    spelled = set(_texts(path))
    missing = [name for name in names if name not in spelled]
    surplus = [text for text in spelled if ".lora_" in text and text not in names]
    if missing or surplus:
        raise FormatError(
            f"{path.name} and the safetensors beside it do not hold the same tensors: {(missing + surplus)[0]}.",
            where=str(path),
            hint=f"remove {path.name}, if the safetensors are right",
        )


def _dtype(name: str, tensor: Tensor, path: Path) -> str:
    try:
        return dtype_name(tensor.dtype)
    except KeyError:
        raise BadTensor(f"{name} has a dtype that is not read: {tensor.dtype}.", where=str(path)) from None


def _state(path: Path) -> dict[str, Tensor]:
    stat = path.stat()
    return _load(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _load(path: str, size: int, changed: int) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU; kept, as they are asked for one by one."""
    import torch

    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < (2, 6):
        raise UnsafePickle("torch before 2.6 cannot read pickles safely.", where=path, hint="pip install -U torch")
    with _open(Path(path)):
        pass
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as failure:
        raise UnsafePickle(
            f"torch refuses the file: {str(failure).splitlines()[0]}", where=path, hint="ask for safetensors"
        ) from None
    tensors = isinstance(state, dict) and all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items())
    if not tensors:
        raise UnsafePickle("It holds something other than named tensors.", where=path, hint="ask for safetensors")
    return {name: tensor.detach().contiguous() for name, tensor in state.items()}


def _open(path: Path) -> ZipFile:
    """The container, after a look at its list; raises UnsafePickle for what torch.save does not write."""
    import zipfile  # most adapters are no pickles, and to look at one is to be quick

    size = path.stat().st_size
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError):
        raise UnsafePickle("It is not a zip file as torch writes it.", where=str(path)) from None
    entries = archive.infolist()
    odd = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED or not _plain(e.filename)]
    if odd or size > MAX_BYTES or len(entries) > _MAX_ENTRIES or sum(e.file_size for e in entries) > 4 * size:
        archive.close()
        what = f"it holds {odd[0][:80]!r}" if odd else "it is too large, or swells when unpacked"
        raise UnsafePickle(f"No weights file looks like this: {what}.", where=str(path))
    return archive


def _plain(name: str) -> bool:
    return (
        name.isprintable() and "\\" not in name and not name.startswith("/") and ".." not in PurePosixPath(name).parts
    )


def _texts(path: Path) -> Iterator[str]:
    """All texts in the pickle's program, read without running it."""
    import pickletools

    with _open(path) as archive:
        programs = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
        for entry in programs:
            if entry.file_size > _MAX_PROGRAM:
                raise UnsafePickle("Its pickle program is too long.", where=str(path))
            try:
                for opcode, argument, _ in pickletools.genops(archive.read(entry)):
                    if "UNICODE" in opcode.name:
                        yield str(argument)
            except ValueError:
                raise UnsafePickle("It is not a pickle.", where=str(path)) from None
