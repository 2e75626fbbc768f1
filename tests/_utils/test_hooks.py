"""Hooks are called with their keys, may replace the output, and are always removed."""

import pytest
import torch
from torch import nn

from skdeepfeat._utils._hooks import forward_hooks


def test_hooks_know_their_keys_and_replace_outputs():
    network = nn.Sequential(nn.ReLU(), nn.Identity())
    called = []

    def double(key, module, args, output):
        called.append((key, type(module)))
        return 2 * output if key == "0" else None

    with forward_hooks(double, network.named_children()):
        assert network(torch.ones(1)) == 2
    assert called == [("0", nn.ReLU), ("1", nn.Identity)]
    assert network(torch.ones(1)) == 1


def test_hooks_are_removed_after_an_error():
    module = nn.Identity()

    def fail(key, module, args, output):
        raise ValueError(key)

    with pytest.raises(ValueError, match="here"):  # noqa: SIM117
        with forward_hooks(fail, [("here", module)]):
            module(torch.ones(1))
    assert not module._forward_hooks
