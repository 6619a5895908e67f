"""Feature selection on synthetic data whose relevant features are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from estimators.arguments import check_count
from harness.measures import Measure
from harness.tasks.splits import Batch, Splits, n_examples
from harness.tasks.task import Cost, OneLayerTask

if TYPE_CHECKING:
    from harness.config import DataConfig

MIN_FEATURES = 10


class Law(NamedTuple):
    """A law of a binary label given features x (N, D), and which of them it depends on."""

    n_relevant: int
    logit: Callable[[Tensor], Tensor]
    """x_ND -> the log-odds of label 1, (N,)."""
    relevant: Callable[[Tensor], Tensor]
    """x_ND -> the features that the label of each example depends on, booleans (N, D)."""


def _xor(x_ND: Tensor) -> Tensor:
    return x_ND[:, 0] * x_ND[:, 1]


def _orange_skin(x_ND: Tensor) -> Tensor:
    return x_ND[:, :4].square().sum(-1) - 4


def _additive(x_ND: Tensor) -> Tensor:
    return -10 * torch.sin(0.2 * x_ND[:, 0]) + x_ND[:, 1].abs() + x_ND[:, 2] + torch.exp(-x_ND[:, 3]) - 2.4


def _switch(x_ND: Tensor) -> Tensor:
    return torch.where(x_ND[:, 9] > 0, _orange_skin(x_ND), _additive(x_ND[:, 4:]))


def _first(n: int) -> Callable[[Tensor], Tensor]:
    return lambda x_ND: (torch.arange(x_ND.shape[1], device=x_ND.device) < n).expand(x_ND.shape)


def _of_switch(x_ND: Tensor) -> Tensor:
    feature_D = torch.arange(x_ND.shape[1], device=x_ND.device)
    first_N1 = torch.where(x_ND[:, 9:10] > 0, 0, 4)
    return (feature_D >= first_N1) & (feature_D < first_N1 + 4) | (feature_D == 9)


LAWS: Mapping[str, Law] = MappingProxyType(
    {
        "xor": Law(2, _xor, _first(2)),
        "orange_skin": Law(4, _orange_skin, _first(4)),
        "additive": Law(4, _additive, _first(4)),
        "switch": Law(5, _switch, _of_switch),
    }
)


class FeatureSelection(OneLayerTask):
    """Feature selection: a few of many features, from which a network predicts a label.

    Minimises  E −log p(y | the selected features)  over the selectors and the network. Each of L selectors is a
    variable whose classes are the D features.
    per_example: false  one selection for all examples, whose logits are parameters; the network sees the L selected
                        numbers, as in a concrete autoencoder (Balın et al.)
    per_example: true   a second network makes the logits from the features of an example; the network sees all D
                        features, 0 in the place of those that no selector chose (Chen et al., L2X)
    Measures    of the most probable selection, on test data: the share of an example's relevant features that are
                selected, twice the same counted once; the expected cross-entropy less that of the true law, exactly,
                which is 0 at the optimum; the accuracy.
    Data        labels from the laws of Chen et al., of 10 or more standard normal features:
                xor          log-odds x₁x₂
                orange_skin  log-odds x₁² + x₂² + x₃² + x₄² − 4
                additive     log-odds −10 sin(0.2 x₁) + |x₂| + x₃ + exp(−x₄) − 2.4
                switch       x₁₀ has mean 3 or −3; orange_skin if it is positive, else additive of x₅ … x₈. The relevant
                             features depend on the example, so one selection of 5 for all recalls at most 0.6 of them.
                             One per example needs no x₁₀: which features are selected tells its sign, at recall 0.8.
    Reference   Balın, Abid, Zou (2019), "Concrete Autoencoders", arXiv:1901.09346; Chen, Song, Wainwright, Jordan
                (2018), "Learning to Explain", arXiv:1802.07814, section 4.1, for the laws.
    Departures  each example draws a selection of its own. A label is predicted, not the features. Chen et al. explain a
                model that was trained before; here the labels are drawn. `additive` has the numbers of the code of
                Yoon, Jordon, van der Schaar (2019), "INVASE": with −100 sin(2 x₁) + 2|x₂| + x₃ + exp(−x₄), as in the
                paper of Chen et al. (in their code −100 sin(0.2 x₁) + |x₂| + x₃ + exp(−x₄) − 2.4), x₁ alone is within
                0.01 nats of the true law. `switch` goes by the sign of x₁₀, which is that of its mean in 99.9 % of
                examples. With `per_example`, the weight of a feature is 1 − Π_l (1 − z_l), for one-hot codes the
                maximum, which is theirs.

    law          the data: xor, orange_skin, additive or switch
    n_selected   selectors L; by default the number of relevant features
    n_features   features D; those that no law uses are noise
    per_example  whether each example has a selection of its own
    n_hidden     units in each of the two hidden layers of a network
    n_train      training examples; there are 2,000 for validation and 5,000 for the test

    Raises ValueError for others.
    """

    name = "feature_selection"
    reference = (
        'Balın, Abid, Zou (2019), "Concrete Autoencoders", arXiv:1901.09346; Chen, Song, Wainwright, Jordan (2018),'
        ' "Learning to Explain", arXiv:1802.07814'
    )
    measures = (
        Measure("recall", "recall of the relevant features", better="higher", band=0.05),
        Measure("excess_loss", "expected cross-entropy above that of the true law", "nats", band=0.01),
        Measure("accuracy", "accuracy", better="higher", band=0.01),
    )
    measured_on: ClassVar[Literal["samples", "mode"]] = "mode"

    def __init__(
        self,
        *,
        law: str = "orange_skin",
        n_selected: int | None = None,
        n_features: int = MIN_FEATURES,
        per_example: bool = False,
        n_hidden: int = 64,
        n_train: int = 20_000,
    ) -> None:
        super().__init__()
        if law not in LAWS:
            raise ValueError(f"{self.name}: expected law to be one of {', '.join(LAWS)}, got {law!r}.")
        if not isinstance(per_example, bool):
            raise ValueError(f"{self.name}: expected per_example: true or false, got {per_example!r}.")
        self.law, self.per_example = law, per_example
        n_selected = LAWS[law].n_relevant if n_selected is None else n_selected
        self.n_latents = check_count(self.name, "n_selected", n_selected)
        self.n_categories = check_count(self.name, "n_features", n_features, at_least=MIN_FEATURES)
        self.n_train = check_count(self.name, "n_train", n_train)
        n_hidden = check_count(self.name, "n_hidden", n_hidden)
        if self.n_latents > self.n_categories:
            raise ValueError(f"{self.name}: expected n_selected of at most {n_features} features, got {n_selected}.")
        self.predictor = _network(n_features if per_example else n_selected, n_hidden, 1)
        if per_example:
            self.selector = _network(n_features, n_hidden, n_selected * n_features)
        else:
            self.logits_LK = nn.Parameter(0.01 * torch.randn(n_selected, n_features))

    def data(self, config: DataConfig | None) -> Splits:
        """Return features (N, D) and labels (N,), drawn from the law. Those of the test do not depend on `n_train`."""
        test, validation = self._drawn(5_000), self._drawn(2_000)
        return Splits(train=self._drawn(self.n_train), validation=validation, test=test)

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of the selectors."""
        if not self.per_example:
            return self.logits_LK.expand(n_examples(batch), -1, -1)
        logits_BLK: Tensor = self.selector(batch[0]).unflatten(-1, (self.n_latents, self.n_categories))
        return logits_BLK

    def cost(self, batch: Batch) -> Cost:
        """Return the cross-entropy of the label, in nats."""
        x_BD, y_B = batch

        def cost(z_SBLK: Tensor) -> Tensor:
            odds_SB = self._log_odds(x_BD, z_SBLK)
            return F.binary_cross_entropy_with_logits(odds_SB, y_B.expand_as(odds_SB), reduction="none")

        return cost

    def measure(self, batch: Batch, z_BLK: Tensor) -> dict[str, Tensor]:
        """Return recall, excess loss and accuracy of a selection."""
        x_BD, y_B = batch
        odds_B, true_B = self._log_odds(x_BD, z_BLK), LAWS[self.law].logit(x_BD)
        relevant_BD, selected_BD = LAWS[self.law].relevant(x_BD), z_BLK.any(-2)
        return {
            "recall": (relevant_BD & selected_BD).sum(-1) / relevant_BD.sum(-1),
            "excess_loss": _cross_entropy(odds_B, true_B) - _cross_entropy(true_B, true_B),
            "accuracy": (odds_B > 0) == (y_B > 0.5),
        }

    def _log_odds(self, x_BD: Tensor, z_xBLK: Tensor) -> Tensor:
        """Return the predicted log-odds, (…, B), of codes (…, B, L, K)."""
        if self.per_example:
            weight_xBD = 1 - (1 - z_xBLK).prod(-2)
            seen_xBI = x_BD * weight_xBD
        else:
            seen_xBI = (z_xBLK @ x_BD.unsqueeze(-1)).squeeze(-1)
        odds_xB: Tensor = self.predictor(seen_xBI).squeeze(-1)
        return odds_xB

    def _drawn(self, n: int) -> tuple[Tensor, Tensor]:
        x_ND = torch.randn(n, self.n_categories)
        if self.law == "switch":
            x_ND[:, 9] += torch.where(torch.rand(n) < 0.5, 3.0, -3.0)
        return x_ND, torch.bernoulli(LAWS[self.law].logit(x_ND).sigmoid())


def _network(n_inputs: int, n_hidden: int, n_outputs: int) -> nn.Sequential:
    hidden = nn.Linear(n_inputs, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_hidden), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(n_hidden, n_outputs))


def _cross_entropy(odds_B: Tensor, true_B: Tensor) -> Tensor:
    """Return −E log p(y), the label y drawn from log-odds `true_B` and predicted by log-odds `odds_B`."""
    return F.binary_cross_entropy_with_logits(odds_B, true_B.sigmoid(), reduction="none")
