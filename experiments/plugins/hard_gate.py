"""A worked example of a task (docs/your-own-model.md): a mixture of linear experts, of which a hard gate picks one."""

import torch
from torch import nn

from harness.tasks import Measure, OneLayerTask, Splits


class HardGate(OneLayerTask):
    """Regression by linear experts; a gate picks one of them for each example."""

    name = "hard_gate"
    measures = (Measure("error", "squared error"), Measure("best_expert", "share at the best expert", better="higher"))

    def __init__(self, *, n_experts: int = 4, n_features: int = 8):
        super().__init__()
        self.n_latents, self.n_categories = 1, n_experts  # one choice for each example
        self.gate = nn.Linear(n_features, n_experts)
        self.experts = nn.Linear(n_features, n_experts)  # expert k is its output k

    def data(self, config):
        sizes = 3000, self.n_categories, self.n_categories
        x_ND, regions_KD, slopes_KD = (torch.randn(size, self.gate.in_features) for size in sizes)
        y_N = (x_ND * slopes_KD[(x_ND @ regions_KD.T).argmax(-1)]).sum(-1)
        train, validation, test = zip(*(each.split([2000, 500, 500]) for each in (x_ND, y_N)), strict=True)
        return Splits(train=train, validation=validation, test=test)

    def logits(self, batch):
        return self.gate(batch[0]).unsqueeze(1)

    def errors(self, batch):
        return (self.experts(batch[0]) - batch[1].unsqueeze(-1)).square()  # (B, K): of every expert

    def cost(self, batch):
        return lambda z_SBLK: (z_SBLK.squeeze(2) * self.errors(batch)).sum(-1)

    def measure(self, batch, z_BLK):
        error_BK = self.errors(batch)
        chosen_B = (z_BLK.squeeze(1) * error_BK).sum(-1)
        return {"error": chosen_B, "best_expert": (chosen_B <= error_BK.amin(-1)).float()}
