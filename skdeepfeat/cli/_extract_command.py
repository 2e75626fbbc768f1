"""``skdeepfeat extract``: images in, a file of features out."""

import csv
import io
import os
import sys
import time

import click

from .._utils._address import is_address
from .._utils._atomic_file import write_atomically
from .._utils._choices import (
    FILE_FORMATS,
    JPEG_DECODERS,
    POOLINGS,
    PRECISIONS,
    RUNTIMES,
)
from .._utils._printable import printable
from ._inputs import collect_paths
from ._options import (
    BatchSize,
    CacheSize,
    Devices,
    ImageSize,
    Jobs,
    Layer,
    LayerList,
    StorageOption,
    debug_option,
    weights_option,
)
from ._output import give_bars_room, log_to_stderr, say
from ._program import set_resume_hint, show_all_warnings, usage_errors

__all__ = ["extract"]


def _check_output(ctx, param, value):
    ending = os.path.splitext(value.rstrip("/"))[1]
    if ending not in FILE_FORMATS:
        *others, last = FILE_FORMATS
        raise click.BadParameter(
            f"{value!r} must end in {', '.join(others)} or {last}."
        )
    folder = os.path.dirname(os.path.abspath(value))
    if not os.path.isdir(folder):
        raise click.BadParameter(f"there is no folder {folder!r}.")
    return value


def _check_cache(ctx, param, value):
    if not value or is_address(value):
        raise click.BadParameter(f"{value!r} must be a folder, or none.")
    return value


@click.command
@click.argument("images", nargs=-1, metavar="[IMAGES|FOLDERS]...")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    callback=_check_output,
    help="Where the features go: .parquet, .npy or .zarr.",
)
@click.option(
    "--from-file",
    metavar="FILE",
    help="A file that lists images: one path a line, or a table (.csv, .tsv, "
    ".parquet). - is the standard input.",
)
@click.option("--column", metavar="NAME", help="The table's column with the paths.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False),
    help="Where relative paths of --from-file begin, instead of the working directory.",
)
@click.option(
    "--remote",
    is_flag=True,
    help="Read addresses of images and folders such as s3://bucket/1.jpg or "
    "zip://photos::all.zip, by fsspec.",
)
@click.option(
    "--storage-option",
    "storage_options",
    type=StorageOption(),
    multiple=True,
    metavar="KEY=VALUE",
    help="What the file system of addresses takes, such as anon=true; may be repeated, "
    "and means --remote. Secrets are better left to its own variables and files.",
)
@click.option(
    "--model",
    default="efficientnet_lite0",
    show_default=True,
    metavar="NAME",
    help="The network; `skdeepfeat models` lists them.",
)
@weights_option
@click.option(
    "--layer",
    type=Layer(),
    multiple=True,
    metavar="NAME|N",
    help="A layer, or a stage by its number; may be repeated, for several side by "
    "side. `skdeepfeat layers MODEL` lists them. By default the neck: what enters the "
    "last linear layer.",
)
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    default="auto",
    show_default=True,
    help="How the map of a layer becomes a row.",
)
@click.option(
    "--image-size",
    type=ImageSize(),
    metavar="N|HxW",
    help="Pixels, instead of the weights' own size.",
)
@click.option(
    "--batch-size",
    type=BatchSize(),
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="How many images run at once.",
)
@click.option(
    "--device",
    type=Devices(),
    default="auto",
    show_default=True,
    metavar="NAME[,NAME...]",
    help="Such as cpu or cuda; several, such as cuda:0,cuda:1, share the batches.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="What the network computes in; the features are float32.",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="What runs the network: on a CPU OpenVINO, where it is installed and pays; "
    "compile is torch.compile.",
)
@click.option(
    "--jpeg-decoder",
    type=click.Choice(JPEG_DECODERS),
    default="pillow",
    show_default=True,
    help="What decodes JPEGs: device is a CUDA device, for fast ones beside few cores.",
)
@click.option(
    "--n-jobs",
    type=Jobs(),
    metavar="N",
    help="Processes that share out the work; rarely worth it, as one uses all cores.",
)
@click.option(
    "--cache",
    default="default",
    callback=_check_cache,
    show_default=True,
    metavar="DIR|none",
    help="Where computed rows are kept for the next time.",
)
@click.option(
    "--cache-size",
    type=CacheSize(),
    default="10 GB",
    show_default=True,
    metavar="SIZE|none",
    help="What the cache may take on disk.",
)
@click.option(
    "--cache-layers",
    type=LayerList(),
    metavar="stages|LIST",
    help="Layers to compute as well, in the same pass, and keep in the cache for a "
    "search to come: stages, or a list such as 2,3,neck.",
)
@click.option(
    "--on-error",
    type=click.Choice(("raise", "nan")),
    default="raise",
    show_default=True,
    help="What to do with an image that cannot be read: end, or put a row of NaN "
    "there and go on.",
)
@click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Show nothing but warnings and errors."
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Show progress even where stderr is not a terminal, and log messages.",
)
@debug_option
@click.pass_context
def extract(
    ctx,
    images,
    output,
    from_file,
    column,
    root,
    remote,
    quiet,
    verbose,
    overwrite,
    storage_options,
    **options,
):
    """Write the features of images to a file, one row an image.

    Rows are in the order of the arguments; folders are searched through, and their
    images sorted by path. A .parquet file has the path of every image beside its
    features. .npy and .zarr hold the numbers alone, so the paths stand in a table
    beside them, in the same order: features.npy and features.npy.images.csv.

    \b
    skdeepfeat extract photos/ -o features.parquet
    skdeepfeat extract photos/ -o features.npy --model resnet50 --layer 3 --layer neck
    skdeepfeat extract --from-file train.csv --column path -o features.parquet

    An image that was computed before, whatever the command or script, comes from the
    cache. An interrupted run goes on where it stopped when it is started again.
    """  # noqa: D301 - click looks for the character, not for a backslash
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    give_bars_room()
    storage_options = dict(storage_options) if remote or storage_options else None
    paths, n_skipped = collect_paths(images, from_file, column, root, storage_options)
    _refuse_addresses(paths, storage_options is not None)
    if verbose:
        log_to_stderr(ctx)
        show_all_warnings()
    if n_skipped and not quiet:
        say(f"{n_skipped:,} other file(s) in the folders passed over.")
    shows_progress = verbose or (not quiet and sys.stderr.isatty())
    extractor = _make_extractor(
        verbose=int(shows_progress),
        storage_options=storage_options,
        **options,
    )
    _check_parameters(extractor, paths)
    beside = _path_beside(output)
    if beside is not None and not overwrite:
        _refuse_other_paths(beside, paths)
    set_resume_hint(ctx, " Run the same command again: it goes on from there.")
    start = time.perf_counter()
    written = extractor.extract_to(paths, output, overwrite=overwrite)
    if beside is not None:
        write_atomically(beside, _table_of(paths))
    if not quiet:
        n_features = len(extractor.get_feature_names_out())
        seconds = time.perf_counter() - start
        say(
            f"{printable(written)}: {len(paths):,} rows x {n_features:,} features in "
            f"{seconds:.1f} s."
        )


def _refuse_addresses(paths, is_remote):
    """Nothing is read over a network without being asked for."""
    for path in paths:
        if not is_remote and isinstance(path, str) and is_address(path):
            raise click.UsageError(
                f"{path!r} is an address: with --remote, it is read through fsspec."
            )


def _make_extractor(layer, cache, cache_size, **parameters):
    from .. import FeatureCache, PretrainedFeatureExtractor

    if cache.lower() == "none":
        store = None
    else:
        store = FeatureCache(None if cache == "default" else cache, cache_size)
    layer = (list(layer) if len(layer) > 1 else layer[0]) if layer else None
    return PretrainedFeatureExtractor(layer=layer, cache=store, **parameters)


def _check_parameters(extractor, paths):
    """Find what is wrong with the command before any image is read."""
    from .._utils._device import resolve_devices

    with usage_errors():
        extractor.fit(paths)
        resolve_devices(extractor.device)


def _path_beside(output):
    """Return where the paths of the images go, or None: Parquet files hold them."""
    output = output.rstrip("/")
    if output.endswith(".parquet"):
        return None
    beside = f"{output}.images.csv"
    if os.path.exists(beside) and not os.path.isfile(beside):
        raise click.ClickException(
            f"{beside!r} is a folder or a special file, where the table of paths must "
            "go: remove it, or choose another --output."
        )
    return beside


def _refuse_other_paths(beside, paths):
    """Raise before anything is computed if the table of another output is there."""
    try:
        with open(beside, "rb") as file:
            is_same = file.read() == _table_of(paths)
    except FileNotFoundError:
        return
    if not is_same:
        raise click.ClickException(
            f"{beside!r} lists other images, or was not written by this command. Use "
            "--overwrite to replace it, or choose another --output."
        )


def _table_of(paths):
    """Return a table of one column, under the name that Parquet files give it."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image"])
    rows.writerows([each] for each in paths)
    # File names need not be text; they come back from the same coding.
    return text.getvalue().encode("utf-8", "surrogateescape")
