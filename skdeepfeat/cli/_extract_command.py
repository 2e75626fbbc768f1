"""``skdeepfeat extract``: images in, a file of features out."""

import os
import sys
import time

import click

from .._utils import _choices
from .._utils._address import is_address, is_like_address
from .._utils._plain_file import write_atomically
from .._utils._printable import printable
from . import _options
from ._inputs import collect_paths
from ._output import log_to_stderr, say
from ._program import set_resume_hint, show_all_warnings, usage_errors


def _check_cache(ctx, param, value):
    if not value or is_like_address(value):
        raise click.BadParameter(f"{value!r} must be a folder, or none.")
    return value


@click.command
@click.argument("images", nargs=-1, metavar="[IMAGES|FOLDERS]...")
@_options.output_option(
    _choices.FILE_FORMATS, "The file to write: .parquet, .npy or .zarr."
)
@click.option(
    "--from-file",
    metavar="FILE",
    help="A file that lists images: one path per line, or a table (.csv, .tsv, "
    ".parquet). - is the standard input.",
)
@click.option(
    "--column", metavar="NAME", help="Column of the table that holds the paths."
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of the relative paths in --from-file. By default, the working "
    "directory.",
)
@click.option(
    "--remote",
    is_flag=True,
    help="Read images and folders from addresses, such as s3://bucket/1.jpg or "
    "zip://photos::all.zip, with fsspec.",
)
@click.option(
    "--storage-option",
    "storage_options",
    type=_options.storage_option,
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the remote file system, such as anon=true. May be repeated. "
    "Implies --remote. Pass secrets in environment variables or configuration files of "
    "the file system instead.",
)
@click.option(
    "--model",
    default="efficientnet_lite0",
    metavar="NAME",
    help="The network; `skdeepfeat models` lists them.",
)
@_options.weights_option
@click.option(
    "--layer",
    type=_options.layer,
    multiple=True,
    metavar="NAME|N",
    help="The layer whose output is written: a name, or the number of a stage. May be "
    "repeated; the features are then concatenated. `skdeepfeat layers MODEL` lists the "
    "layers. The default is the neck, the input of the last linear layer.",
)
@click.option(
    "--pooling",
    type=click.Choice(_choices.POOLINGS),
    default="auto",
    help="How the output of a layer is reduced to one vector per image.",
)
@_options.image_size_option
@click.option(
    "--batch-size",
    type=_options.batch_size,
    default="auto",
    metavar="N|auto",
    help="Number of images that run through the network at once.",
)
@click.option(
    "--device",
    type=_options.devices,
    default="auto",
    metavar="NAME[,NAME...]",
    help="Device that runs the network, such as cpu or cuda. Several devices, such as "
    "cuda:0,cuda:1, share the batches.",
)
@click.option(
    "--precision",
    type=click.Choice(_choices.PRECISIONS),
    default="float32",
    help="Precision of the network's computations. The features are always float32.",
)
@click.option(
    "--runtime",
    type=click.Choice(_choices.RUNTIMES),
    default="auto",
    help="Library that runs the network. auto selects OpenVINO on a CPU if it is "
    "installed and there are enough images, and torch otherwise. compile uses "
    "torch.compile.",
)
@click.option(
    "--n-jobs",
    type=_options.n_jobs,
    metavar="N",
    help="Number of processes. One already uses all cores, so more rarely help.",
)
@click.option(
    "--cache",
    default="default",
    callback=_check_cache,
    metavar="DIR|none",
    help="Directory of the feature cache. none disables it.",
)
@click.option(
    "--cache-size",
    type=_options.cache_size,
    default="10 GB",
    metavar="SIZE|none",
    help="Maximum size of the cache on disk.",
)
@click.option(
    "--cache-layers",
    type=_options.layer_list,
    metavar="stages|LIST",
    help="Additional layers to compute and cache in the same pass, for a later search: "
    "stages, or a list such as 2,3,neck.",
)
@click.option(
    "--on-error",
    type=click.Choice(_choices.ON_ERROR),
    default="raise",
    help="What to do with an image that cannot be read: stop, or write a row of NaN "
    "and continue.",
)
@_options.overwrite_option
@_options.quiet_option
@_options.verbose_option
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
    """Write the features of images to a file, one row per image.

    Rows are in the order of the arguments. The images of a folder and its subfolders
    are sorted by path. A .parquet file includes the path of every image. A .npy or
    .zarr file holds only numbers, so the paths are written to a table next to it, in
    the same order: features.npy and features.npy.images.csv.

    \b
    skdeepfeat extract photos/ -o features.parquet
    skdeepfeat extract photos/ -o features.npy --model resnet50 --layer 3 --layer neck
    skdeepfeat extract --from-file train.csv --column path -o features.parquet

    Features that an earlier command or script computed come from the cache. To continue
    an interrupted run, run the same command again.
    """  # noqa: D301 - click looks for the character, not for a backslash
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose cannot be combined.")
    storage_options = dict(storage_options) if remote or storage_options else None
    paths = collect_paths(images, from_file, column, root, storage_options, quiet=quiet)
    _refuse_addresses(paths, storage_options is not None)
    if verbose:
        log_to_stderr(ctx)
        show_all_warnings()
    shows_progress = verbose or (not quiet and sys.stderr.isatty())
    extractor = _make_extractor(
        verbose=int(shows_progress), storage_options=storage_options, **options
    )
    with usage_errors():  # before any image is read
        extractor.fit(paths)
    table = _table_path(output)
    if table is not None and not overwrite:
        _refuse_other_paths(table, paths)
    set_resume_hint(ctx, " Run the same command again to continue.")
    start = time.perf_counter()
    written = extractor.extract_to(paths, output, overwrite=overwrite)
    if table is not None:
        write_atomically(table, _table_of(paths))
    if not quiet:
        n_features = len(extractor.get_feature_names_out())
        seconds = time.perf_counter() - start
        say(
            f"{printable(written)}: {len(paths):,} rows x {n_features:,} features in "
            f"{seconds:.1f} s."
        )


def _refuse_addresses(paths, is_remote):
    """Raise for addresses, unless reading over a network was requested."""
    texts = (path for path in paths if isinstance(path, str))
    if not is_remote and (address := next(filter(is_address, texts), None)):
        raise click.UsageError(
            f"{address!r} is an address: with --remote, fsspec reads it."
        )


def _make_extractor(layer, cache, cache_size, **parameters):
    from .. import FeatureCache, PretrainedFeatureExtractor

    if cache.lower() == "none":
        store = None
    else:
        store = FeatureCache(None if cache == "default" else cache, cache_size)
    layer = (list(layer) if len(layer) > 1 else layer[0]) if layer else None
    return PretrainedFeatureExtractor(layer=layer, cache=store, **parameters)


def _table_path(output):
    """Return where to write the paths of the images, or None for Parquet files."""
    output = output.rstrip("/")
    if output.endswith(".parquet"):
        return None
    table = f"{output}.images.csv"
    if os.path.exists(table) and not os.path.isfile(table):
        raise click.ClickException(
            f"{table!r} is a folder or a special file, so the table of paths cannot be "
            "written there: remove it, or choose another --output."
        )
    return table


def _refuse_other_paths(table, paths):
    """Raise if there is the table of another output, before anything is computed."""
    try:
        with open(table, "rb") as file:
            is_same = file.read() == _table_of(paths)
    except FileNotFoundError:
        return
    if not is_same:
        raise click.ClickException(
            f"{table!r} lists other images, or was not written by this command. Use "
            "--overwrite to replace it, or choose another --output."
        )


def _table_of(paths):
    """Return a table of one column, with the same name as in Parquet files."""
    import pandas as pd

    column = pd.Series(paths, name="image", dtype=object)
    text = column.to_csv(index=False, lineterminator="\n")
    # File names may not be valid UTF-8. The same encoding restores them.
    return text.encode("utf-8", "surrogateescape")
