"""Digests: equal exactly where the content is equal, in every process."""

import enum
import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skdeepfeat._fingerprint import (
    DIGEST_SIZE,
    digest_bytes,
    digest_description,
    digest_file,
    digest_module,
    digest_pixels,
)

PIXELS = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).integers(
        0, 3, (seed % 3 + 1, seed % 2 + 1), dtype=np.uint8
    )
)


@given(st.binary(max_size=100))
def test_file_and_bytes_agree(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("f") / "x"
    path.write_bytes(data)
    assert digest_file(path) == digest_bytes(data)
    assert len(digest_bytes(data)) == DIGEST_SIZE


@given(PIXELS, PIXELS)
def test_pixels_digest_is_that_of_shape_and_values(a, b):
    same = a.shape == b.shape and (a == b).all()
    assert (digest_pixels(a) == digest_pixels(b)) == same


def test_layout_in_memory_does_not_count():
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert digest_pixels(pixels) == digest_pixels(np.asfortranarray(pixels))
    assert digest_pixels(pixels[::2]) == digest_pixels(pixels[::2].copy())


def test_an_array_cannot_pose_as_a_file():
    pixels = np.zeros((2, 2), np.uint8)
    header = f"{pixels.dtype.str}{pixels.shape}".encode()
    assert digest_pixels(pixels) != digest_bytes(header + pixels.tobytes())


def test_description_ignores_the_order_of_keys():
    assert digest_description({"a": 1, "b": [2]}) == digest_description(
        {"b": [2], "a": 1}
    )
    assert digest_description({"a": 1}) != digest_description({"a": 2})


class Mode(enum.Enum):
    ADD = 1
    MULTIPLY = 2


class Net(nn.Module):
    scale = 1.0

    def __init__(self, bias=0.0, tags=("a", "b", "c"), mode=Mode.ADD, f=None):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
            self.linear.bias.zero_()
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.bias = bias
        self.tags = frozenset(tags)
        self.mode = mode
        self.f = f

    def forward(self, x):
        return self.linear(x) + self.bias


class OtherForward(Net):
    def forward(self, x):
        return self.linear(x) - self.bias


class OtherConstant(Net):
    scale = 2.0


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


def with_changed_weight():
    net = Net()
    with torch.no_grad():
        net.linear.weight[0, 0] += 1e-7
    return net


def with_changed_buffer():
    net = Net()
    net.seen += 1
    return net


VARIANTS = {
    "bias": lambda: Net(bias=1.0),
    "tags": lambda: Net(tags=("a", "b")),
    "mode": lambda: Net(mode=Mode.MULTIPLY),
    "forward": OtherForward,
    "class constant": OtherConstant,
    "function": lambda: Net(f=double),
    "other function": lambda: Net(f=triple),
    "partial": lambda: Net(f=functools.partial(double, 1)),
    "weight": with_changed_weight,
    "buffer": with_changed_buffer,
    "dtype": lambda: Net().double(),
    "bfloat16": lambda: Net().bfloat16(),
    "activation": lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
    "other activation": lambda: nn.Sequential(nn.Linear(2, 2), nn.GELU()),
}


def test_whatever_changes_the_output_changes_the_digest():
    digests = {"as it is": digest_module(Net())}
    for name, make in VARIANTS.items():
        torch.manual_seed(0)
        digests[name] = digest_module(make())
    assert len(set(digests.values())) == len(digests)


def test_what_does_not_change_the_output_does_not_count():
    net = Net(f=double)
    before = digest_module(net)
    assert digest_module(net.train()) == digest_module(net.eval()) == before
    net.requires_grad_(False)
    assert digest_module(net) == before
    assert digest_module(Net(f=double)) == before


def test_cycles_end():
    net = Net()
    net.tags = [1]
    net.tags.append(net.tags)
    assert digest_module(net) == digest_module(net)


SCRIPT = """
from joblib import Parallel, delayed
from torch import nn
from skdeepfeat._fingerprint import digest_module


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.names = {"x", "yy", "zzz", "wwww"}

    def forward(self, x):
        return x if self.names & {"a", "b", "c"} else [y for y in x]


print(digest_module(Net()))
print(*Parallel(2)(delayed(digest_module)(Net()) for _ in range(2)), sep="\\n")
"""


@pytest.mark.slow
def test_digest_is_the_same_in_every_process():
    # A class of __main__ travels to joblib's workers by value, without its source;
    # the hash of strings differs from one run to the next.
    digests = set()
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
        )
        lines = run.stdout.split()
        assert len(lines) == 3
        digests.update(lines)
    assert len(digests) == 1
