"""Gradient quality during training: a basket of estimators at the run's own parameters, on a fixed probe batch.

All noise comes from a stream of its own, and estimators are copied before they are used: training gives the same bits
with and without diagnostics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from estimators import Estimator, build
from harness import process_state
from harness.bounded_names import OWN
from harness.config import DiagnosticsConfig, RunConfig
from harness.gradients import draws
from harness.gradients.comparison import measure
from harness.gradients.gradient_problem import GradientProblem
from harness.tasks.fit import reason_to_skip
from harness.tasks.splits import Batch, Splits
from harness.tasks.task import LayerProblem, Task
from harness.training import seeding
from harness.training.state import State

PROBE, PROBLEMS = 2, 3  # indices of the stream "diagnostics" of a seed; `harness.gradients.comparison` has 0 and 1


class Diagnostics:
    """The probe batch of a run, measured after an epoch."""

    def __init__(self, run: RunConfig, settings: DiagnosticsConfig, registry: Mapping[str, type[Estimator]]) -> None:
        self._run, self._settings, self._registry = run, settings, registry

    def due(self, epoch: int) -> bool:
        """Return whether to measure after this epoch: every `every`-th, the first and the last."""
        return epoch % self._settings.every == 0 or epoch in (1, self._run.training.epochs)

    def metrics(self, state: State) -> dict[str, float]:
        """Return `gradient/<estimator>/<metric>` on the logits, and `…/encoder/<metric>` on the parameters behind them.

        `gradient/truth_error` is 0 where the truth is exact, else its standard error relative to its norm. Undefined
        values, such as the cosine of pure noise, are left out. With several layers, names are `gradient/<layer>.<…>`.
        """
        batch, found = self._probe(state.splits), dict[str, float]()
        copies = {layer: copy.deepcopy(estimator).eval() for layer, estimator in state.estimators.items()}
        state.task.eval()  # the probe batch must not change running state; training sets its own mode
        with seeding.seeded(self._run.seed, "diagnostics", PROBLEMS, device=torch.device(self._run.device)):
            problems = state.task.gradient_problems(batch, copies)
        for layer, problem in problems.items():
            prefix = f"gradient/{layer}." if len(problems) > 1 else "gradient/"
            shape, kind = state.task.layers()[layer], type(state.task)
            basket = self._basket(state.estimators[layer], problem.logits_BLH.device)
            fitting = {name: one for name, one in basket.items() if not reason_to_skip(kind, one, [shape])}
            numbers = self._measured(state.task, problem, fitting)
            found |= {f"{prefix}{name}": value for name, value in numbers.items() if math.isfinite(value)}
        return found

    def _measured(self, task: Task, layer: LayerProblem, basket: Mapping[str, Estimator]) -> dict[str, float]:
        """Return the metrics of one layer, and the error of its truth. A noisy cost cannot be enumerated."""
        leaf = layer.logits_BLH
        problem = GradientProblem(leaf.detach(), layer.cost, layer.n_categories, layer.context_BX, layer.code_costs)
        rows, about = measure(
            problem,
            basket,
            self._settings.resamples,
            0 if layer.is_noisy else self._settings.max_codes,
            self._run.seed,
            projections={"": draws.scaled, "encoder": lambda blocks: to_parameters(blocks, leaf, task)},
            trained={OWN},
        )
        found = {f"{label}/{name}": value for label, row in rows.items() for name, value in row.items()}
        found["truth_error"] = about.error
        return {name: float(value) for name, value in found.items() if not isinstance(value, str)}

    def _probe(self, splits: Splits) -> Batch:
        """Return the first training examples, made once even if they are made anew in every epoch."""
        device = torch.device(self._run.device)
        index_B = torch.arange(min(self._settings.probe, splits.n_train), device=device)
        return splits.train_batch(index_B, seeding.generator(self._run.seed, "diagnostics", PROBE, device))

    def _basket(self, estimator: Estimator, device: torch.device) -> dict[str, Estimator]:
        """Return the run's own estimator, and the basket at the run's present temperatures unless it sets others."""
        found = {OWN: copy.deepcopy(estimator)}
        for entry, name in zip(self._settings.basket, self._settings.metric_names, strict=True):
            known = self._registry[entry.name].temperatures
            present = {key: float(getattr(estimator, key)) for key in estimator.temperatures if key in known}
            with process_state.preserved(), seeding.seeded(self._run.seed, "estimator", device=device):
                found[name] = build(entry.name, self._registry, **{**present, **entry.params})
        return found


def to_parameters(blocks_JBLH: Tensor, logits_BLH: Tensor, task: nn.Module) -> Tensor:
    """Return block means (J, P), on the CPU, of the gradient of the mean cost w.r.t. all that the logits depend on."""
    parameters = [one for one in task.parameters() if one.requires_grad]
    rows = []
    same = len(blocks_JBLH) > 1 and torch.equal(blocks_JBLH[0], blocks_JBLH[1])
    for block_BLH in blocks_JBLH[:1] if same else blocks_JBLH:
        upstream = block_BLH.to(logits_BLH) / len(logits_BLH)
        found = torch.autograd.grad(logits_BLH, parameters, upstream, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([gradient.flatten() for gradient in found if gradient is not None]).cpu())
    return torch.stack(rows).expand(len(blocks_JBLH), -1)
