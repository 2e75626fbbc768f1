"""The program itself, and the commands it has."""

import click

from .. import __version__
from ._cache_command import cache
from ._demo_command import demo
from ._extract_command import extract
from ._network_commands import layers, models
from ._program import Program, debug_option

__all__ = ["main"]

_EPILOG = """\b
Exit status:
    0  done (with --on-error nan also if images could not be read)
    1  failed: a broken image, weights not found, out of memory, a damaged cache
    2  the command itself is wrong
  130  interrupted by Ctrl-C; the same command goes on from there
  143  the same by SIGTERM
"""


@click.group(
    cls=Program,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@click.version_option(__version__, prog_name="skdeepfeat")
@debug_option
def main():
    """Features of images from pretrained networks, each image computed once."""


for _command in (extract, models, layers, cache, demo):
    main.add_command(_command)
