"""Triton's kernels: `shrink` (h = x Aᵀ), `expand` (y += scale · h B) and `base_plus_lora` (both with the base's GEMM).

Rows are cut into tiles that never span two updates; ranks may differ; rows without an adapter have no tile.
No atomics: how the sum over the inputs is split depends on their number alone, so the same call gives the same bits
and a row's bits do not depend on the other rows of a call with the same pack. Imported only where Triton computes.
"""
