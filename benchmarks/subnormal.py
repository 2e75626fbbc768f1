"""How much slower subnormal numbers make a network, and what zeros in their place do.

First single operations on a million numbers: normal ones, subnormal ones, zeros, and
subnormal ones after `torch.set_flush_denormal`, which holds for the calling thread
only. Then a network with SiLU, some of whose channels have subnormal scales and shifts
as dead channels get them by weight decay; and the same with zeros in their place.
Prints two tables, and writes `subnormal.md`. See `benchmarks/README.md`.
"""

import argparse
import copy
import pathlib
import time
from functools import partial

import torch
from _common import describe_machine, machine_line, markdown_table, watch_others
from torch.nn import functional

from skdeepfeat.networks import resolve_neck, zero_subnormal

SMALL = 1e-41
OPERATIONS = {
    "product": lambda x: x * 0.5,
    "quotient": lambda x: x / 3,
    "square root": torch.sqrt,
    "SiLU": functional.silu,
    "GELU": functional.gelu,
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="efficientnet_b0", help="with random weights")
    add("--share", type=float, default=0.5, help="of the channels (0.5)")
    add("--image-size", type=int, default=64, help="pixels (64)")
    add("--batch-size", type=int, default=4)
    add("--rounds", type=int, default=20)
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    return parser.parse_args(argv)


@torch.no_grad()
def make_subnormal(network, share):
    """Make all weights and shifts of some channels tiny, as decay does to dead ones.

    Returns
    -------
    int
        How many numbers are subnormal now.
    """
    generator = torch.Generator().manual_seed(0)
    n = 0
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            gone = torch.rand(layer.num_features, generator=generator) < share
            for tensor in (layer.weight, layer.bias):
                tensor[gone] = SMALL
                n += int(gone.sum())
    return n


def best_times(calls, rounds):
    """Return the least milliseconds of each call, measured in turns."""
    best = [float("inf")] * len(calls)
    with torch.inference_mode():
        for number in range(rounds + 1):
            for k, call in enumerate(calls):
                start = time.perf_counter()
                call()
                if number:  # the first is the warm-up
                    best[k] = min(best[k], time.perf_counter() - start)
    return [1000 * one for one in best]


def time_operations(rounds):
    """Yield a row for each number of threads and operation."""
    normal = torch.rand(1000, 1000, generator=torch.Generator().manual_seed(0)) + 0.5
    tiny, zeros = normal * SMALL, torch.zeros_like(normal)
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        for name, operation in OPERATIONS.items():
            calls = [partial(operation, x) for x in (normal, tiny, zeros)]
            times = best_times(calls, rounds)
            torch.set_flush_denormal(True)
            times += best_times(calls[1:2], rounds)
            torch.set_flush_denormal(False)
            yield [name, threads, *_cells(times)]


def time_network(arguments):
    """Return the row of the network, in one thread."""
    torch.set_num_threads(1)
    neck = resolve_neck(
        arguments.model, weights="random", image_size=arguments.image_size
    )
    as_it_is = neck.trainable().eval().requires_grad_(False)
    tiny = copy.deepcopy(as_it_is)
    n = make_subnormal(tiny.network, arguments.share)
    cured = copy.deepcopy(tiny)
    assert zero_subnormal(cured.network) >= n
    size = (arguments.batch_size, 3, arguments.image_size, arguments.image_size)
    images = torch.rand(size, generator=torch.Generator().manual_seed(0))
    calls = [partial(one, images) for one in (as_it_is, tiny, cured)]
    return [arguments.model, f"{n:,}", *_cells(best_times(calls, arguments.rounds))]


def _cells(times):
    return [f"{one:.2f} ({one / times[0]:.1f}x)" for one in times]


def main(argv=None):
    arguments = parse_arguments(argv)
    machine = describe_machine()
    with watch_others(machine):
        operations = list(time_operations(arguments.rounds))
        network = time_network(arguments)
    numbers = ["normal, ms", "subnormal", "zeros", "set_flush_denormal"]
    tables = [
        markdown_table(["operation", "threads", *numbers], operations),
        markdown_table(["network", "subnormal numbers", *numbers[:3]], [network]),
    ]
    text = "\n\n".join([*tables, machine_line(machine)])
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "subnormal.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
