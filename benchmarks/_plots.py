"""The pictures of the benchmark."""

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")

_VARIED = {
    "image_size": ("size of the image, pixels", "batch_size"),
    "batch_size": ("images a batch", "image_size"),
}


def plot_sweep(results, folder):
    """Draw images/s against the size of the images and of the batches.

    Parameters
    ----------
    results : list of dict
        With ``image_size``, ``batch_size``, ``runtime`` and ``images_per_s``.
    folder : pathlib.Path
        ``image_size.png`` and ``batch_size.png`` are written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for varied, (label, fixed) in _VARIED.items():
        value = _most_frequent([result[fixed] for result in results])
        part = [result for result in results if result[fixed] == value]
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for runtime in dict.fromkeys(result["runtime"] for result in part):
            points = sorted(
                (result[varied], result["images_per_s"])
                for result in part
                if result["runtime"] == runtime
            )
            axes.plot(*zip(*points, strict=True), marker="o", label=runtime)
        sizes = sorted({result[varied] for result in part})
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set(
            xlabel=label,
            ylabel="images/s",
            title=f"efficientnet_lite0, {fixed.replace('_', ' ')} {value}",
        )
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(folder / f"{varied}.png", dpi=120)


def _most_frequent(values):
    return max(set(values), key=values.count)
