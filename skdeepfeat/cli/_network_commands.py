"""``skdeepfeat models`` and ``skdeepfeat layers``."""

import click

from .._utils._choices import SOURCES
from ._options import image_size_option, json_option, weights_option
from ._output import format_table, write_result
from ._program import usage_errors


@click.command
@click.argument("pattern", required=False)
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    help="List only the networks of one source.",
)
@click.option(
    "--tags",
    is_flag=True,
    help="List each timm network once per set of weights.",
)
@json_option
def models(pattern, source, tags, as_json):
    """List the networks, one name per line.

    PATTERN is a shell pattern such as "*convnext*tiny*" (quote it). Case does not
    matter. If nothing matches, the exit status is 1.
    """
    from .. import list_models
    from .._utils._parameter_errors import did_you_mean

    names = list_models(pattern, source=source, tags=tags)
    if not names:
        hint = did_you_mean(pattern or "", list_models(source=source))
        raise click.ClickException(f"No network matches {pattern!r}.{hint}")
    write_result(as_json, names, names)


@click.command
@click.argument("model")
@weights_option
@image_size_option
@click.option(
    "--stages", is_flag=True, help="List only the stages, the neck and the output."
)
@json_option
def layers(model, weights, image_size, stages, as_json):
    """List the layers of MODEL whose output can be used as features.

    The layers are in the order in which they run. Names and stage numbers are both
    values for --layer of `skdeepfeat extract`. The other columns describe the output,
    the number of parameters, the share of the cost of the network, and the share up to
    and including this layer. No weights are downloaded.
    """
    from .. import list_layers

    with usage_errors():
        frame = list_layers(model, weights=weights, image_size=image_size)
    if stages:
        ends = frame["name"].isin(["neck", "output"])
        frame = frame[frame["stage"].notna() | ends]
    write_result(as_json, frame, _as_table(frame))


def _as_table(frame):
    table = frame[["name", "kind"]].assign(
        shape=["x".join(map(str, shape)) for shape in frame["output_shape"]],
        layout=frame["layout"],
        stage=frame["stage"].astype("string").fillna(""),
        parameters=frame["n_parameters"].map("{:,}".format),
        cost=frame["share_of_cost"].map("{:.1%}".format),
    )
    table["until here"] = frame["cumulative_cost"].map("{:.1%}".format)
    return format_table(table, left={"name", "kind", "shape", "layout"})
