"""The backbone's matrix products, by the faster of torch's two CPU libraries.

torch multiplies float32 matrices on the CPU with MKL, which uses only the 256-bit instructions of an AMD processor;
oneDNN, which torch carries too, uses the 512-bit ones and takes half the time (docs/decisions/008). `Linear` asks
oneDNN for all three products of a layer where that was measured to pay, and is `nn.Linear` everywhere else.

Letters: B rows, I inputs, O outputs.
"""

import functools
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_library = torch.library.Library("argmax_harness", "DEF")  # type: ignore[no-untyped-call]
_library.define("linear(Tensor x_BI, Tensor weight_OI, Tensor? bias_O) -> Tensor")  # type: ignore[no-untyped-call]


@torch.library.impl(_library, "linear", "CPU")
def _onednn_linear(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return x Wᵀ + b in full float32. Operands may be transposed views: nothing is copied."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.default(x_BI, weight_OI, bias_O, "none", [], ""))


@torch.library.impl(_library, "linear", "Meta")
def _shape_of_linear(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    return x_BI.new_empty(x_BI.shape[0], weight_OI.shape[0])


@functools.cache
def onednn_is_faster() -> bool:
    """Return whether this is an AMD processor with AVX-512 and torch has oneDNN: where MKL holds back."""
    cpuinfo = Path("/proc/cpuinfo")
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and cpuinfo.exists()
        and "AuthenticAMD" in cpuinfo.read_text()
    )


class _Product(torch.autograd.Function):
    """x Wᵀ + b. The backward pass is made of the same products, so second derivatives (REBAR, RELAX) are right."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_BI, weight_OI)
        return cast(Tensor, torch.ops.argmax_harness.linear.default(x_BI, weight_OI, bias_O))

    @staticmethod
    def backward(ctx: Any, grad_BO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_BI, weight_OI = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            _Product.apply(grad_BO, weight_OI.T, None) if for_x else None,
            _Product.apply(grad_BO.T, x_BI.T, None) if for_weight else None,
            grad_BO.sum(0) if for_bias else None,
        )


@final
class Linear(nn.Linear):
    """`nn.Linear`, with the same parameters and the same initial values."""

    def forward(self, x_xI: Tensor) -> Tensor:
        """Return x Wᵀ + b, (…, I) → (…, O)."""
        if not (x_xI.device.type == "cpu" and x_xI.dtype == torch.float32 and x_xI.numel() and onednn_is_faster()):
            return F.linear(x_xI, self.weight, self.bias)
        y_BO: Tensor = _Product.apply(x_xI.reshape(-1, self.in_features), self.weight, self.bias)
        return y_BO.view(*x_xI.shape[:-1], self.out_features)
