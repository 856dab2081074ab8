"""The kernels compile to machine code for GPUs of two generations; that needs Triton and no GPU."""

from __future__ import annotations

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from loramerge.kernels._triton import base_plus_lora, expand, shrink, tiles  # noqa: E402

pytestmark = pytest.mark.skipif(
    tiles.interprets(shrink._kernel), reason="TRITON_INTERPRET=1: what is interpreted is not compiled"
)
KERNELS = {
    "shrink": (shrink._kernel, tiles.GROUPED, {"CHUNK": 1024}),
    "expand": (expand._kernel, tiles.GROUPED, {"PARTS": 4, "RANK": 16}),
    "base_plus_lora": (base_plus_lora._kernel, tiles.FUSED, {"PARTS": 4, "RANK": 16, "INPUTS": 4096, "BIAS": True}),
}
KEPT = {"h": "*fp32", "table": "*i32", "scales": "*fp32"}
POINTERS = {"x", "a", "w", "bias", "y", "b", "y0", "y1", "y2", "b0", "b1", "b2"}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("capability", "dtype"), [(80, "bf16"), (90, "bf16"), (90, "fp32")])
def test_a_kernel_compiles_without_a_gpu(name, dtype, capability, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel, shapes, own = KERNELS[name]
    shape = shapes["cuda", 2 if dtype == "bf16" else 4]
    sides = {"M": shape.m, "N": shape.n, "K": shape.k, "R": 16, "COLUMNS": 7, "WIDTH": 16, "UP": False}
    constants = {key: value for key, value in {**sides, **own}.items() if key in kernel.arg_names}
    types = {
        key: "constexpr" if key in constants else KEPT.get(key) or (f"*{dtype}" if key in POINTERS else "i32")
        for key in kernel.arg_names
    }
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(kernel.arg_names) if types[key] != "constexpr"}

    made = triton.compile(
        ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options=shape.options,
    )

    products = "mma" if dtype == "bf16" else "fma.rn.f32"
    assert products in made.asm["ptx"]
    assert "tf32" not in made.asm["ptx"]
    assert "atom" not in made.asm["ptx"]
