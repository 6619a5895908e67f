"""A classifier with one hard choice: a gate sends each image to one of several small experts.

Letters: S samples, B examples, K experts, C classes of images, H hidden units of an expert.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.base import Cost, check_count
from harness.config import DataConfig
from harness.measures import Measure
from harness.tasks.arguments import check_weight
from harness.tasks.images import labelled_images
from harness.tasks.splits import Batch, Splits
from harness.tasks.task import LAYER, OneLayerTask


@final
class GatedExperts(OneLayerTask):
    """Gated experts: a classifier that sends each image to one expert.

    logits = gate(x), linear; the cost of expert k is the cross-entropy of its class logits, and a soft code mixes the
    class logits of the experts, Σ_k z_k · expert_k(x), before the cross-entropy. All experts run on every image of a
    batch, once, so that a further code costs next to nothing. The penalty balances the load,
    weight · K · Σ_k f_k p_k(x), f_k being the share of the batch whose most probable expert is k, without a gradient:
    its mean over a batch is that of Switch, 1 times the weight if all experts are used alike, and at most K times.

    Reference   Shazeer et al. (2017), "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts
                Layer", arXiv:1701.06538; one hard choice, and the penalty: Fedus, Zoph, Shazeer (2022), "Switch
                Transformers", arXiv:2101.03961, section 2.1, and section 2.2, eq. (4).
    Departures  one layer, and a classifier of whole images; the code is drawn, without noise added to the gate, and
                evaluated at the most probable expert; the output of the chosen expert is not scaled by its probability,
                which is how the gate of Switch gets its gradient: here the estimator gives it. No expert is full.

    n_experts  K
    hidden     ReLU units of each expert
    balance    weight of the penalty, 0 for none
    """

    name = "gated_experts"
    reference = (
        'Shazeer et al. (2017), "The Sparsely-Gated Mixture-of-Experts Layer", arXiv:1701.06538; Fedus, Zoph, Shazeer'
        ' (2022), "Switch Transformers", arXiv:2101.03961, §§2.1, 2.2'
    )
    measures = (
        Measure("accuracy", "accuracy of the most probable expert", better="higher", band=0.005),
        Measure("busiest", "share of the busiest expert"),
    )
    measured_on = "mode"
    terms = ("cross_entropy", "balance")
    uses_images = takes_outputs = True

    def __init__(self, *, n_experts: int = 8, hidden: int = 8, balance: float = 0.1) -> None:
        """Raise ValueError for impossible arguments."""
        super().__init__()
        self.n_latents, self.n_categories = 1, check_count(self.name, "n_experts", n_experts, at_least=2)
        self.hidden = check_count(self.name, "hidden", hidden)
        self.balance = check_weight(self.name, "balance", balance)

    def data(self, config: DataConfig | None) -> Splits:
        """Return images and their labels."""
        return labelled_images(config, self.name)

    def build(self, splits: Splits, n_outputs: Mapping[str, int]) -> None:
        """Make the gate and the experts."""
        n_pixels = splits.train[0].shape[-1]
        labelled = [splits.train, splits.test, *([] if splits.validation is None else [splits.validation])]
        n_classes = 1 + max(int(split[1].max()) for split in labelled)
        self.gate = nn.Linear(n_pixels, n_outputs[LAYER])
        self.first = nn.Linear(n_pixels, self.n_categories * self.hidden)
        limit = self.hidden**-0.5
        self.second_KHC = nn.Parameter(torch.empty(self.n_categories, self.hidden, n_classes).uniform_(-limit, limit))
        self.bias_KC = nn.Parameter(torch.empty(self.n_categories, n_classes).uniform_(-limit, limit))

    def logits(self, batch: Batch) -> Tensor:
        """Return the gate's logits (B, 1, H)."""
        logits_BH: Tensor = self.gate(batch[0])
        return logits_BH.unsqueeze(1)

    def cost(self, batch: Batch) -> Cost:
        """Return the cross-entropy, in nats, of the experts' class logits, mixed by the code."""
        logits_BKC, label_B = self.experts(batch[0]), batch[1]

        def cost(z_SBLK: Tensor) -> Tensor:
            mixed_SBC = torch.einsum("sbk,bkc->sbc", z_SBLK.squeeze(-2), logits_BKC)
            index_SB1 = label_B.expand(len(z_SBLK), -1).unsqueeze(-1)
            return -F.log_softmax(mixed_SBC, -1).gather(-1, index_SB1).squeeze(-1)

        return cost

    def experts(self, x_BD: Tensor) -> Tensor:
        """Return the class logits (B, K, C) of all experts."""
        hidden_BKH = self.first(x_BD).relu().unflatten(-1, (self.n_categories, self.hidden))
        return torch.einsum("bkh,khc->bkc", hidden_BKH, self.second_KHC) + self.bias_KC

    def penalty(self, batch: Batch, logits_BLK: Tensor) -> Tensor:
        """Return the load balance, (B,)."""
        probs_BK = logits_BLK.squeeze(1).softmax(-1)
        share_K = F.one_hot(probs_BK.argmax(-1), self.n_categories).to(probs_BK.dtype).mean(0)
        return self.balance * self.n_categories * (probs_BK * share_K).sum(-1)

    def measure(self, batch: Batch, z_BLK: Tensor) -> dict[str, Tensor]:
        """Return whether the chosen expert is right, and the share of the batch that the busiest one gets."""
        z_BK = z_BLK.squeeze(1)
        class_B = torch.einsum("bk,bkc->bc", z_BK, self.experts(batch[0])).argmax(-1)
        return {"accuracy": class_B == batch[1], "busiest": z_BK.mean(0).max()}
