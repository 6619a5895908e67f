"""The default task: its bound against enumeration, its traversals, and its costs of all codes."""

from collections.abc import Callable

import pytest
import torch
from small_vae import exact, small_vae
from torch import Tensor

from estimators import REGISTRY
from harness.config import RunConfig
from harness.tasks import categorical_vae
from harness.tasks.categorical_vae import VAETask, neg_bound, traversals
from harness.tasks.vae import CategoricalVAE
from harness.training.state import start

Make = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def tiny() -> tuple[CategoricalVAE, Tensor]:
    """A model with 9 codes, and images for it."""
    state = small_vae()[1]
    return state.task.network(), state.splits.test


def bound(vae: CategoricalVAE, x_ND: Tensor, k: int) -> float:
    with torch.no_grad():
        return neg_bound(vae, lambda logits_BLK: logits_BLK, x_ND, k)


def test_bound_is_the_elbo_at_one_and_log_likelihood_in_the_limit(tiny: tuple[CategoricalVAE, Tensor]) -> None:
    vae, x = tiny
    neg_elbo, neg_log_p = exact(vae, x)
    assert neg_elbo > neg_log_p + 0.2
    torch.manual_seed(0)
    at_one = sum(bound(vae, x, 1) for _ in range(2000)) / 2000
    at_many = bound(vae, x, 20_000)
    between = bound(vae, x, 10)
    assert at_one == pytest.approx(neg_elbo, abs=0.03)
    assert at_many == pytest.approx(neg_log_p, abs=0.01)
    assert neg_log_p < between < neg_elbo


def test_chunks_change_nothing(tiny: tuple[CategoricalVAE, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    vae, x = tiny
    neg_log_p = exact(vae, x)[1]
    monkeypatch.setattr(categorical_vae, "MAX_DECODED", 300)
    torch.manual_seed(0)
    assert bound(vae, x, 5000) == pytest.approx(neg_log_p, abs=0.02)


@pytest.mark.parametrize("k", [100, 2_048, 5_000])
def test_a_bound_decodes_few_codes_at_once_whatever_its_k(
    tiny: tuple[CategoricalVAE, Tensor], monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    vae, x = tiny
    decode, sizes = vae.decode, list[int]()

    def counted(z_SBLK: Tensor) -> Tensor:
        sizes.append(z_SBLK.shape[0] * z_SBLK.shape[1])
        return decode(z_SBLK)

    monkeypatch.setattr(vae, "decode", counted)
    bound(vae, x[:25], k)
    assert sum(sizes) == 25 * k
    assert max(sizes) <= categorical_vae.MAX_DECODED


def test_a_traversal_changes_one_latent_of_the_most_probable_code() -> None:
    logits_LK = torch.tensor([[0.0, 2, 1], [5, 0, 0], [0, 0, 9], [0, 1, 0]])
    codes = traversals(logits_LK, torch.tensor([0.1, 0.9, 0.2, 0.9]))
    assert codes.shape == (4, 3, 4, 3)
    likeliest = [1, 0, 2, 1]
    for row, latent in enumerate([1, 3, 2, 0]):  # by KL, the first of equals first
        for column in range(3):
            wanted = [column if each == latent else likeliest[each] for each in range(4)]
            assert codes[row, column].argmax(-1).tolist() == wanted
            assert codes[row, column].sum(-1).tolist() == [1, 1, 1, 1]


def test_the_costs_of_all_codes_are_those_of_the_model(tiny_run: Make) -> None:
    state = start(tiny_run(), REGISTRY, torch.device("cpu"))
    assert isinstance(state.task, VAETask)
    x_BD, codes = state.splits.train[:5], torch.eye(4).expand(3, 4, 4).transpose(0, 1)
    expected = state.task.cost(x_BD)(codes[:, None].expand(-1, 5, -1, -1))
    torch.testing.assert_close(state.task.code_costs(x_BD, codes), expected, rtol=1e-5, atol=1e-3)
