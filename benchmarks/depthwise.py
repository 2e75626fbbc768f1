"""Gradients of depthwise convolutions: torch's, and those of `FineTuneClassifier`.

Both take turns with one thread, and the smallest time counts. Shapes are those of
EfficientNet-Lite0 and ConvNeXt. Prints a table, and writes `depthwise.md`.
"""

import argparse
import contextlib
import pathlib
import time

import torch
from _common import describe_machine, machine_line, markdown_table, watch_others
from torch import nn

from skdeepfeat.training._depthwise_gradients import fast_depthwise_gradients

# Images, channels, pixels of a side, kernel and stride.
SHAPES = [
    (32, 1152, 2, 5, 1),
    (32, 672, 4, 5, 1),
    (32, 240, 8, 5, 1),
    (16, 1152, 7, 5, 1),
    (16, 672, 14, 5, 1),
    (16, 240, 28, 5, 1),
    (16, 672, 14, 5, 2),
    (16, 240, 28, 3, 2),
    (8, 96, 56, 7, 1),
    (8, 384, 14, 7, 1),
    (8, 768, 7, 7, 1),
]


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one shape, one round")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("bench_output")
    )
    return parser.parse_args(argv)


def measure(shape, dtype, rounds):
    """Return milliseconds of a convolution and both gradients, and their difference.

    Returns
    -------
    tuple of float
    """
    n_images, n_channels, side, kernel, stride = shape
    torch.manual_seed(0)
    layer = nn.Conv2d(
        n_channels, n_channels, kernel, stride, kernel // 2, groups=n_channels
    )
    layer = layer.to(memory_format=torch.channels_last)
    images = torch.randn(n_images, n_channels, side, side)
    images = images.to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    contexts = (contextlib.nullcontext(), fast_depthwise_gradients(images.device))
    best, found = [float("inf")] * 3, [None, None]
    for _ in range(rounds):
        for i, context in enumerate(contexts):
            autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
            with context, autocast:
                start = time.perf_counter()
                outputs = layer(images)
                best[0] = min(best[0], time.perf_counter() - start)
            weights = torch.ones_like(outputs)
            start = time.perf_counter()
            found[i] = torch.autograd.grad(outputs, [images, layer.weight], weights)
            best[i + 1] = min(best[i + 1], time.perf_counter() - start)
    difference = max(
        float((ours - theirs).norm() / theirs.norm())
        for theirs, ours in zip(*found, strict=True)
    )
    return *(1e3 * seconds for seconds in best), difference


def main(argv=None):
    arguments = parse_arguments(argv)
    shapes = [(2, 8, 6, 5, 1)] if arguments.quick else SHAPES
    rounds = 1 if arguments.quick else arguments.rounds
    torch.set_num_threads(1)
    rows, machine = [], describe_machine()
    with watch_others(machine):
        for dtype in (torch.float32, torch.bfloat16):
            for shape in shapes:
                n_images, n_channels, side, kernel, stride = shape
                convolution, theirs, ours, difference = measure(shape, dtype, rounds)
                rows.append(
                    [
                        str(dtype).removeprefix("torch."),
                        f"{n_images} x {n_channels} x {side} x {side}",
                        f"{kernel} x {kernel}" + f", stride {stride}" * (stride > 1),
                        f"{convolution:.2f}",
                        f"{theirs:.2f}",
                        f"{ours:.2f}",
                        f"{theirs / ours:.1f}",
                        f"{difference:.0e}",
                    ]
                )
    header = [
        "", "inputs", "kernel", "convolution, ms", "its gradients by torch",
        "by this package", "times as fast", "difference",
    ]  # fmt: skip
    text = f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"
    print(text)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "depthwise.md").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
