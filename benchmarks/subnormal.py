"""How much slower subnormal weights make a network, and what zeros in their place do.

The installed network runs with the weights that it has, with a share of them replaced
by subnormal numbers, and with zeros instead of these, side by side, in one thread and
in all. `torch.set_flush_denormal` is tried as well: it holds for the calling thread
only. Prints a table, and writes `subnormal.md`. See `benchmarks/README.md`.
"""

import argparse
import copy
import pathlib
import time

import torch
from _common import describe_machine, machine_line, markdown_table, watch_others

from skdeepfeat.networks import resolve_neck, zero_subnormal

SMALL = 1e-41


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--share", type=float, default=0.1, help="of the channels (0.1)")
    add("--image-size", type=int, default=96, help="pixels (96)")
    add("--batch-size", type=int, default=8)
    add("--rounds", type=int, default=10)
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


def best_times(networks, images, rounds):
    """Return the least milliseconds per image of each network, measured in turns."""
    best = [float("inf")] * len(networks)
    with torch.inference_mode():
        for number in range(rounds + 1):
            for k, network in enumerate(networks):
                start = time.perf_counter()
                network(images)
                if number:  # the first is the warm-up
                    best[k] = min(best[k], time.perf_counter() - start)
    return [1000 * one / len(images) for one in best]


def main(argv=None):
    arguments = parse_arguments(argv)
    neck = resolve_neck(image_size=arguments.image_size)
    as_it_is = neck.trainable().eval().requires_grad_(False)
    tiny = copy.deepcopy(as_it_is)
    n = make_subnormal(tiny.network, arguments.share)
    cured = copy.deepcopy(tiny)
    assert zero_subnormal(cured.network) == n
    size = (arguments.batch_size, 3, arguments.image_size, arguments.image_size)
    images = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    machine, rows = describe_machine(), []
    n_threads = torch.get_num_threads()
    with watch_others(machine):
        for threads in sorted({1, n_threads}):
            torch.set_num_threads(threads)
            for flush in (False, True):
                torch.set_flush_denormal(flush)
                networks = [as_it_is, tiny, cured]
                times = best_times(networks, images, arguments.rounds)
                cells = [f"{one:.2f} ({one / times[0]:.1f}x)" for one in times]
                rows.append([threads, "yes" if flush else "no", *cells])
            torch.set_flush_denormal(False)
    header = [
        "threads", "set_flush_denormal", "as it is", f"{n:,} subnormal numbers",
        "zeros instead",
    ]  # fmt: skip
    text = f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "subnormal.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
