"""The loop against one written by hand, and what may happen to it on the way."""

import logging
import math
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from skdeepfeat._utils._random import seeded
from skdeepfeat.exceptions import OutOfMemoryError, TrainingDivergedError
from skdeepfeat.training import (
    FeatureData,
    WeightAverage,
    make_loss,
    seed_of,
    unfrozen_parts,
)
from skdeepfeat.training._schedules import learning_rate_factor

CPU = torch.device("cpu")


def train_by_hand(net, data, epochs, batch_size, seed, optimizer, schedule, clip):
    """Return the epochs' losses: what the loop does, as a beginner would write it."""
    n = len(data)
    n_steps = math.ceil(n / batch_size)
    losses, step = [], 0
    for epoch in range(epochs):
        rng = np.random.default_rng(seed_of(seed, epoch))
        order = rng.permutation(n)
        net.train()
        total = 0.0
        with seeded(seed_of(seed, epoch, 1)):
            for rows in np.array_split(order, n_steps):
                images = data.augment(data.pixels[rows], rng)
                factor = learning_rate_factor(schedule, step, n_steps * epochs)
                for group in optimizer.param_groups:
                    group["lr"] = 1e-2 * factor
                optimizer.zero_grad()
                each = nn.functional.cross_entropy(
                    net(images), data.targets[rows], reduction="none"
                )
                loss = (each * data.weights[rows]).mean()
                loss.backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(net.parameters(), clip)
                optimizer.step()
                total += loss.item() * len(rows)
                step += 1
        losses.append(total / n)
    return losses


def optimizer_by_hand(name, net):
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    groups = [
        {"params": decayed, "weight_decay": 0.05},
        {"params": others, "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=1e-2)


class CallsEachBatch:
    """Data that does something when the batch of a number is asked for."""

    def __init__(self, data, number, action):
        self.data, self.number, self.action = data, number, action
        self.targets, self.weights = data.targets, data.weights
        self.n_batches = 0

    def __len__(self):
        return len(self.data)

    def batch(self, *args):
        self.n_batches += 1
        result = self.data.batch(*args)
        return self.action(result) if self.n_batches == self.number else result


def interrupt(inputs):
    raise KeyboardInterrupt


def spoil(inputs):
    return torch.full_like(inputs, torch.nan)


# -- The same as by hand


@pytest.mark.parametrize(
    ("optimizer", "schedule", "clip"),
    [
        ("adamw", "one_cycle", 0.1),
        ("adamw", "constant", None),
        ("adam", "cosine", None),
        ("sgd", "step", 1.0),
    ],
)
def test_weights_are_those_of_a_loop_by_hand(
    make_net, make_pixels, make_run, weights_of, assert_same, optimizer, schedule, clip
):
    data = make_pixels(22)
    by_hand, net = (make_net(batch_norm=True, dropout=0.3) for _ in range(2))
    losses = train_by_hand(
        by_hand, data, 3, 8, 7, optimizer_by_hand(optimizer, by_hand), schedule, clip
    )
    run = make_run(
        net, optimizer=optimizer, schedule=schedule, max_grad_norm=clip, seed=7
    )
    run.fit(data)
    assert_same(weights_of(net), weights_of(by_hand), tolerance=1e-6)
    assert [one["train_loss"] for one in run.history] == pytest.approx(losses, rel=1e-5)
    assert [one["epoch"] for one in run.history] == [1, 2, 3]
    assert {one["phase"] for one in run.history} == {"body"}
    assert not run.interrupted


def test_averaged_weights_are_the_result(
    make_net, make_pixels, make_run, weights_of, assert_same
):
    data = make_pixels(22)
    raw, averaged = make_net(batch_norm=True), make_net(batch_norm=True)
    run = make_run(raw)
    oracle = WeightAverage(raw, 0.8)
    step = run.optimizer.step

    def step_and_average(*args, **kwargs):
        result = step(*args, **kwargs)
        oracle.update(raw)
        return result

    run.optimizer.step = step_and_average
    run.fit(data)
    make_run(averaged, decay=0.8).fit(data)
    assert_same(weights_of(averaged), oracle.tensors)
    with pytest.raises(AssertionError):
        assert_same(weights_of(averaged), weights_of(raw), tolerance=1e-3)


def test_layers_learn_at_their_share_of_the_rate(make_net, make_pixels, make_run):
    run = make_run(make_net(), n_epochs=1, schedule="constant")
    for group in run.optimizer.param_groups:
        group["lr_scale"] = 0.5
    run.fit(make_pixels(9))
    assert {group["lr"] for group in run.optimizer.param_groups} == {0.5e-2}


def test_all_batches_have_nearly_the_same_size(make_net, make_pixels, make_run):
    noting = Limited(make_net(batch_norm=True), 8)
    make_run(noting, n_epochs=1, batch_size=8).fit(make_pixels(17))
    assert noting.sizes == [6, 6, 5]


def test_prepare_freezes_epoch_by_epoch(make_net, make_pixels, make_run, weights_of):
    net = make_net()
    run = make_run(net, n_epochs=4)
    kept = []

    def prepare(epoch):
        net.train()
        net[1].requires_grad_(0 in unfrozen_parts("gradual", 2, epoch, 4))
        kept.append(weights_of(net[1])["weight"])

    run.prepare = prepare
    run.fit(make_pixels(9))
    moved = [not torch.equal(a, b) for a, b in zip(kept, kept[1:], strict=False)]
    assert moved == [False, True, True]


def test_it_learns(make_features, make_run):
    data = make_features(60)
    with seeded(0):
        head = nn.Linear(5, 3)
    run = make_run(head, n_epochs=30, learning_rate=0.1, schedule="cosine")
    run.fit(data)
    losses = [one["train_loss"] for one in run.history]
    assert losses[-1] < 0.2 * losses[0]
    found = head(data.inputs).argmax(1)
    assert (found == data.targets).float().mean() > 0.95


def test_weights_of_zero_take_samples_away(make_features, make_run, weights_of):
    data = make_features(8)
    data.weights = torch.tensor([2.0] * 4 + [0.0] * 4)
    wrong = FeatureData(data.inputs.clone(), data.targets.clone(), data.weights)
    wrong.inputs[4:] = 99.0
    wrong.targets[4:] = 0
    results = []
    for one in (data, wrong):
        with seeded(0):
            head = nn.Linear(5, 3)
        make_run(head).fit(one)
        results.append(weights_of(head)["weight"])
    assert torch.equal(*results)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_nearly_the_same(
    make_net, make_pixels, make_run, precision
):
    losses = []
    for kind in ("float32", precision):
        run = make_run(make_net(), precision=kind)
        run.fit(make_pixels(22))
        losses.append([one["train_loss"] for one in run.history])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


# -- Randomness


def test_the_seed_decides_all(make_net, make_pixels, make_run, weights_of, assert_same):
    def result(seed):
        net = make_net(dropout=0.5)
        make_run(net, decay=0.9, mixup=0.4, seed=seed).fit(make_pixels(22, "trivial"))
        return weights_of(net)

    wanted = result(3)
    torch.rand(5)  # the global generators are elsewhere now, and play no part
    np.random.rand(5)
    assert_same(result(3), wanted)
    with pytest.raises(AssertionError):
        assert_same(result(4), wanted)


def test_the_global_generators_stay_where_they_are(make_net, make_pixels, make_run):
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    make_run(make_net(dropout=0.5), decay=0.9, mixup=0.4).fit(
        make_pixels(9, "trivial"), lambda model: (0.0, 0.0)
    )
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_equal(np.random.get_state(), before[1])
    assert random.getstate() == before[2]


def test_fits_in_threads_go_side_by_side_and_do_not_mix(
    make_net, make_pixels, make_run, weights_of, assert_same
):
    """Each step back waits for the other's: in turns by epochs, they never would."""

    class Meeting(nn.Module):
        def __init__(self, net, barrier):
            super().__init__()
            self.net, self.barrier = net, barrier

        def forward(self, images):
            outputs = self.net(images)
            outputs.register_hook(self.meet)
            return outputs

        def meet(self, gradient):
            self.barrier.wait(timeout=120)

    def train(net, seed):
        make_run(net, mixup=0.4, seed=seed).fit(make_pixels(22, "trivial"))

    wanted = []
    for seed in (0, 1):
        wanted.append(make_net(dropout=0.5))
        train(wanted[-1], seed)
    before = torch.get_rng_state()
    barrier = threading.Barrier(2)
    nets = [make_net(dropout=0.5) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(train, Meeting(net, barrier), seed)
            for seed, net in enumerate(nets)
        ]
        for job in jobs:
            job.result()
    for net, one in zip(nets, wanted, strict=True):
        assert_same(weights_of(net), weights_of(one))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_and_order_differ_from_epoch_to_epoch(make_features, make_run):
    data = make_features(8)
    data.weights = torch.zeros(8)  # so nothing is learned: epochs differ by draws alone
    seen = []

    class Seeing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 3)
            self.dropout = nn.Dropout(0.5)

        def forward(self, x):
            x = self.dropout(x)
            seen.append(x.clone())
            return self.linear(x)

    make_run(Seeing(), n_epochs=3).fit(data)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_seeds_of_other_numbers_are_others():
    seeds = [seed_of(a, b, c) for a in range(5) for b in range(5) for c in range(1, 5)]
    seeds += [seed_of(a, b) for a in range(5) for b in range(5)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


# -- Mixup


def test_mixup_mixes_inputs_and_losses_alike(make_features, make_run):
    data = make_features(8)
    seen = []

    class Seeing(nn.Linear):
        def forward(self, x):
            seen.append(x.detach().clone())
            return super().forward(x)

    with seeded(0):
        head = Seeing(5, 3)
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    run = make_run(head, n_epochs=1, mixup=0.7, seed=5)
    run.fit(data)

    rng = np.random.default_rng(seed_of(5, 0))
    order = rng.permutation(8)
    share = rng.beta(0.7, 0.7)
    partners = order[np.argsort(rng.permutation(8))]
    mixed = share * data.inputs[order] + (1 - share) * data.inputs[partners]
    torch.testing.assert_close(seen[0], mixed)
    logs = (mixed @ weight.T + bias).log_softmax(1)
    one_hot = nn.functional.one_hot(data.targets, 3)
    soft = share * one_hot[order] + (1 - share) * one_hot[partners]
    wanted = -(soft * logs).sum(1).mean()
    assert run.history[0]["train_loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_mixup_of_pixels_and_of_a_single_image(make_net, make_pixels, make_run):
    run = make_run(make_net(), n_epochs=1, mixup=0.7)
    run.fit(make_pixels(1))
    assert math.isfinite(run.history[0]["train_loss"])


# -- Memory


class Limited(nn.Module):
    """Runs out of memory as a GPU does; notes how many samples went through."""

    def __init__(self, net, limit, error=torch.OutOfMemoryError):
        super().__init__()
        self.net = net
        self.limit = limit
        self.error = error
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.limit:
            raise self.error("CUDA out of memory. Tried to allocate 20 MiB ...")
        return self.net(images)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_out_of_memory_makes_parts_of_the_same_step(
    make_net, make_pixels, make_run, weights_of, assert_same, caplog, error, mixup
):
    data = make_pixels(22)
    whole, limited = make_net(), Limited(make_net(), 3, error)
    settings = {"n_epochs": 2, "batch_size": 11, "max_grad_norm": 0.5, "mixup": mixup}
    run = make_run(whole, **settings)
    run.fit(data)
    with caplog.at_level(logging.WARNING, "skdeepfeat"):
        in_parts = make_run(limited, **settings)
        in_parts.fit(data)
    assert_same(weights_of(limited.net), weights_of(whole), tolerance=1e-5)
    assert [one["train_loss"] for one in in_parts.history] == pytest.approx(
        [one["train_loss"] for one in run.history], rel=1e-5
    )
    # 11 and 5 do not fit; 2 do, from the first step to the last.
    assert limited.sizes == [11, 5, *[2, 2, 2, 2, 2, 1] * 4]
    assert [record.args[1] for record in caplog.records] == [5, 2]


def test_the_first_part_is_half_of_a_batch_that_is_smaller_than_asked_for(
    make_net, make_pixels, make_run
):
    limited = Limited(make_net(), 4)
    make_run(limited, n_epochs=1, batch_size=1000).fit(make_pixels(8))
    assert limited.sizes == [8, 4, 4]


def test_not_even_one(make_net, make_pixels, make_run):
    with pytest.raises(OutOfMemoryError, match="Not even one image .* 'image_size'"):
        make_run(Limited(make_net(), 0)).fit(make_pixels(8))


def test_other_errors_come_through(make_net, make_pixels, make_run):
    class Broken(nn.Linear):
        def forward(self, x):
            raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError, match="no such luck"):
        make_run(Broken(3, 3)).fit(make_pixels(8))


# -- Divergence


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_loss_that_is_not_a_number_leaves_the_last_good_weights(
    make_net, make_pixels, make_run, weights_of, assert_same, decay
):
    data = make_pixels(22)
    good, net = make_net(batch_norm=True), make_net(batch_norm=True)
    good_run = make_run(good, decay=decay, n_epochs=2, seed=1)
    good_run.fit(data)
    run = make_run(net, decay=decay, n_epochs=5, seed=1)
    # 3 steps an epoch: the second one of the third epoch. The neck's own scaling makes
    # floats of the pixels, so floats may come.
    broken = CallsEachBatch(data, 8, lambda x: torch.full(x.shape, torch.nan))
    with pytest.raises(
        TrainingDivergedError, match="nan in epoch 3, step 2 of the body.*learning_rate"
    ):
        run.fit(broken)
    assert_same(weights_of(net), weights_of(good))
    assert len(run.history) == 2


def test_divergence_in_the_first_epoch_leaves_the_start(
    make_features, make_run, weights_of, assert_same
):
    head = nn.Linear(5, 3)
    before = weights_of(head)
    with pytest.raises(TrainingDivergedError):
        make_run(head, decay=0.9).fit(CallsEachBatch(make_features(), 1, spoil))
    assert_same(weights_of(head), before)


def test_too_high_a_rate_diverges(make_features, make_run, weights_of):
    data = make_features(20)
    data.targets = data.inputs[:, :3] * 100
    head = nn.Linear(5, 3)
    run = make_run(
        head, loss=make_loss("squared_error", "regression"), optimizer="sgd",
        learning_rate=1e10, n_epochs=20,
    )  # fmt: skip
    with pytest.raises(TrainingDivergedError, match="learning_rate"):
        run.fit(data)
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(head).values())


def test_a_gradient_that_is_not_a_number_is_seen_in_the_last_step(
    make_features, make_run, weights_of, assert_same
):
    """The loss is finite, and there is no next step in which it would not be."""

    class Root(nn.Linear):
        def forward(self, x):
            outputs = super().forward(x)
            return outputs + (outputs * 0).sqrt()

    head = Root(5, 3)
    before = weights_of(head)
    run = make_run(head, n_epochs=1, batch_size=100)
    with pytest.raises(TrainingDivergedError, match="weights"):
        run.fit(make_features())
    assert_same(weights_of(head), before)


# -- Interruption


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_interrupt_in_an_epoch_leaves_usable_weights(
    make_net, make_pixels, make_run, weights_of, decay
):
    net = make_net(batch_norm=True)
    run = make_run(net, decay=decay, n_epochs=5)
    data = CallsEachBatch(make_pixels(22), 8, interrupt)
    with pytest.warns(RuntimeWarning, match="interrupted after 2 of 5") as record:
        run.fit(data)
    assert record[0].filename == __file__
    assert run.interrupted
    assert run.epoch == len(run.history) == 2
    assert all(
        torch.isfinite(tensor.float()).all() for tensor in weights_of(net).values()
    )
    if decay:
        for name, tensor in run.average.tensors.items():
            assert torch.equal(tensor, weights_of(net)[name])


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_interrupt_while_validating(
    make_net, make_pixels, make_run, weights_of, assert_same, decay
):
    data, net, wanted = make_pixels(22), make_net(), make_net()
    make_run(wanted, decay=decay, n_epochs=1).fit(data)

    def validate(model):
        raise KeyboardInterrupt

    run = make_run(net, decay=decay, n_epochs=1)
    with pytest.warns(RuntimeWarning, match="interrupted"):
        run.fit(data, validate)
    assert run.interrupted and run.history == []
    assert_same(weights_of(net), weights_of(wanted))


def test_interrupt_with_early_stopping_leaves_the_best(
    make_net, make_pixels, make_run, weights_of, assert_same
):
    net, kept, scores = make_net(), [], iter([0.5, 0.9, 0.1])

    def validate(model):
        kept.append(weights_of(model))
        return 0.0, next(scores)

    run = make_run(net, n_epochs=5, n_iter_no_change=4)
    data = CallsEachBatch(make_pixels(22), 11, interrupt)
    with pytest.warns(RuntimeWarning, match="interrupted after 3"):
        run.fit(data, validate)
    assert_same(weights_of(net), kept[1])


# -- Validation


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_early_stopping_restores_the_best(
    make_net, make_pixels, make_run, weights_of, assert_same, decay
):
    net, kept = make_net(batch_norm=True), []
    scores = iter([0.2, 0.6, 0.6, 0.5, 0.7, 0.7, 0.1, 0.0, 1.0])

    def validate(model):
        kept.append(weights_of(model))
        return 0.25, next(scores)

    run = make_run(net, decay=decay, n_epochs=9, n_iter_no_change=3)
    run.fit(make_pixels(22), validate)
    assert len(run.history) == 8  # the fifth is the best, and three more come
    assert (run.best_epoch, run.best_score) == (5, 0.7)
    assert_same(weights_of(net), kept[4])
    found = [one["validation_score"] for one in run.history]
    assert found == [0.2, 0.6, 0.6, 0.5, 0.7, 0.7, 0.1, 0.0]
    assert {one["validation_loss"] for one in run.history} == {0.25}


def test_validation_without_early_stopping_keeps_the_last(
    make_net, make_pixels, make_run, weights_of, assert_same
):
    net, plain, scores = make_net(), make_net(), iter([0.9, 0.1, 0.0])
    run = make_run(net)
    run.fit(make_pixels(22), lambda model: (0.0, next(scores)))
    make_run(plain).fit(make_pixels(22))
    assert_same(weights_of(net), weights_of(plain))
    assert run.best_epoch == 1


def test_a_score_that_is_not_a_number_is_never_the_best(
    make_net, make_pixels, make_run
):
    run = make_run(make_net(), n_iter_no_change=1)
    run.fit(make_pixels(9), lambda model: (math.nan, math.nan))
    assert run.best_epoch is None
    assert len(run.history) == 3


def test_validation_in_evaluation_mode_leaves_the_training_as_it_is(
    make_net, make_pixels, make_run, weights_of, assert_same
):
    """What `validate` does to the modes is undone by the next epoch's `prepare`."""
    watched, plain = make_net(batch_norm=True), make_net(batch_norm=True)

    def validate(model):
        model.eval()
        with torch.inference_mode():
            model(torch.rand(4, 3, 8, 8))
        return 0.0, 0.0

    make_run(watched).fit(make_pixels(22), validate)
    make_run(plain).fit(make_pixels(22))
    assert_same(weights_of(watched), weights_of(plain))
