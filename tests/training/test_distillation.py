"""The loss of soft targets against NumPy, its limits, and its way through the loop."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from skdeepfeat.training import (
    Augmentation,
    PixelData,
    StackedPixels,
    TaughtTargets,
    make_distillation_loss,
    make_loss,
)


def draw(seed=0, n=6, n_classes=4):
    """Return outputs of a student, probabilities of a teacher, and labels."""
    rng = np.random.default_rng(seed)
    outputs, logits = rng.normal(0, 3, (2, n, n_classes))
    return outputs, softmax(logits, axis=1), rng.integers(0, n_classes, n)


def taught(labels, soft, is_labeled=None):
    if is_labeled is None:
        is_labeled = np.ones(len(labels), bool)
    return TaughtTargets(*map(torch.as_tensor, (labels, is_labeled, soft)))


def value_and_gradient(outputs, targets, task="single", name=None, **options):
    name = name or ("squared_error" if task == "regression" else "cross_entropy")
    loss = make_distillation_loss(make_loss(name, task), task, **options)
    outputs = torch.tensor(outputs, requires_grad=True)
    each = loss(outputs, targets)
    each.sum().backward()
    return each.detach().numpy(), outputs.grad.numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_value_and_gradient_against_numpy(temperature, weight):
    outputs, soft, labels = draw()
    is_labeled = np.arange(len(labels)) % 3 > 0
    found, gradient = value_and_gradient(
        outputs, taught(labels, soft, is_labeled), weight=weight,
        temperature=temperature,
    )  # fmt: skip
    # softmax(log p / T) is p^(1/T), normalized.
    p = soft ** (1 / temperature)
    p /= p.sum(1, keepdims=True)
    q = softmax(outputs / temperature, axis=1)
    divergence = (p * np.log(p / q)).sum(1)
    one_hot = np.eye(outputs.shape[1])[labels]
    entropy = -(one_hot * log_softmax(outputs, axis=1)).sum(1) * is_labeled
    wanted = (1 - weight) * entropy + weight * temperature**2 * divergence
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    of_labels = (softmax(outputs, axis=1) - one_hot) * is_labeled[:, None]
    slope = (1 - weight) * of_labels + weight * temperature * (q - p)
    np.testing.assert_allclose(gradient, slope, rtol=1e-8, atol=1e-12)


def test_a_high_temperature_matches_logits_without_their_mean():
    """Hinton et al. 2015, equation 4: (z - v) / N, if the logits have a mean of 0."""
    rng = np.random.default_rng(1)
    outputs, logits = rng.normal(0, 2, (2, 5, 4))
    targets = taught(np.zeros(5, int), softmax(logits, axis=1))
    _, gradient = value_and_gradient(outputs, targets, weight=1.0, temperature=1e4)
    z = outputs - outputs.mean(1, keepdims=True)
    v = logits - logits.mean(1, keepdims=True)
    np.testing.assert_allclose(gradient, (z - v) / 4, atol=1e-3)


def test_a_teacher_that_is_sure_is_a_label():
    outputs, _, labels = draw()
    soft = np.eye(4)[labels]  # with probabilities of exactly 0 and 1
    found, gradient = value_and_gradient(
        outputs, taught(labels, soft), weight=1.0, temperature=1.0
    )
    loss = make_loss("cross_entropy", "single")
    of_labels = torch.tensor(outputs, requires_grad=True)
    wanted = loss(of_labels, torch.from_numpy(labels))
    wanted.sum().backward()
    np.testing.assert_allclose(found, wanted.detach(), atol=1e-4)
    np.testing.assert_allclose(gradient, of_labels.grad, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_several_labels_are_problems_of_two_classes(temperature):
    rng = np.random.default_rng(2)
    outputs, soft = rng.normal(0, 2, (5, 3)), rng.random((5, 3))
    labels = rng.integers(0, 2, (5, 3)).astype(float)
    found, gradient = value_and_gradient(
        outputs, taught(labels, soft), "multilabel", weight=1.0,
        temperature=temperature,
    )  # fmt: skip
    for column in range(3):
        pair = np.stack([0 * outputs[:, column], outputs[:, column]], axis=1)
        chances = np.stack([1 - soft[:, column], soft[:, column]], axis=1)
        each, slope = value_and_gradient(
            pair, taught(np.zeros(5, int), chances), weight=1.0, temperature=temperature
        )
        found = found - each / 3
        np.testing.assert_allclose(gradient[:, column], slope[:, 1] / 3, rtol=1e-8)
    np.testing.assert_allclose(found, 0, atol=1e-10)


@pytest.mark.parametrize("name", ["squared_error", "absolute_error", "huber"])
def test_regression_uses_its_own_loss(name):
    rng = np.random.default_rng(3)
    outputs, y, soft = rng.normal(0, 2, (3, 5, 2))
    is_labeled = np.array([True, False, True, True, False])
    found, _ = value_and_gradient(
        outputs, taught(y, soft, is_labeled), "regression", name, weight=0.7
    )
    loss = make_loss(name, "regression")
    of_y, of_teacher = (
        loss(torch.from_numpy(outputs), torch.from_numpy(one)).numpy()
        for one in (y, soft)
    )
    np.testing.assert_allclose(found, 0.3 * of_y * is_labeled + 0.7 * of_teacher)


@pytest.mark.parametrize("task", ["single", "multilabel"])
def test_extreme_probabilities_and_outputs_stay_finite(task):
    outputs = np.array([[1e4, -1e4], [0.0, 0.0]], np.float32)
    soft = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    labels = np.array([0, 1]) if task == "single" else soft
    found, gradient = value_and_gradient(
        outputs, taught(labels, soft), task, weight=0.9, temperature=2.0
    )
    assert np.isfinite(found).all() and np.isfinite(gradient).all()


# In the loop


class Recorder(nn.Module):
    """A teacher that keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        return images.float().mean((2, 3)).softmax(1)


class Student(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        return self.net(images)


def pixel_data(n=12, soft=None):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 10, 10, 3), dtype=np.uint8)
    labels = torch.from_numpy(rng.integers(0, 3, n))
    targets = TaughtTargets(labels, torch.arange(n) < n // 2, soft)
    return PixelData(pixels, targets, torch.ones(n), Augmentation("flip_crop", (8, 8)))


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_a_teacher_sees_the_images_that_the_student_sees(make_net, make_run, mixup):
    teacher, student = Recorder(), Student(make_net())
    run = make_run(
        student,
        loss=make_distillation_loss(
            make_loss("cross_entropy", "single"), "single", weight=0.9, temperature=2.0
        ),
        n_epochs=2,
        mixup=mixup,
        teacher=teacher,
    )
    run.fit(pixel_data())
    assert len(teacher.seen) == len(student.seen) == 4
    for one, other in zip(teacher.seen, student.seen, strict=True):
        assert torch.equal(one, other)
    # The crops of the second epoch are others.
    assert not torch.equal(teacher.seen[0], teacher.seen[2])


def test_samples_without_a_label_learn_from_the_teacher_alone(make_net, make_run):
    """Their labels, which are arbitrary, change nothing."""
    weights = []
    for shift in (0, 1):
        data = pixel_data(soft=torch.full((12, 3), 1 / 3))
        data.targets.values[6:] += shift
        data.targets.values[6:] %= 3
        net = make_net()
        loss = make_distillation_loss(
            make_loss("cross_entropy", "single"), "single", weight=0.5
        )
        make_run(net, loss=loss, n_epochs=1).fit(data)
        weights.append(net[-1].weight.detach())
    assert torch.equal(*weights)


def test_stacked_pixels_are_the_concatenation():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, (n, 2, 3, 3), dtype=np.uint8) for n in (4, 1, 3)]
    stacked, whole = StackedPixels(*parts), np.concatenate(parts)
    assert len(stacked) == 8
    for rows in (np.arange(8), np.array([7, 0, 4, 4, 5]), np.empty(0, int)):
        np.testing.assert_array_equal(stacked[rows], whole[rows])
