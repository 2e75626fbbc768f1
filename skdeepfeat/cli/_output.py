"""Where the command line writes: results to stdout, all else to stderr."""

import json
import logging
import sys

import click

__all__ = ["log_to_stderr", "say", "write_json"]


def say(text):
    """Write a line to stderr, above the progress bar if there is one."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(text, err=True)


def write_json(value):
    """Write a value to stdout for another program to read."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def log_to_stderr(ctx):
    """Show what the package logs, until the command is done."""
    logger = logging.getLogger("skdeepfeat")
    handler = _Handler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    @ctx.call_on_close
    def stop():
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Handler(logging.Handler):
    def emit(self, record):
        say(record.getMessage())
