"""A module over rows of numbers ends at the input of its last linear layer."""

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skdeepfeat.networks import RowNeck

ROWS = torch.arange(10.0).reshape(2, 5)


@pytest.mark.parametrize(
    "module, n_layers, trained",
    [
        (nn.Linear(5, 3), 0, []),  # it is its own head
        (nn.Sequential(nn.Linear(5, 3)), 0, []),
        (
            nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.ReLU()),
            2,
            ["0.weight", "0.bias"],
        ),
        (nn.Sequential(nn.Tanh()), 1, []),
    ],
    ids=["linear", "only a head", "two linear layers", "no linear layer"],
)
def test_the_neck_is_what_enters_the_last_linear_layer(module, n_layers, trained):
    neck = RowNeck(module, 5)
    body = neck.trainable()
    wanted = ROWS
    for layer in list(module.children())[:n_layers]:
        wanted = layer(wanted)
    found = body(ROWS)
    assert_allclose(found.detach(), wanted.detach())
    assert neck.n_features() == [found.shape[1]]
    assert list(body.stage_of_parameter) == trained


def test_few_passes_tell_what_a_module_is():
    passes = []

    class Counting(nn.Sequential):
        def forward(self, rows):
            passes.append(len(rows))
            return super().forward(rows)

    RowNeck(Counting(*(nn.Linear(5, 5) for _ in range(8))), 5)
    assert len(passes) == 2


def test_modules_that_take_no_such_rows():
    with pytest.raises(ValueError, match="^The 'model' parameter.*rows of 5"):
        RowNeck(nn.Linear(4, 3), 5)
