"""Tasks that break one rule each; the docstring of a class is the beginning of its refusal."""

import random

import numpy as np
import torch
from torch import Tensor, nn

from harness.tasks import Loss, Measure, NoData, OneLayerTask, Splits, Task


class Right(OneLayerTask):
    """Reconstruction of vectors from two choices among three classes."""

    name = "right"
    measures = (Measure("loss"), Measure("near", better="higher"))

    def __init__(self, *, width: int = 5):
        super().__init__()
        self.n_latents, self.n_categories = 2, 3
        self.encoder, self.decoder = nn.Linear(width, 6), nn.Linear(6, width)

    def data(self, config):
        x_ND = torch.randn(60, self.encoder.in_features)
        return Splits(train=x_ND[:40], validation=x_ND[40:50], test=x_ND[50:])

    def logits(self, batch):
        return self.encoder(batch).view(-1, 2, 3)

    def cost(self, batch):
        return lambda z_SBLK: (self.decoder(z_SBLK.flatten(2)) - batch).square().sum(-1)

    def measure(self, batch, z_BLK):
        return {"near": -self.cost(batch)(z_BLK.unsqueeze(0)).squeeze(0)}


class LogitsOfOtherShape(Right):
    """expected logits of shape (B, L, K) = (16, 2, 3), got (16, 6). B is the length of the batch"""

    name = "logits_of_other_shape"

    def logits(self, batch):
        return self.encoder(batch)


class WrongK(Right):
    """expected logits of shape (B, L, K) = (16, 2, 4), got (16, 2, 3)."""

    name = "wrong_k"

    def __init__(self):
        super().__init__()
        self.n_categories = 4


class WholeLogits(Right):
    """expected logits of floating point, got torch.int64. Return logits.float()."""

    name = "whole_logits"

    def logits(self, batch):
        return super().logits(batch).long()


class InfiniteLogits(Right):
    """expected finite logits, or −∞ for a class that is forbidden, but not for all of a latent, got others."""

    name = "infinite_logits"

    def logits(self, batch):
        return super().logits(batch).log()


class FrozenLogits(Right):
    """expected logits with a gradient, got logits that depend on nothing that is trained."""

    name = "frozen_logits"

    def logits(self, batch):
        return super().logits(batch).detach()


class CostOfAnExample(Right):
    """expected a cost of shape (S, B) = (1, 16) for codes (S, B, L, K) = (1, 16, 2, 3), got (16,)."""

    name = "cost_of_an_example"

    def cost(self, batch):
        return lambda z_SBLK: Right.cost(self, batch)(z_SBLK).mean(0)


class CostIsNaN(Right):
    """expected a finite cost of one-hot codes, got NaN or ∞."""

    name = "cost_is_nan"

    def cost(self, batch):
        return lambda z_SBLK: Right.cost(self, batch)(z_SBLK).neg().log()


class MixesSamples(Right):
    """expected the cost of each sample of each example by its own code alone, got a cost that changes with the code of
    another sample."""

    name = "mixes_samples"

    def cost(self, batch):
        def cost(z_SBLK: Tensor) -> Tensor:
            cost_SB = Right.cost(self, batch)(z_SBLK)
            return cost_SB - cost_SB.mean(0)

        return cost


class MixesExamples(Right):
    """expected the cost of each sample of each example by its own code alone, got a cost that changes with the code of
    another example. Compute it from z_SBLK without a mean, a sum, or batch normalisation"""

    name = "mixes_examples"

    def cost(self, batch):
        def cost(z_SBLK: Tensor) -> Tensor:
            cost_SB = Right.cost(self, batch)(z_SBLK)
            return cost_SB - cost_SB.mean(1, keepdim=True)

        return cost


class BatchNormalised(Right):
    """expected the cost of each sample of each example by its own code alone, got a cost that changes with the code of
    another sample."""

    name = "batch_normalised"

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def cost(self, batch):
        return lambda z_SBLK: Right.cost(self, batch)(self.norm(z_SBLK.flatten(0, 1).flatten(1)).view(z_SBLK.shape))


class OneHotOnly(Right):
    """expected a finite cost of soft codes, got NaN or ∞. Declare needs_one_hot = True"""

    name = "one_hot_only"

    def cost(self, batch):
        def cost(z_SBLK: Tensor) -> Tensor:
            cost_SB = Right.cost(self, batch)(z_SBLK)
            return torch.where(z_SBLK.amax(-1).amin(-1) == 1, cost_SB, torch.nan)

        return cost


class RaisesOnSoftCodes(Right):
    """expected a cost that is defined on soft codes, got ValueError: a code between classes. Declare needs_one_hot"""

    name = "raises_on_soft_codes"

    def cost(self, batch):
        def cost(z_SBLK: Tensor) -> Tensor:
            if not bool((z_SBLK.amax(-1) == 1).all()):
                raise ValueError("a code between classes")
            return Right.cost(self, batch)(z_SBLK)

        return cost


class NoDerivative(Right):
    """expected a cost with a derivative in the code, got none. Declare black_box = True"""

    name = "no_derivative"

    def cost(self, batch):
        return lambda z_SBLK: Right.cost(self, batch)(z_SBLK.detach())


class DerivativeOfZero(Right):
    """expected a cost with a derivative in the code, got zeros. Declare black_box = True"""

    name = "derivative_of_zero"

    def cost(self, batch):
        return lambda z_SBLK: Right.cost(self, batch)(z_SBLK.round())


class MeasureIsMissing(Right):
    """expected the measure near from measure(), got only cost, far. Return {'near': …}."""

    name = "measure_is_missing"

    def measure(self, batch, z_BLK):
        return {"far": z_BLK.sum((-1, -2))}


class MeasureIsNaN(Right):
    """expected the measure near finite, got NaN or ∞. Look for log(0)"""

    name = "measure_is_nan"

    def measure(self, batch, z_BLK):
        return {"near": torch.full((len(batch),), torch.nan)}


class MeasureOfOtherShape(Right):
    """expected the measure near of shape (B,) = (10,), or a scalar, got (10, 2). Keep one number an example."""

    name = "measure_of_other_shape"

    def measure(self, batch, z_BLK):
        return {"near": z_BLK.sum(-1)}


class MeasureOfTheNameOfATerm(Right):
    """expected measure() to return other names than those of the loss and its terms, got cost. Rename it"""

    name = "measure_of_the_name_of_a_term"

    def measure(self, batch, z_BLK):
        return {**super().measure(batch, z_BLK), "cost": batch.sum(-1)}


class ChangesItsBatch(Right):
    """expected an evaluation that leaves its batch as it is, got changed numbers. Copy it first"""

    name = "changes_its_batch"

    def measure(self, batch, z_BLK):
        batch.mul_(2)
        return super().measure(batch, z_BLK)


class UnreachedParameter(Right):
    """expected a gradient that reaches every parameter, got none at spare.weight, spare.bias. Use them in logits"""

    name = "unreached_parameter"

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(1, 1)


class Reseeds(Right):
    """expected noise that goes on, got the same noise in every call. Do not call torch.manual_seed"""

    name = "reseeds"

    def logits(self, batch):
        torch.manual_seed(0)
        return super().logits(batch)


class DataChanges(Right):
    """expected the same train data in every call, got other numbers. Draw it with the global generators"""

    name = "data_changes"
    n_calls = 0

    def data(self, config):
        DataChanges.n_calls += 1
        return Splits(train=torch.randn(40, 5) + DataChanges.n_calls, test=torch.randn(10, 5))


class DataByATeacher(Right):
    """expected the same train data in every call, got other numbers. Draw it with the global generators"""

    name = "data_by_a_teacher"

    def data(self, config):
        teacher_DD = self.encoder.weight[:5].detach()
        return Splits(train=torch.randn(40, 5) @ teacher_DD, test=torch.randn(10, 5) @ teacher_DD)


class DataIsATensor(Right):
    """expected data() to return Splits(train=…, test=…) or NoData(…), got Tensor."""

    name = "data_is_a_tensor"

    def data(self, config):
        return torch.randn(40, 5)


class DataIsMissing(Right):
    """expected the file no_such_file.pt, got none in"""

    name = "data_is_missing"

    def data(self, config):
        return Splits(**torch.load("no_such_file.pt", weights_only=True))


class NoSizes(Right):
    """expected self.n_latents and self.n_categories, whole numbers, set in __init__, got None and None."""

    name = "no_sizes"

    def __init__(self):
        super().__init__()
        del self.n_latents, self.n_categories


class LosesState(Right):
    """expected the same loss from a new task with the state dict, got"""

    name = "loses_state"

    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def cost(self, batch):
        if self.training:
            self.scale *= 1.5
        return lambda z_SBLK: self.scale * Right.cost(self, batch)(z_SBLK)


class OtherNoise(Right):
    """expected the same loss from the same seed, got a difference of"""

    name = "other_noise"
    generator = torch.Generator().manual_seed(0)

    def logits(self, batch):
        return super().logits(batch) + torch.rand(len(batch), 2, 3, generator=self.generator)


class TwoLayers(Task):
    """Two layers, the deeper one in the cost of the shallower one."""

    name = "two_layers"

    def __init__(self):
        super().__init__()
        self.theta, self.inner = nn.Parameter(torch.zeros(2, 3)), nn.Linear(6, 4)

    def layers(self):
        return {"outer": (2, 3), "inner": (1, 4)}

    def term_names(self):
        return ("cost",)

    def data(self, config):
        return NoData(steps_per_epoch=2)

    def loss(self, batch, estimators):
        def outer_cost(z_SBLK):
            n = z_SBLK.shape[:2]
            logits_NLK = self.inner(z_SBLK.flatten(0, 1).flatten(1)).unsqueeze(1)
            return estimators["inner"](logits_NLK, lambda z: (z * torch.arange(4.0)).sum((-1, -2))).cost_B.view(n)

        estimate = estimators["outer"](self.theta.expand(len(batch), -1, -1), outer_cost)
        return Loss({"cost": estimate.cost_B})

    def evaluate(self, batch, draw):
        z_BLK = draw(self.theta.expand(len(batch), -1, -1), "outer", 1)[0]
        w_BLK = draw(self.inner(z_BLK.flatten(1)).unsqueeze(1), "inner", 1)[0]
        return {"cost": (w_BLK * torch.arange(4.0)).sum((-1, -2))}


class SkipsALayer(TwoLayers):
    """expected one call of the estimator of each layer, got 0 calls of that of 'inner'."""

    name = "skips_a_layer"

    def loss(self, batch, estimators):
        estimate = estimators["outer"](self.theta.expand(len(batch), -1, -1), lambda z: z[..., 0].sum(-1))
        return Loss({"cost": estimate.cost_B})


class OtherTerms(TwoLayers):
    """expected the terms cost, penalty, got cost. Let term_names() return the names"""

    name = "other_terms"

    def term_names(self):
        return ("cost", "penalty")

    def evaluate(self, batch, draw):
        return super().evaluate(batch, draw) | {"penalty": torch.zeros(())}


class UpsideDown(Right):
    """A measure of the wrong direction, which is a warning."""

    name = "upside_down"
    measures = (Measure("near", better="lower"),)


class DataByOtherGenerators(Right):
    """Data by the global generators of numpy and Python, which are seeded like torch's."""

    name = "data_by_other_generators"

    def data(self, config):
        x_ND = torch.tensor(np.random.randn(50, 5)).float() + random.random()  # noqa: S311
        return Splits(train=x_ND[:40], test=x_ND[40:])
