"""The moving average of weights against its recurrence."""

import copy

import pytest
import torch

from skdeepfeat.training import WeightAverage


@torch.no_grad()
def change(net, seed):
    """Let weights, running statistics and their counter move."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator))
    net.train()(torch.rand(4, 3, 8, 8, generator=generator))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9999])
def test_recurrence(make_net, weights_of, decay):
    net = make_net(batch_norm=True)
    average = WeightAverage(net, decay)
    wanted = weights_of(net)
    for n in range(1, 6):
        change(net, n)
        average.update(net)
        # The past counts less while it is short.
        past = min(decay, n / (10 + n))
        for name, tensor in weights_of(net).items():
            if tensor.dtype.is_floating_point:
                wanted[name] = past * wanted[name] + (1 - past) * tensor
            else:
                wanted[name] = tensor
    for name, tensor in wanted.items():
        torch.testing.assert_close(average.tensors[name], tensor)
    assert average.tensors["2.num_batches_tracked"] == 5


def test_what_does_not_move_stays_bit_by_bit(make_net, weights_of, assert_same):
    net = make_net(batch_norm=True)
    average = WeightAverage(net, 0.99)
    for _ in range(5):
        average.update(net)
    assert_same(average.tensors, weights_of(net))


def test_swap(make_net, weights_of, assert_same):
    net = make_net(batch_norm=True)
    average = WeightAverage(net, 0.9)
    change(net, 0)
    average.update(net)
    current, averaged = weights_of(net), copy.deepcopy(average.tensors)
    average.swap(net)
    assert_same(weights_of(net), averaged)
    assert_same(average.tensors, current)
    average.swap(net)
    assert_same(weights_of(net), current)
    assert_same(average.tensors, averaged)


def test_the_average_is_its_own(make_net, weights_of, assert_same):
    net = make_net()
    average, before = WeightAverage(net, 0.9), weights_of(net)
    change(net, 0)
    assert_same(average.tensors, before)


def test_frozen_weights_take_no_time(make_net, weights_of, monkeypatch):
    net, n_averaged, lerp = make_net(batch_norm=True), [], torch._foreach_lerp_

    def counting(averages, *arguments):
        n_averaged.append(sum(tensor.numel() for tensor in averages))
        lerp(averages, *arguments)

    monkeypatch.setattr(torch, "_foreach_lerp_", counting)
    average = WeightAverage(net, 0.5)
    average.update(net.requires_grad_(False))
    for parameter in list(net.parameters())[-2:]:
        parameter.requires_grad_(True)
    average.update(net)
    n_statistics = sum(b.numel() for b in net.buffers() if b.is_floating_point())
    n_trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert n_averaged == [n_statistics, n_statistics + n_trained]
