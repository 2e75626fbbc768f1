"""Small networks for tests; a module of its own, so that joblib's workers find it."""

import os
import signal
import sys
import time

import torch
import torchvision
from torch import nn


def fix_weights(*modules, scale=1.0, seed=0):
    """Give modules the same random parameters each time, whatever was drawn before."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn * scale)


def small_vgg():
    """Return the layers of torchvision's vgg11_bn, with few channels."""
    widths = [8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64]
    return nn.Sequential(
        torchvision.models.vgg.make_layers(widths, batch_norm=True),
        nn.AdaptiveAvgPool2d((7, 7)),
        nn.Flatten(),
        nn.Linear(64 * 49, 48),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(48, 32),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(32, 10),
    )


def is_probe():
    """Say whether the caller is run to find out what network it is."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fingerprint_of":
            return True
        frame = frame.f_back
    return False


class SmallNet(nn.Module):
    """Two stages and a head with fixed weights, fine-tuned in a fraction of a second.

    Out of memory for more than `limit` images, as a GPU.
    """

    def __init__(self, limit=1000):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.last = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 4)
        self.limit = limit
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        if len(x) > self.limit and x.device.type != "meta":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        return self.head(self.last(self.stem(x).relu()).relu().mean((2, 3)))


class StemNet(nn.Module):
    """A convolution, an average and an old head: the least that can be tuned."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 4)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        return self.head(self.stem(x).relu().mean((2, 3)))


class OddNet(SmallNet):
    """Its last map is `value` for white images."""

    def __init__(self, value=float("nan")):
        super().__init__()
        self.value = value

    def forward(self, x):
        white = (x.mean((1, 2, 3), keepdim=True) > 2).to(x.dtype)
        odd = torch.where(white > 0, torch.full_like(white, self.value), 0 * white)
        maps = self.last(self.stem(x).relu()).relu()
        return self.head((maps + odd).mean((2, 3)))


class CountingNet(nn.Module):
    """A tiny CNN that writes to a file how many images went through it.

    A file, not an attribute: every process that works on the same job adds to it, and
    an append of a few bytes is atomic. The environment variable SECONDS_AN_IMAGE
    slows it down without changing what it is. It cannot be converted for another
    runtime, in which it would not write.
    """

    def __init__(self, log, n_features=8):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, n_features, 3, stride=2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.log = str(log)

    def forward(self, x):
        self._count(x)
        return self.conv(x).mean((2, 3))

    def _count(self, x):
        if torch.jit.is_tracing():
            raise NotImplementedError("it counts in torch only")
        if type(x) is torch.Tensor and x.device.type != "meta" and not is_probe():
            descriptor = os.open(self.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.write(descriptor, f"{len(x)} {os.getpid()}\n".encode())
            os.close(descriptor)
            time.sleep(float(os.environ.get("SECONDS_AN_IMAGE", 0)) * len(x))


class CountingStages(CountingNet):
    """Three stages, for images of 32 x 32; counts as `CountingNet` does."""

    def __init__(self, log):
        super().__init__(log, 4)
        self.layer2 = nn.Conv2d(4, 6, 3, stride=2)
        self.layer3 = nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, 2)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        self._count(x)
        maps = self.layer3(self.layer2(self.conv(x).relu()).relu())
        return self.head(maps.mean((2, 3)))


def rows_counted(log):
    """Return how many images went through the networks that write to `log`."""
    if not os.path.exists(log):
        return 0
    with open(log) as lines:
        return sum(int(line.split()[0]) for line in lines)


class AloneNet(CountingNet):
    """Notes besides how many other processes run one at the moment, and its threads."""

    def _count(self, x):
        if type(x) is torch.Tensor and x.device.type != "meta" and not is_probe():
            folder, me = f"{self.log}.running", str(os.getpid())
            os.makedirs(folder, exist_ok=True)
            open(os.path.join(folder, me), "w").close()
            time.sleep(0.02)
            n_others = len(set(os.listdir(folder)) - {me})
            with open(self.log, "a") as log:
                log.write(f"{len(x)} {me} {n_others} {torch.get_num_threads()}\n")
            os.remove(os.path.join(folder, me))


class LimitedMemoryNet(nn.Module):
    """Runs out of memory as a GPU does, for more than `limit` images at once."""

    def __init__(self, limit):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.limit = limit

    def forward(self, x):
        if len(x) > self.limit and x.device.type != "meta":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        return (x * self.scale).mean((2, 3))


class DyingNet(CountingNet):
    """Kills the process it runs in, the first time that `after` images are through.

    Only once, which a file beside the log remembers, unless `always`; and never the
    process it was made in.
    """

    def __init__(self, log, after, always=False):
        super().__init__(log)
        self.after = after
        self.always = always
        self.home = os.getpid()

    def forward(self, x):
        rows = super().forward(x)
        there = os.getpid() != self.home and x.device.type != "meta"
        if there and rows_counted(self.log) >= self.after:
            try:
                os.close(os.open(f"{self.log}.killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                if not self.always:
                    return rows
            os.kill(os.getpid(), signal.SIGKILL)
        return rows


class FailingNet(CountingNet):
    """Fails, as code with a mistake does, when `after` images are through."""

    def __init__(self, log, after):
        super().__init__(log)
        self.after = after

    def forward(self, x):
        is_real = x.device.type != "meta" and not is_probe()
        if is_real and rows_counted(self.log) >= self.after:
            raise ZeroDivisionError("a mistake in forward")
        return super().forward(x)


class NormNet(nn.Module):
    """A convolution, a batch norm and a linear layer, always with the same weights."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 8, 3, stride=2)
            self.norm = nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 4)

    def forward(self, images):
        maps = torch.relu(self.norm(self.stem(images)))
        return self.head(maps.mean((2, 3)))


class WideNet(nn.Module):
    """So many features of small images that torch computes with them in threads."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.last = nn.Conv2d(64, 4096, 1, stride=4)
        self.head = nn.Linear(4096, 2)
        fix_weights(self, scale=1 / 8)

    def forward(self, x):
        return self.head(self.last(self.stem(x).relu()).relu().mean((2, 3)))
