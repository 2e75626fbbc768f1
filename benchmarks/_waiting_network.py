"""A network that waits as if another machine's accelerator were computing."""

import time

import torch


class WaitingNet(torch.nn.Module):
    """Mean colors, after a while.

    Parameters
    ----------
    seconds : float
        How long each image takes.
    """

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.layer = torch.nn.Conv2d(3, 32, 1)

    def forward(self, x):
        time.sleep(self.seconds * len(x))
        return self.layer(x).mean((2, 3))
