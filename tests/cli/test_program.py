"""What becomes of errors, warnings and interruptions."""

import logging
import signal
import warnings

import click
import pytest
from child import in_child
from click.testing import CliRunner

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    CacheWarning,
    OutOfMemoryError,
    WeightsNotFoundError,
)
from skdeepfeat.cli import main
from skdeepfeat.cli._output import log_to_stderr, say, write_result
from skdeepfeat.cli._program import (
    Program,
    debug_option,
    set_resume_hint,
    show_all_warnings,
    usage_errors,
)


@pytest.mark.parametrize("group", [[], ["cache"]])
def test_a_group_without_arguments_shows_its_help(group):
    bare = CliRunner().invoke(main, group)
    assert bare.output == CliRunner().invoke(main, [*group, "--help"]).output


def outcome(action, *arguments, options=()):
    """Return the result of a program whose one command does `action`."""

    @click.group(cls=Program)
    @debug_option
    def program():
        pass

    @program.command
    @debug_option
    @click.pass_context
    def act(ctx, **given):
        action(ctx)

    act.params += [click.Option([name]) for name in options]
    return CliRunner().invoke(program, arguments or ["act"])


def raising(error):
    def action(ctx):
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WeightsNotFoundError("The weights 'x' are not here."), "The weights 'x' are"),
        (OutOfMemoryError("Not even one image fits."), "Not even one image fits."),
        (ImportError("The demo needs the package 'x'."), "The demo needs the pack"),
        (ValueError("The 'model' parameter is wrong."), "The 'model' parameter is"),
        (BadImageError("it is empty", 3, "x.jpg"), "index 3, x.jpg: it is empty. Leav"),
        (FileNotFoundError(2, "No such file", "a b"), "No such file: a b\n"),
        (RuntimeError("odd"), "RuntimeError: odd (--debug shows where)\n"),
        (AssertionError(), "AssertionError (--debug shows where)\n"),
        (KeyError("key"), "KeyError: 'key' (--debug shows where)\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_one_line(error, text):
    result = outcome(raising(error))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {text}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "option", "way_out"),
    [
        (BadImageError("it is empty", 3, "x.jpg"), "--on-error", "With --on-error nan"),
        (FileExistsError("'x' is there. Use overwrite=True."), "--overwrite", "Use --"),
        (FileExistsError("Choose another 'path'."), "--output", "another --output."),
    ],
)
def test_only_options_of_the_command_are_named(error, option, way_out):
    assert way_out in outcome(raising(error), options=[option]).stderr
    assert option not in outcome(raising(error)).stderr


@pytest.mark.parametrize("arguments", [("--debug", "act"), ("act", "--debug")])
def test_debug_shows_where(arguments):
    result = outcome(raising(RuntimeError("odd")), *arguments)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "in action" in result.stderr
    assert result.stderr.endswith("Error: RuntimeError: odd\n")


def test_a_wrong_value_is_a_usage_error():
    def action(ctx):
        with usage_errors():
            raise ValueError("The 'layer' parameter is wrong.")

    result = outcome(action)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert result.stderr.endswith("Error: The 'layer' parameter is wrong.\n")


def test_a_broken_image_is_none():
    def action(ctx):
        with usage_errors():
            raise BadImageError("it is empty", 0, "x.jpg")

    assert outcome(action).exit_code == 1


def test_interrupted():
    result = outcome(raising(KeyboardInterrupt()))
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")

    def action(ctx):
        set_resume_hint(ctx, " Run it again.")
        raise KeyboardInterrupt

    assert outcome(action).stderr == "Interrupted. Run it again.\n"
    assert "Traceback" in outcome(action, "act", "--debug").stderr


def test_terminated():
    def action(ctx):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not reached")

    def terminate():
        result = outcome(action)
        assert (result.exit_code, result.stderr) == (143, "Interrupted.\n")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    in_child(terminate)


def test_a_handler_of_the_user_stays():
    def terminate():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert outcome(lambda ctx: signal.raise_signal(signal.SIGTERM)).exit_code == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN

    in_child(terminate)


def test_interrupted_at_a_prompt():
    def interrupt(*args):
        raise KeyboardInterrupt

    def action(ctx):
        click.termui.visible_prompt_func = interrupt  # the runner puts it back
        click.confirm("Remove?", abort=True, err=True)

    result = outcome(action)
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted.\n")


def test_our_warnings_are_lines_and_others_are_not_shown():
    def action(ctx):
        warnings.warn("the disk is full", CacheWarning, stacklevel=1)
        warnings.warn("something changes", DeprecationWarning, stacklevel=1)
        warnings.warn("something is slow", UserWarning, stacklevel=1)
        failures = [BadImageError("it is empty", row, "x.jpg") for row in range(102)]
        warnings.warn(BadImageWarning("for Python", failures), stacklevel=1)
        if wants_all:
            show_all_warnings()
            warnings.warn("something is odd", UserWarning, stacklevel=1)

    wants_all = False
    before = warnings.showwarning, list(warnings.filters)
    lines = outcome(action).stderr.splitlines()
    assert lines[:2] == [
        "Warning: the disk is full",
        "Warning: 102 image(s) could not be read; their rows are NaN:",
    ]
    assert lines[2] == "  index 0, x.jpg: it is empty"
    assert lines[-1] == "  ... and 2 more"
    assert len(lines) == 2 + 100 + 1
    assert "something is slow" in outcome(action, "--debug", "act").stderr
    wants_all = True
    assert outcome(action).stderr.endswith("Warning: something is odd\n")
    assert before == (warnings.showwarning, list(warnings.filters))


def test_the_log_is_shown_until_the_end():
    def action(ctx):
        log_to_stderr(ctx)
        logging.getLogger("skdeepfeat.networks").info("loading %s", "resnet50")

    logger = logging.getLogger("skdeepfeat")
    before = logger.level, list(logger.handlers)
    assert outcome(action).stderr == "loading resnet50\n"
    assert before == (logger.level, list(logger.handlers))


def test_streams():
    def action(ctx):
        say("for people")
        write_result(True, {"é": [1]}, [])

    result = outcome(action)
    assert result.stderr == "for people\n"
    assert result.stdout == '{\n  "\\u00e9": [\n    1\n  ]\n}\n'
