"""The L1 penalty on activations: what counts, and its gradient."""

import numpy as np
import pytest
import torch
from torch import nn

from skdeepfeat.training import ActivationSizes


class Functions(nn.Module):
    """ReLUs as a module, a method, and functions in place."""

    def __init__(self):
        super().__init__()
        self.module = nn.ReLU6()

    def forward(self, x):
        first = self.module(x)
        second = (first - 0.25).relu()
        third = second * 2
        nn.functional.relu(third, inplace=True)
        return third


def test_the_mean_of_the_means_and_its_gradient():
    values = np.random.default_rng(0).normal(0, 4, (3, 5)).astype(np.float32)
    x = torch.from_numpy(values).requires_grad_()
    with ActivationSizes() as sizes:
        Functions()(x)
    first = values.clip(0, 6)
    second = (first - 0.25).clip(0)
    wanted = np.mean([first.mean(), second.mean(), (2 * second).mean()])
    assert sizes.n_relus == 3 and sizes.others == []
    assert sizes.mean().item() == pytest.approx(wanted, rel=1e-5)
    sizes.mean().backward()
    slope = ((values > 0) & (values < 6)) * (1 + 3.0 * (first > 0.25)) / 3 / values.size
    np.testing.assert_allclose(x.grad, slope, atol=1e-7)


def test_frozen_layers_do_not_count():
    with ActivationSizes() as sizes:
        frozen = torch.ones(4).relu()
        torch.full((2,), 3.0, requires_grad=True).relu()
    assert frozen.sum() == 4
    assert sizes.mean().item() == 3.0 and sizes.n_relus == 2


def test_other_activations_are_named():
    x = torch.ones(1, 2, 3, 3)
    with ActivationSizes() as sizes:
        nn.functional.silu(x)
        x.mean((2, 3), keepdim=True).sigmoid()  # a gate of channels
        x.sigmoid()
    assert sizes.others == ["silu", "sigmoid"]
    assert sizes.mean() == 0.0


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_loop_adds_it_to_the_loss(make_net, make_pixels, make_run, mixup):
    """At a learning rate of zero, two runs differ by the penalty alone."""
    losses = []
    for factor in (0.0, 2.0):
        run = make_run(
            make_net(), activation_l1=factor, n_epochs=1, learning_rate=0.0,
            mixup=mixup, schedule="constant",
        )  # fmt: skip
        run.fit(make_pixels(augment=None, weighted=False))
        losses.append(run.history[0]["train_loss"])
    if mixup:
        assert losses[1] > losses[0]
        return
    net, data = make_net(), make_pixels(augment=None, weighted=False)
    with torch.no_grad():
        images = data.batch(np.arange(len(data)), None, None, None)
        mean = float(net[:4](images).mean())
    assert losses[1] - losses[0] == pytest.approx(2 * mean, rel=1e-4)
