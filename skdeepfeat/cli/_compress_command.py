"""``skdeepfeat compress``: a fitted estimator in, a smaller one out."""

import os
import pathlib
import sys
import tempfile
import warnings

import click

from .._utils import _choices
from .._utils._printable import printable
from . import _options
from ._inputs import collect_paths
from ._output import format_table, log_to_stderr, say, shown, write_result
from ._program import usage_errors


@click.command
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("images", nargs=-1, required=True, metavar="IMAGES|FOLDERS...")
@_options.output_option(
    (".safetensors", ".onnx"),
    "The file to write: .safetensors, to load in Python, or .onnx.",
)
@click.option(
    "--method",
    "methods",
    type=click.Choice(_choices.COMPRESSION_METHODS),
    multiple=True,
    default=["low_rank"],
    help="How to make the network smaller. If repeated, methods apply in this order.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    default=0.01,
    metavar="SCORE",
    help="Maximum drop of the score on held-out images.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Select the largest network of at most N bytes, whatever its score.",
)
@click.option(
    "--criterion",
    type=click.Choice(_choices.PRUNING_CRITERIA),
    default="taylor",
    help="How --method prune selects the channels to remove.",
)
@click.option(
    "--fine-tune-epochs",
    type=click.IntRange(min=0),
    metavar="N",
    help="Epochs of training for each smaller network. The default is about 400 steps, "
    "at least 2 and at most 4 epochs.",
)
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    metavar="FRACTION",
    help="Fraction of the images that is held out to compute scores.",
)
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(_choices.TIMED_RUNTIMES),
    multiple=True,
    help="Runtime in which to measure the time per image. May be repeated. By default, "
    "all installed runtimes are timed.",
)
@_options.random_state_option
@_options.overwrite_option
@_options.json_option
@_options.quiet_option
@_options.verbose_option
@click.pass_context
def compress(
    ctx,
    model,
    images,
    output,
    methods,
    max_drop,
    fine_tune_epochs,
    runtimes,
    overwrite,
    as_json,
    quiet,
    verbose,
    **settings,
):
    """Make the network of a fitted classifier as small as the score allows.

    MODEL is a file that FineTuneClassifier.save wrote. The label of an image is the
    name of its closest parent folder that has the name of a class:

    \b
    skdeepfeat compress model.safetensors photos/ -o small.safetensors
    skdeepfeat compress model.safetensors photos/ -o small.onnx --method prune \\
        --method low_rank --max-drop 0.02

    The report on stdout first lists the layers that have changed. Then it lists score,
    parameters, megabytes and milliseconds per image, before and after each method.
    Use Python for regressors, several labels per image, and your own networks.
    """  # noqa: D301 - click looks for the character, not for a backslash
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose cannot be combined.")
    if os.path.lexists(output):
        if not overwrite:
            raise click.UsageError(f"{output!r} exists: --overwrite replaces it.")
        if os.path.exists(output) and os.path.samefile(model, output):
            raise click.UsageError(
                f"{output!r} is the model itself, which would be overwritten. Choose "
                "another --output."
            )
    paths = collect_paths(images, quiet=quiet)
    classifier = _load(model)
    labels = _labels_of(paths, classifier.classes_)
    _check_classes(labels, classifier.classes_)
    if output.endswith(".onnx"):
        _check_export(classifier)
    if verbose:
        log_to_stderr(ctx)
    elif not quiet and sys.stderr.isatty():
        log_to_stderr(ctx, "skdeepfeat.compression")

    from ..compression import compress as make_smaller

    with usage_errors(), warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        small = make_smaller(
            classifier,
            paths,
            labels,
            method=list(methods),
            max_score_drop=max_drop,
            fine_tune_epochs="auto" if fine_tune_epochs is None else fine_tune_epochs,
            runtimes=list(runtimes) or "installed",
            **settings,
        )
    write = small.to_onnx if output.endswith(".onnx") else small.save
    write(output)
    report, summary = small.compression_report_, small.compression_summary_
    lines = [*_layer_lines(report), "", *_network_lines(summary)]
    write_result(as_json, {"layers": report, "networks": summary}, lines)
    if not quiet:
        n_bytes = os.path.getsize(output)
        say(f"{printable(output)}: {n_bytes / 1e6:.2f} MB, {len(paths):,} images.")


def _check_export(classifier):
    """Raise before the work, which may take hours, if ONNX files cannot be written."""
    with usage_errors(), tempfile.TemporaryDirectory() as folder:
        classifier.to_onnx(os.path.join(folder, "before.onnx"))


def _load(path):
    from .. import FineTuneClassifier

    with usage_errors():
        classifier = FineTuneClassifier.load(path)
    if classifier.multilabel_:
        raise click.UsageError(
            f"{path!r} has several labels per image, and folders give one. Use "
            "skdeepfeat.compression.compress in Python."
        )
    return classifier


def _labels_of(paths, classes):
    """Return the class of each image: its closest parent folder named like a class."""
    by_name = {str(label): label for label in classes.tolist()}
    labels = []
    for path in paths:
        folders = [
            folder.name for folder in pathlib.Path(os.path.abspath(path)).parents
        ]
        found = next((name for name in folders if name in by_name), None)
        if found is None:
            names = ", ".join(f"{name:.40}" for name in list(by_name)[:12])
            raise click.UsageError(
                f"{path!r} is in no folder that is named like a class of the model: "
                f"{names}{', ...' if len(by_name) > 12 else ''}."
            )
        labels.append(by_name[found])
    return labels


def _check_classes(labels, classes):
    """Warn of classes without images; raise if all images are of one class."""
    lacking = [str(label) for label in classes.tolist() if label not in set(labels)]
    if not lacking:
        return
    names = f"{', '.join(lacking[:12])}{', ...' if len(lacking) > 12 else ''}"
    if len(lacking) == len(classes) - 1:
        raise click.UsageError(
            f"All images are of the class {str(labels[0])!r}, but a score requires at "
            f"least two classes. There are no images of {names}."
        )
    say(
        f"Warning: there are no images of {names}. The small network may not recognize "
        "these classes."
    )


def _layer_lines(report):
    changed = report[report["kind"] != "unchanged"]
    table = changed[["method", "layer", "kind", "size"]].assign(
        parameters=changed["parameters"].map("{:,}".format),
        before=changed["parameters_before"].map("{:,}".format),
        error=changed["relative_error"].map(lambda e: "" if e != e else f"{e:.3f}"),
    )
    n_left = len(report) - len(changed)
    lines = format_table(table, left=("method", "layer", "kind"))
    return [*lines, f"{n_left:,} rows of unchanged layers are not shown."]


def _network_lines(summary):
    table = summary[["network"]].assign(
        score=summary["score"].map("{:.4f}".format),
        parameters=summary["parameters"].map("{:,}".format),
        MB=summary["bytes"].map(lambda n: f"{n / 1e6:.2f}"),
    )
    for column in summary:
        if column.startswith("ms_per_image_"):
            runtime, n = column.removeprefix("ms_per_image_").rsplit("_", 1)
            table[f"ms, {shown(runtime)}, batch {n}"] = summary[column].map(
                "{:.2f}".format
            )
    return format_table(table, left=("network",))
