"""Pictures on axes, several pictures in one, and their titles and legends."""

import numpy as np
import pandas as pd

# Characters in a line above a picture in a grid, and inches of one character.
_LINE, _CHARACTER = 24, 0.085

# Characters of the names in a row of a legend.
_NAMES = 80

# In a legend beside the axes: classes, and characters of their names.
_MOST_CLASSES, _LABEL = 20, 30

# Pixels, of the longer side of a picture in a mosaic.
_SMALLEST = 24


def show_picture(ax, picture, title=None, **kwargs):
    """Show a picture without ticks, and return the AxesImage.

    Parameters
    ----------
    ax : matplotlib Axes
    picture : ndarray, shape (height, width) or (height, width, 3)
        uint8, or floats in [0, 1].
    title : object, default=None
        Cut if it is long.
    **kwargs : dict
        Passed to matplotlib's `imshow`.
    """
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    if picture.ndim == 2 and "cmap" not in kwargs:
        kwargs.update(cmap="gray", vmin=0, vmax=255 if picture.dtype == "uint8" else 1)
    drawn = ax.imshow(picture, **kwargs)
    ax.set(xticks=[], yticks=[])
    if title is not None:
        set_title(ax, title)
    return drawn


def set_title(ax, title, n_axes=1):
    """Write a title, cut to the space above some axes of a grid.

    Parameters
    ----------
    ax : matplotlib Axes
        The middle one.
    title : object
        Dollar signs are ordinary characters, because class names may contain some.
    n_axes : int, default=1
    """
    inches = _LINE * _CHARACTER
    if locator := ax.get_axes_locator():  # of axes within those of the user
        figure = ax.figure
        inches = locator(ax, None).width * figure.bbox.width / figure.dpi
    room = max(4, min(_LINE, int(inches / _CHARACTER)) * n_axes)
    ax.set_title(shortened(title, room), fontsize="medium", parse_math=False)


def plain_legend(ax, *args, **kwargs):
    """Draw a legend whose names are no formulas: they may have dollars."""
    for text in ax.legend(*args, **kwargs).get_texts():
        text.set_parse_math(False)


def legend_below(ax, handles, n_columns):
    """Draw a legend below the axes, where it covers nothing.

    On axes of the user, a figure without a layout would cut it off there, so that it is
    drawn inside.

    Parameters
    ----------
    ax : matplotlib Axes
    handles : list of artist
        With labels. Long ones are cut, and those that begin with an underscore, which
        matplotlib hides, are shown.
    n_columns : int
    """
    place = {"loc": "best", "fontsize": "small"}
    if ax.figure.get_layout_engine() is not None:
        # Behind the label of the x-axis.
        place = {
            "loc": "upper center",
            "bbox_to_anchor": (0.5, -0.13),
            "ncols": min(n_columns, len(handles)),
            "frameon": False,
        }
    labels = [shortened(one.get_label(), _NAMES // n_columns) for one in handles]
    plain_legend(ax, handles, labels, **place)


def legend_beside(ax, handles, classes, **kwargs):
    """Draw a legend of classes to the right of the axes, unless they are too many."""
    if len(classes) <= _MOST_CLASSES:
        labels = [shortened(one, _LABEL) for one in classes]
        plain_legend(
            ax, handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0.0, frameon=False, **kwargs,
        )  # fmt: skip


def draw_pareto(ax, x, y, is_best):
    """Connect the points of a Pareto set, Series of numbers; return the Line2D."""
    front = pd.DataFrame({"x": x, "y": y})[is_best].sort_values("x")
    [line] = ax.plot(front["x"], front["y"], color="0.75", zorder=1, label="Pareto set")
    return line


def shortened(value, length):
    """Return a value as text with a limited number of characters."""
    text = str(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def show_in_cell(ax, picture, x, y, share, *, y_points_down=False):
    """Show a picture around a point, within a part of a square of side 1.

    Parameters
    ----------
    ax : matplotlib Axes
        With an equal aspect.
    picture : ndarray, shape (height, width, ...)
    x, y : float
        The center.
    share : float
        Of the side of the square, for the longer side of the picture.
    y_points_down : bool, default=False

    Returns
    -------
    matplotlib AxesImage
    """
    height, width = picture.shape[:2]
    longer = max(height, width) / share
    right, up = width / longer / 2, height / longer / 2
    up = -up if y_points_down else up
    extent = (x - right, x + right, y - up, y + up)
    return ax.imshow(picture, extent=extent, interpolation="nearest")


def pattern(signal):
    """Return a signed signal as a picture: gray where it is 0.

    Parameters
    ----------
    signal : ndarray of float, shape (height, width, 3)

    Returns
    -------
    ndarray of float, shape (height, width, 3)
        In [0, 1].
    """
    size = np.abs(signal)
    # Otherwise, the few strongest pixels would make all other pixels gray.
    scale = np.percentile(size[size > 0], 99) if (size > 0).any() else 1.0
    return np.clip(0.5 + signal / (2 * scale), 0, 1)


def mosaic(pictures, n_columns):
    """Return pictures side by side as one, with white lines between.

    Parameters
    ----------
    pictures : sequence of ndarray, shape (height, width, 3)
        uint8, or floats in [0, 1]. Smaller ones are centered in their cells.
    n_columns : int

    Returns
    -------
    ndarray of float, shape (height, width, 3)
        In [0, 1].
    """
    pictures = [one / 255 if one.dtype == np.uint8 else one for one in pictures]
    height, width = np.max([one.shape[:2] for one in pictures], axis=0)
    # Small filters are enlarged, so that the lines are thin.
    factor = max(1, _SMALLEST // max(height, width))
    pictures = [one.repeat(factor, 0).repeat(factor, 1) for one in pictures]
    height, width = height * factor, width * factor
    line = max(1, round(max(height, width) / 24))
    n_rows = -(-len(pictures) // n_columns)
    whole = np.ones(
        (n_rows * (height + line) - line, n_columns * (width + line) - line, 3)
    )
    for i, picture in enumerate(pictures):
        top = i // n_columns * (height + line) + (height - picture.shape[0]) // 2
        left = i % n_columns * (width + line) + (width - picture.shape[1]) // 2
        bottom, right = top + picture.shape[0], left + picture.shape[1]
        whole[top:bottom, left:right] = picture
    return whole
