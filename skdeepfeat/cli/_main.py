"""The program and its commands."""

import click

from .. import __version__
from ._cache_command import cache
from ._compress_command import compress
from ._demo_command import demo
from ._extract_command import extract
from ._network_commands import layers, models
from ._program import Program, debug_option

_EPILOG = """\b
Exit status:
    0  success (with --on-error nan, even if some images could not be read)
    1  failure: a broken image, weights not found, out of memory, a damaged cache
    2  usage error
  130  interrupted by Ctrl-C; run the same command again to continue
  143  terminated by SIGTERM; run the same command again to continue
"""


@click.group(
    cls=Program,
    epilog=_EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 96,
        "show_default": True,
    },
)
@click.version_option(__version__, prog_name="skdeepfeat")
@debug_option
def main():
    """Extract features from images with pretrained networks."""


for _command in (extract, models, layers, compress, cache, demo):
    main.add_command(debug_option(_command))
for _command in cache.commands.values():
    debug_option(_command)
