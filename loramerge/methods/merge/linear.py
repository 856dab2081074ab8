"""linear: the exact weighted sum of the updates.

    ΔW = Σ wᵢ ΔWᵢ,   ΔWᵢ = sᵢ Bᵢ Aᵢ

The factors are put side by side, [w₁s₁B₁ … wₙsₙBₙ] · [A₁; …; Aₙ], and the sum is cut to the rank asked
for afterwards, optimally (`--rank sum` keeps it whole). A's and B's are never averaged by themselves:
(Σ wB)(Σ wA) has cross terms BᵢAⱼ that belong to no adapter. Weights are 1/n each unless said.
LoRA's own biases (`lora_bias`) are summed alike: Σ wᵢ sᵢ biasᵢ.

Gauge: depends on the updates alone. Cost: that of the truncation; where Σ rᵢ reaches min(out, in), one
update is held at a time.

Source: task arithmetic, Ilharco et al. 2022, https://arxiv.org/abs/2212.04089, on updates as they are.
"""

from __future__ import annotations

from loramerge.methods._method import Method
from loramerge.methods._weighing import NoOptions, as_given

METHOD = Method(as_given, NoOptions, source="https://arxiv.org/abs/2212.04089", on="coefficients", copies=0)
