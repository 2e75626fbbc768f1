"""Second derivatives against torch.func, and saliencies against what deleting costs."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call, hessian
from torch.nn import functional as F

from skdeepfeat.compression._channels import ChannelGroup
from skdeepfeat.compression._criteria import (
    CRITERIA,
    channel_importances,
    likelihood_terms,
    weight_curvatures,
)


def cross_entropies(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


class Digits(nn.Module):
    """A small classifier of digits, with the parts that criteria look for."""

    def __init__(self, n_hidden=8, activation=nn.ReLU):
        super().__init__()
        self.body = nn.Module()
        self.body.network = nn.Sequential(
            nn.Linear(64, n_hidden), activation(), nn.Linear(n_hidden, 10)
        )

    def forward(self, images):
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return self.body.network(images[:, 0].flatten(1))


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    pixels = (found.images[:300] * 15).astype(np.uint8)
    return pixels[..., None].repeat(3, -1), torch.from_numpy(found.target[:300])


@pytest.fixture(scope="module")
def trained(digits):
    pixels, targets = digits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Digits()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()
    return model.requires_grad_(False)


def images_of(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def loss_without(model, weight, index, images, targets):
    kept = weight.flatten()[index].clone()
    weight.flatten()[index] = 0
    loss = float(F.cross_entropy(model(images).double(), targets))
    weight.flatten()[index] = kept
    return loss


# torch.func imports what torch itself deprecates.
hessians = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


@hessians
def test_the_diagonal_is_that_of_the_hessian(digits, trained):
    # The second derivative of the loss is that of Gauss and Newton for the last layer.
    pixels, targets = digits[0][:40], digits[1][:40]
    weights = dict(trained.named_parameters())
    name = "body.network.2.weight"
    [found] = weight_curvatures(trained, [weights[name]], pixels, "single")

    def loss(weight):
        outputs = functional_call(
            trained, {**weights, name: weight}, (images_of(pixels),)
        )
        return F.cross_entropy(outputs, targets)

    n = weights[name].numel()
    diagonal = hessian(loss)(weights[name]).reshape(n, n).diagonal()
    torch.testing.assert_close(found.flatten(), diagonal, rtol=1e-3, atol=1e-7)
    assert not weights[name].requires_grad


def test_saliencies_rank_weights_as_deleting_them_does(digits, trained):
    pixels, targets = digits
    images = images_of(pixels)
    weight = trained.body.network[0].weight
    [curvature] = weight_curvatures(trained, [weight], pixels[:100], "single")
    saliency = (curvature * weight.square() / 2).flatten()
    before = float(F.cross_entropy(trained(images).double(), targets))
    rng = np.random.default_rng(0)
    tried = rng.choice(np.flatnonzero(saliency > 0), 120, replace=False)
    costs = [loss_without(trained, weight, i, images, targets) for i in tried]
    assert spearmanr(saliency[tried], np.array(costs) - before)[0] >= 0.95


@pytest.mark.parametrize("task", ["multilabel", "regression", "features"])
def test_parts_of_other_losses(task):
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    parts = list(likelihood_terms(outputs, task, np.random.default_rng(0)))
    for weights, values in parts:
        assert weights.shape == values.shape == (5,)
    if task == "multilabel":
        chances = outputs.sigmoid()
        found = torch.stack([weights for weights, _ in parts], 1)
        torch.testing.assert_close(found, chances * (1 - chances))


def test_many_classes_are_drawn_from_their_probabilities():
    outputs = torch.zeros(4000, 30)
    outputs[:, 7] = 4.0
    chance = float(outputs[0].softmax(0)[7])
    drawn = [
        values
        for _, values in likelihood_terms(outputs, "single", np.random.default_rng(0))
    ]
    share = np.mean([float((one > -2).float().mean()) for one in drawn])
    assert abs(share - chance) < 0.02


def group_of(model, dead=None):
    if dead is not None:
        model.body.network[0].weight[dead] = 0
        model.body.network[0].bias[dead] = -1
    return ChannelGroup(8, ["0"], [], [("2", 1)])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_dead_channel_matters_least(criterion, digits, trained):
    model = copy.deepcopy(trained)
    group = group_of(model, dead=3)
    [found] = channel_importances(
        model, [group], digits[0], digits[1],
            cross_entropies, "single", criterion,
    )  # fmt: skip
    assert found[3] == 0
    assert found.max() > 0
    torch.testing.assert_close(found.norm(), torch.tensor(1.0, dtype=torch.float64))


@hessians
def test_importances_are_derivatives_of_a_factor_of_the_channel(digits, trained):
    pixels, targets = digits[0][:50], digits[1][:50]
    network, images = trained.body.network, images_of(pixels).float() / 255
    hidden = network[:2](images[:, 0].flatten(1)).double()

    def losses(factors):
        outputs = (hidden * factors) @ network[2].weight.double().T
        outputs = outputs + network[2].bias.double()
        return F.cross_entropy(outputs, targets, reduction="none")

    ones = torch.ones(8, dtype=torch.float64)
    expected = {
        "taylor": torch.func.jacrev(losses)(ones).abs().sum(0),
        "obd": hessian(lambda factors: losses(factors).sum())(ones).diagonal() / 2,
    }
    for criterion, wanted in expected.items():
        [found] = channel_importances(
            trained, [group_of(trained)], pixels, targets,
            cross_entropies, "single", criterion,
        )  # fmt: skip
        wanted = wanted / wanted.norm()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_without_zeros_apoz_is_the_mean_size(digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Digits(activation=nn.Tanh).requires_grad_(False)
    seen = []
    handle = model.body.network[2].register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    model(images_of(digits[0]))
    handle.remove()
    [found] = channel_importances(
        model, [group_of(model)], digits[0], None, None, "features", "apoz"
    )
    sizes = seen[0].abs().sum(0).double()
    torch.testing.assert_close(found, sizes / sizes.norm(), rtol=1e-5, atol=1e-8)
