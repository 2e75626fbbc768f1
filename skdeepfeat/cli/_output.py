"""What the command line writes: results to stdout, everything else to stderr."""

import datetime
import json
import logging
import sys

import click

from .._utils._printable import printable, printable_lines, redacted


def shown(text):
    """Return text that is safe to show, as it may include any names and errors."""
    return redacted(printable_lines(text))


def echo(text):
    """Write a result for people to stdout."""
    click.echo(shown(text))


def show_any_character():
    """Have streams write escapes for characters that their encoding lacks.

    The encodings of consoles on Windows lack many, and so do those of redirected files.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text):
    """Write a line to stderr, above the progress bar if there is one."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(shown(text), err=True)


def format_table(table, left=()):
    """Return the lines of a table of texts, with its header.

    Parameters
    ----------
    table : DataFrame
    left : collection of str
        Columns that are aligned at the left.
    """
    table = table.map(printable)
    texts = [table.columns.tolist(), *table.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        cells = [
            cell.ljust(width) if name in left else cell.rjust(width)
            for cell, width, name in zip(row, widths, texts[0], strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def write_result(as_json, value, lines):
    """Write a result to stdout.

    Parameters
    ----------
    as_json : bool
        Whether it is for scripts.
    value : object
        As JSON can hold it; each DataFrame in it becomes a list of records, and each
        time a text.
    lines : iterable of object
        For people.
    """
    if as_json:
        # ASCII only, so that any stream can carry it, and names that are not UTF-8
        # survive.
        click.echo(json.dumps(value, indent=2, default=_to_json))
        return
    for line in lines:
        echo(line)


def _to_json(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return json.loads(value.to_json(orient="records", double_precision=6))


def log_to_stderr(ctx, name="skdeepfeat"):
    """Show the log messages of the package, or a part, until the command is done."""
    logger = logging.getLogger(name)
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
