"""Tasks of a few numbers: a hard gate, two layers, and one without data."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from estimators import REGISTRY
from harness.config import RunConfig
from harness.grid.load import Grid, load_grid
from harness.measures import LOSS, Measure
from harness.plugins.registry import Registry
from harness.tasks import Loss, NoData, OneLayerTask, Splits, Task
from harness.tasks.registry import TASKS


class HardGate(OneLayerTask):
    """Classify points by one of K linear experts, which a gate without biases chooses."""

    name = "hard_gate"
    measures = (Measure("accuracy", better="higher"), Measure("busiest", "share of the busiest expert"))
    terms = ("cost", "balance")

    def __init__(self, *, n_experts: int = 3, hidden: tuple[int, ...] = (), balance: float = 0.0) -> None:
        super().__init__()
        if n_experts < 2:
            raise ValueError(f"n_experts: expected at least 2, got {n_experts}.")
        self.n_latents, self.n_categories, self.balance = 1, n_experts, balance
        sizes = (4, *hidden, n_experts)
        self.gate = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)))
        self.experts = nn.Linear(4, 2 * n_experts)

    def data(self, config: object) -> Splits:
        x_ND = torch.randn(60, 4)
        labels_N = ((x_ND[:, 0] > 0) ^ (x_ND[:, 1] > 0)).long()
        train, validation, test = zip(x_ND.split([32, 12, 16]), labels_N.split([32, 12, 16]), strict=True)
        return Splits(train=train, validation=validation, test=test)

    def logits(self, batch: Any) -> Tensor:
        return self.gate(batch[0]).unsqueeze(1)

    def class_logits(self, batch: Any) -> Tensor:
        """Return the logits (B, K, 2) of the classes by each expert."""
        return self.experts(batch[0]).view(len(batch[0]), -1, 2)

    def cost(self, batch: Any) -> Any:
        labels_BK = batch[1][:, None].expand(-1, self.n_categories)
        losses_BK = F.cross_entropy(self.class_logits(batch).transpose(1, 2), labels_BK, reduction="none")
        return lambda z_SBLK: (z_SBLK[:, :, 0] * losses_BK).sum(-1)

    def penalty(self, batch: Any, logits_BLK: Tensor) -> Tensor:
        """Return a scalar: how far the mean use of the experts is from even."""
        return self.balance * (self.n_categories * logits_BLK.softmax(-1).mean((0, 1)).square().sum() - 1)

    def measure(self, batch: Any, z_BLK: Tensor) -> dict[str, Tensor]:
        chosen_B2 = (self.class_logits(batch) * z_BLK[:, 0, :, None]).sum(1)
        return {"accuracy": chosen_B2.argmax(-1) == batch[1], "busiest": z_BLK.mean((0, 1)).max()}


class ModeGate(HardGate):
    """The same, judged on the likeliest expert."""

    name = "mode_gate"
    measured_on = "mode"


class OneHotGate(HardGate):
    """The same, with a cost that means nothing on soft codes."""

    name, needs_one_hot = "one_hot_gate", True


class BlackBoxGate(HardGate):
    """The same, with a cost that has no derivative in the code."""

    name, needs_one_hot, black_box = "black_box_gate", True, True


class TwoLayers(Task):
    """A chain of two layers of different sizes: E_z1 E_z2|z1 of a random table, with a trained first layer of x."""

    name = "two_layers"
    measures: ClassVar[tuple[Measure, ...]] = (LOSS,)
    shapes: ClassVar[Mapping[str, tuple[int, int]]] = {"outer": (2, 3), "inner": (1, 5)}

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.second, self.scale = nn.Linear(4, 6), nn.Linear(6, 5), scale
        self.register_buffer("table_JK", torch.linspace(-2, 2, 30).view(6, 5).sin())

    def layers(self) -> Mapping[str, tuple[int, int]]:
        return self.shapes

    def data(self, config: object) -> Splits:
        x_ND = torch.randn(40, 4)
        return Splits(train=x_ND[:24], validation=x_ND[24:32], test=x_ND[32:])

    def term_names(self) -> tuple[str, ...]:
        return ("cost",)

    def loss(self, batch: Any, estimators: Any) -> Loss:
        controls = []

        def outer_cost(z1_SBLK: Tensor) -> Tensor:
            flat = z1_SBLK.flatten(2).flatten(0, 1)
            context = batch.repeat(len(z1_SBLK), 1)
            inner = estimators["inner"](self.second(flat).unsqueeze(1), self.inner_cost(flat), context)
            controls.append(inner.control_loss)
            return inner.cost_B.view(z1_SBLK.shape[:2])

        outer = estimators["outer"](self.first(batch).view(-1, 2, 3), outer_cost, batch)
        found = [one for one in (outer.control_loss, *controls) if one is not None]
        return Loss({"cost": outer.cost_B}, sum(found) if found else None)

    def inner_cost(self, z1_BJ: Tensor) -> Any:
        weights_BK = self.scale * z1_BJ @ self.table_JK
        return lambda z2_SBLK: (z2_SBLK[:, :, 0] * weights_BK).sum(-1)

    def evaluate(self, batch: Any, draw: Any) -> dict[str, Tensor]:
        z1_SBLK = draw(self.first(batch).view(-1, 2, 3), "outer")
        flat = z1_SBLK.flatten(2).flatten(0, 1)
        z2_SBLK = draw(self.second(flat).unsqueeze(1), "inner", n_samples=1)
        return {"cost": self.inner_cost(flat)(z2_SBLK)[0].view(z1_SBLK.shape[:2]).mean(0)}


class Targets(OneLayerTask):
    """Optimise binary variables towards 0.45 each, without data."""

    name = "targets"
    measures: ClassVar[tuple[Measure, ...]] = (Measure("gap", "distance to the optimum", "cost", band=0.001),)

    def __init__(self, *, n_variables: int = 6, p: float = 2.0, steps: int = 4) -> None:
        super().__init__()
        self.n_latents, self.n_categories, self.p, self.steps = n_variables, 2, p, steps
        self.logits_LK = nn.Parameter(torch.empty(n_variables, 2).uniform_(-0.01, 0.01))

    def data(self, config: object) -> NoData:
        return NoData(steps_per_epoch=self.steps, n_test=3)

    def logits(self, batch: Any) -> Tensor:
        return self.logits_LK.expand(len(batch), -1, -1)

    def cost(self, batch: Any) -> Any:
        return lambda z_SBLK: (z_SBLK[..., 1] - 0.45).abs().pow(self.p).mean(-1)

    def measure(self, batch: Any, z_BLK: Tensor) -> dict[str, Tensor]:
        return {"gap": self.cost(batch)(z_BLK.unsqueeze(0))[0] - 0.45**self.p}


SMALL_TASKS = {cls.name: cls for cls in (HardGate, ModeGate, OneHotGate, BlackBoxGate, TwoLayers, Targets)}
SMALL_REGISTRY = Registry(REGISTRY, {**TASKS, **SMALL_TASKS})


def grid_of(text: str, registry: Registry = SMALL_REGISTRY) -> Grid:
    """The grid of a text, which came through a pipe; its name is `small`."""
    return load_grid(Path("grid.yaml"), registry, text + "\nname: small\n")


def run_of(task: str, estimator: str = "rloo", more: str = "", registry: Registry = SMALL_REGISTRY) -> RunConfig:
    """The first run of a grid with this task and estimator."""
    training = "" if "training:" in more else "training: {epochs: 3, batch_size: 10, lr: 0.05}\n"
    return grid_of(f"task: {task}\nestimators: [{estimator}]\nseeds: [0]\n{training}{more}", registry).runs[0]
