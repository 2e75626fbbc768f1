"""Errors, warnings and Ctrl-C become one line on stderr and an exit code."""

import contextlib
import errno
import os
import traceback
import warnings

import click

from .._utils._printable import printable
from ..exceptions import (
    BadImageError,
    BadImageWarning,
    CacheWarning,
    NonFiniteOutputError,
)
from ._output import say, show_any_character, shown
from ._signals import INTERRUPTED, end_workers, sigterm_raises

# What click raises for a group without arguments, to show the help.
_HELP_INSTEAD = getattr(click.exceptions, "NoArgsIsHelpError", ())

# Number of broken images that a warning lists.
_LISTED_FAILURES = 100

# Keys of click's `Context.meta`, which all contexts of one command line share.
_DEBUG = f"{__name__}.debug"
_RESUME_HINT = f"{__name__}.resume_hint"


class Program(click.Group):
    """A group of commands that end in one line instead of a traceback."""

    def main(self, *args, **kwargs):
        """Run the program."""
        show_any_character()
        return super().main(*args, **kwargs)

    def parse_args(self, ctx, args):
        """Read the arguments before the command."""
        with _safe_messages():
            return super().parse_args(ctx, args)

    def invoke(self, ctx):
        """Run the command; turn its exceptions into a message and an exit code."""
        with _own_warnings(everything=bool(ctx.meta.get(_DEBUG))), sigterm_raises():
            try:
                with _safe_messages():
                    return super().invoke(ctx)
            except KeyboardInterrupt as interruption:
                _end_interrupted(ctx, interruption)
            except click.Abort as abort:
                # Ctrl-C at a prompt, which click does not distinguish from "no".
                if isinstance(abort.__context__, KeyboardInterrupt):
                    _end_interrupted(ctx, abort.__context__)
                raise
            except (click.ClickException, click.exceptions.Exit):
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno == errno.EPIPE:
                    raise  # `| head` has read enough, and click ends quietly
                if ctx.meta.get(_DEBUG):
                    say(traceback.format_exc())
                raise click.ClickException(shown(_in_words(error, ctx))) from error


@contextlib.contextmanager
def _safe_messages():
    """Remove from click's errors what must not reach a terminal."""
    try:
        yield
    except _HELP_INSTEAD:
        raise  # its lines would be indented
    except click.ClickException as error:
        error.message = shown(error.message)
        for name in ("option_name", "ui_filename"):
            if isinstance(getattr(error, name, None), str):
                setattr(error, name, shown(getattr(error, name)))
        raise


def _end_interrupted(ctx, interruption):
    if ctx.meta.get(_DEBUG):
        say(traceback.format_exc())
    say(f"Interrupted.{ctx.meta.get(_RESUME_HINT, '')}")
    end_workers()
    ctx.exit(getattr(interruption, "exit_code", INTERRUPTED))


# Remedies that error messages name, and the options of commands that have them.
_OPTION_NAMES = {"overwrite=True": "--overwrite", "another 'path'": "another --output"}


def _in_words(error, ctx):
    """Return the text of an error as a user of the command line can use it."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # without "[Errno 2]"
        name = f": {error.filename}" if error.filename is not None else ""
        name = printable(os.fsdecode(name))
        text = f"{error.strerror}{name}"
    text = text.strip()
    options = _options(ctx)
    for in_python, option in _OPTION_NAMES.items():
        if option.split()[-1] in options:
            text = text.replace(in_python, option)
    if isinstance(error, BadImageError):
        if "--on-error" not in options:
            return f"{text}. Leave this image out, or replace the file."
        return f"{text}. With --on-error nan, its row is NaN and the work continues."
    # The messages of this package and of the system explain themselves. For others, the
    # class is shown as well.
    is_plain = (
        type(error).__module__.startswith("skdeepfeat")
        or type(error) in (ValueError, TypeError, ImportError)
        or isinstance(error, OSError)
    )
    if not text or not is_plain:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if not is_plain and not ctx.meta.get(_DEBUG):
        text += " (--debug shows where)"
    return text


def _options(ctx):
    """Return the options of the command that was invoked in a context of the group."""
    command = ctx.command.get_command(ctx, ctx.invoked_subcommand)
    return {option for one in getattr(command, "params", ()) for option in one.opts}


@contextlib.contextmanager
def _own_warnings(everything):
    """Show warnings of this package as one line each, and others only on request."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("ignore")
        for category in (BadImageWarning, CacheWarning):
            warnings.simplefilter("always", category)
        if everything:
            show_all_warnings()
        yield


def show_all_warnings():
    """Show the warnings of other packages as well until the command is done."""
    warnings.simplefilter("default")


def _show_warning(message, category, filename, lineno, file=None, line=None):
    if isinstance(message, BadImageWarning):
        from ..feature_extraction import list_failures

        message = (
            f"{len(message.failures):,} image(s) could not be read; their rows are "
            f"NaN:\n{list_failures(message.failures, _LISTED_FAILURES)}"
        )
    say(f"Warning: {message}")


@contextlib.contextmanager
def usage_errors():
    """Turn errors about the value of a parameter into errors of the command line."""
    try:
        yield
    except (BadImageError, NonFiniteOutputError):
        raise
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def set_resume_hint(ctx, text):
    """Set what to say about continuing if the command is interrupted."""
    ctx.meta[_RESUME_HINT] = text


def _note_debug(ctx, parameter, value):
    if value:
        ctx.meta[_DEBUG] = True


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_note_debug,
    help="Show tracebacks, and the warnings of other packages.",
)
