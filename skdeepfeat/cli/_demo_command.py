"""``skdeepfeat demo``."""

import click

from .._utils._optional import import_optional


@click.command
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    default="demo_output",
    help="Folder for the plot, the images and the cache.",
)
def demo(output):
    """Search for the best layer and classifier on real images, and plot the scores.

    There are two tasks, on photographs that come with scikit-image. Each search runs
    twice, the second time with all features cached. The same classifiers on raw pixels
    are the baseline. The demo takes about a minute on two cores and needs no
    connection. Install its extra first: pip install 'skdeepfeat[demo]'
    """
    for package in ("skimage", "matplotlib"):
        import_optional(package, extra="demo", purpose="The demo")
    from ._demo_search import run_demo

    run_demo(output)
