"""``skdeepfeat demo``."""

import click

from .._utils._optional import import_optional


@click.command
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    default="demo_output",
    help="The folder for the picture, the images and the cache.",
)
def demo(output):
    """Search for the best layer and classifier on real images, with a picture.

    There are two tasks on photographs that scikit-image ships. Each search runs twice,
    without and with features in the cache, and is compared with the same classifiers on
    raw pixels. The demo takes about a minute on two cores and needs no connection.
    Install its extra first: pip install 'skdeepfeat[demo]'
    """
    for package in ("skimage", "matplotlib"):
        import_optional(package, extra="demo", purpose="The demo")
    from ._demo_search import run_demo

    run_demo(output)
