"""The backbone's matrix products, with the faster of torch's two CPU libraries.

Torch multiplies float32 matrices on the CPU with MKL, which uses only the 256-bit instructions of an AMD processor;
oneDNN, also part of torch, uses the 512-bit ones and takes half the time (docs/decisions/008). `LinearLayer` uses it
for all three products of a layer where that was measured to be faster, and is `nn.Linear` everywhere else.

Letters: B rows, I inputs, O outputs.
"""

from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Precision = Literal["float32", "tf32", "bfloat16"]

_library = torch.library.Library("argmax_harness", "DEF")  # type: ignore[no-untyped-call]
_library.define("linear(Tensor x_BI, Tensor weight_OI, Tensor? bias_O, str activation) -> Tensor")  # type: ignore[no-untyped-call]


@torch.library.impl(_library, "linear", "CPU")
def _onednn_linear(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, activation: str) -> Tensor:
    """Return x Wᵀ + b, or its "relu", in full float32. Operands may be transposed views."""
    y_BO: Tensor = torch.ops.mkldnn._linear_pointwise.default(x_BI, weight_OI, bias_O, "none", [], "")
    return y_BO.relu_() if activation == "relu" else y_BO  # oneDNN's own ReLU turns NaN into 0, and hides a divergence


@torch.library.impl(_library, "linear", "Meta")
def _shape_of_linear(x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, activation: str) -> Tensor:
    return x_BI.new_empty(x_BI.shape[0], weight_OI.shape[0])


def _onednn_is_faster() -> bool:
    """Return whether this is an AMD processor with AVX-512, on which MKL is slow, and torch has oneDNN."""
    cpuinfo = Path("/proc/cpuinfo")
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and cpuinfo.exists()
        and "AuthenticAMD" in cpuinfo.read_text()
    )


ONEDNN_IS_FASTER = _onednn_is_faster()


class _Product(torch.autograd.Function):
    """x Wᵀ + b, or its "relu". Backward is made of the same products: second derivatives (REBAR, RELAX) are right."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, activation: str) -> Tensor:
        y_BO: Tensor = torch.ops.argmax_harness.linear.default(x_BI, weight_OI, bias_O, activation)
        ctx.save_for_backward(x_BI, weight_OI, y_BO if activation == "relu" else None)
        return y_BO

    @staticmethod
    def backward(ctx: Any, grad_BO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x_BI, weight_OI, y_BO = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        if y_BO is not None:
            grad_BO = torch.ops.aten.threshold_backward.default(grad_BO, y_BO, 0)
        return (
            _Product.apply(grad_BO, weight_OI.T, None, "none") if for_x else None,
            _Product.apply(grad_BO.T, x_BI.T, None, "none") if for_weight else None,
            grad_BO.sum(0) if for_bias else None,
            None,
        )


@final
class LinearLayer(nn.Linear):
    """`nn.Linear`, with the same parameters and the same initial values; followed by a ReLU if so asked.

    With precision "bfloat16" the three products are of operands rounded to bfloat16, which processors with AVX512-BF16
    and all recent GPUs multiply at twice the speed or more; parameters and results stay as they are.
    "tf32" is a setting of the device, which `harness.training.state.start` makes.
    """

    def __init__(self, n_in: int, n_out: int, *, relu: bool = False, precision: Precision = "float32") -> None:
        super().__init__(n_in, n_out)
        self.relu, self.precision = relu, precision

    def forward(self, x_xI: Tensor) -> Tensor:
        """Return x Wᵀ + b or its positive part, (…, I) → (…, O)."""
        if self.precision == "bfloat16":
            operands = (x_xI.bfloat16(), self.weight.bfloat16(), self.bias.bfloat16())
            y_xO = F.linear(*operands).to(x_xI.dtype)
            return y_xO.relu() if self.relu else y_xO
        if not (x_xI.device.type == "cpu" and x_xI.dtype == torch.float32 and x_xI.numel() and ONEDNN_IS_FASTER):
            y_xO = F.linear(x_xI, self.weight, self.bias)
            return y_xO.relu() if self.relu else y_xO
        activation = "relu" if self.relu else "none"
        y_BO: Tensor = _Product.apply(x_xI.reshape(-1, self.in_features), self.weight, self.bias, activation)
        return y_BO.view(*x_xI.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}, precision={self.precision}"
