"""Which implementation computes: one table, by device, dtype, rows and rank.

The environment's LORAMERGE_KERNELS (torch, triton or reference) overrides the table, and an argument overrides both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, cast, get_args

from loramerge.errors import BadOption, MissingExtra

if TYPE_CHECKING:
    from torch import dtype

Backend = Literal["torch", "triton", "reference"]


@dataclass(frozen=True)
class Rule:
    """Where a backend is taken: device, dtypes, at least so many rows, at most such a rank."""

    backend: Backend
    device: str
    dtypes: frozenset[str]
    min_rows: int = 0
    max_rank: int = 1 << 30


_TRITONS = frozenset({"float16", "bfloat16", "float32"})
# The first that fits. Of very large ranks each tile would sum over many blocks of units; those are cuBLAS's.
TABLE = (Rule("triton", "cuda", _TRITONS, max_rank=512),)

# Devices (torch's name of them) where `base_plus_lora` beats the library's product with shrink and expand behind it,
# and from how many rows on: it has to reach 0.9 of the library's speed. None has been measured, so it is off.
FUSED: dict[str, int] = {}


def backend(device: str, dtype: dtype, rows: int, rank: int, asked: Backend | None = None) -> Backend:
    """What computes for so many rows and updates of at most this rank: asked for, or by environment, or by `TABLE`.

    Raises BadOption for an unknown name or what Triton does not compute, MissingExtra where Triton is asked for and not
    installed.
    """
    name = asked or os.environ.get("LORAMERGE_KERNELS") or _by_table(device, dtype, rows, rank)
    if name not in get_args(Backend):
        raise BadOption(f"There are no kernels called {name!r}.", hint=f"One of {', '.join(get_args(Backend))}.")
    if name == "triton":
        _check_triton(device, dtype)
    return cast("Backend", name)


def fuses(device: str, dtype: dtype, rows: int, rank: int, asked: bool | None = None) -> bool:
    """Whether the base's product and the updates are one kernel: asked for, or LORAMERGE_FUSED=1, or by `FUSED`.

    `device` is the device's name (`torch.cuda.get_device_name`, or cpu). Raises as `backend` where it is asked for.
    """
    if asked is None:
        said = os.environ.get("LORAMERGE_FUSED")
        asked = rows >= FUSED.get(device, rows + 1) if said is None else said == "1"
    if not asked or not rank:
        return False
    _check_triton(device, dtype)
    return True


def _check_triton(device: str, dtype: dtype) -> None:
    if not has_triton():
        raise MissingExtra("Triton is not installed.", hint="pip install 'loramerge[triton]'")
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise BadOption("Triton computes on GPUs.", hint="Take torch here; TRITON_INTERPRET=1 is for tests.")
    if str(dtype).removeprefix("torch.") not in _TRITONS:
        raise BadOption(f"Triton's kernels do not compute in {dtype}.", hint=f"One of {', '.join(sorted(_TRITONS))}.")


def _by_table(device: str, dtype: dtype, rows: int, rank: int) -> Backend:
    for rule in TABLE:
        fits = rule.device == device and rows >= rule.min_rows and rank <= rule.max_rank
        if fits and str(dtype).removeprefix("torch.") in rule.dtypes:
            return rule.backend if rule.backend != "triton" or has_triton() else "torch"
    return "torch"


@cache
def has_triton() -> bool:
    """Whether Triton can be imported."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
