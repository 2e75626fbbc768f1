"""The axes of a display: those of the user, or those of a new figure."""

import math

import numpy as np

from .._utils._optional import import_optional

# Inches, of one picture with its title in a grid.
_CELL = (2.2, 2.4)

# Lines that mark a value.
DASHED = {"linestyle": "--", "linewidth": 1}

# Long labels below the axes.
TURNED = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}


def import_pyplot(display):
    """Return matplotlib.pyplot, or raise an error that names the extra to install."""
    return import_optional(
        "matplotlib.pyplot", extra="plot", purpose=type(display).__name__
    )


def class_colors(display, n_classes, cmap=None):
    """Return a color for each class, by default of tab10 or tab20."""
    name = "tab10" if n_classes <= 10 else "tab20"
    palette = import_pyplot(display).get_cmap(name if cmap is None else cmap)
    return palette(np.arange(n_classes) % palette.N)


def set_axes(display, ax, **options):
    """Set `ax_` and `figure_` of a display, and return the Axes.

    Parameters
    ----------
    display : object
    ax : matplotlib Axes or None
        None creates a new figure.
    **options : dict
        Passed to `subplots` for a new figure.
    """
    plt = import_pyplot(display)
    if ax is None:
        _, ax = plt.subplots(layout="constrained", **options)
    display.ax_, display.figure_ = ax, ax.figure
    return ax


def set_axes_grid(display, ax, n_rows, n_columns):
    """Set `axes_` and `figure_` of a display, and return the axes.

    Parameters
    ----------
    display : object
    ax : matplotlib Axes, array-like of Axes or None
        Where to plot. A single Axes is divided into the cells. Otherwise, there must be
        one Axes for each cell. None creates a new figure.
    n_rows, n_columns : int

    Returns
    -------
    ndarray of Axes, shape (n_rows, n_columns)

    Raises
    ------
    ValueError
        If `ax` has a different number of Axes.
    """
    display.axes_ = _grid(import_pyplot(display), ax, n_rows, n_columns)
    display.figure_ = display.axes_[0, 0].figure
    return display.axes_


def set_axes_cells(display, ax, n_cells, n_columns, shape):
    """Set `axes_` and `figure_` of a display, and return the axes of each cell.

    Parameters
    ----------
    display : object
    ax : matplotlib Axes, array-like of Axes or None
    n_cells : int
    n_columns : int
        Number of cells in a row, at most.
    shape : tuple of (int, int)
        Number of rows and columns of axes in a cell.

    Returns
    -------
    ndarray of matplotlib Axes, shape (n_cells, n_axes)
    """
    n_columns = min(n_columns, n_cells)
    n_rows = math.ceil(n_cells / n_columns)
    height, width = shape
    axes = set_axes_grid(display, ax, n_rows * height, n_columns * width)
    blocks = axes.reshape(n_rows, height, n_columns, width).swapaxes(1, 2)
    cells = blocks.reshape(-1, height * width)
    for unused in cells[n_cells:].flat:
        unused.set_axis_off()
    return cells[:n_cells]


def _grid(plt, ax, n_rows, n_columns):
    if ax is None:
        size = (_CELL[0] * n_columns, _CELL[1] * n_rows)
        figure, axes = plt.subplots(
            n_rows, n_columns, figsize=size, squeeze=False, layout="constrained"
        )
        figure.get_layout_engine().set(h_pad=0.08)  # inches, above the titles
        return axes
    given = np.ravel(np.asarray(ax, dtype=object))
    if len(given) == n_rows * n_columns:
        return given.reshape(n_rows, n_columns)
    if len(given) != 1:
        raise ValueError(
            f"The 'ax' parameter must be None, one Axes or {n_rows * n_columns} Axes. "
            f"Got {len(given)} Axes instead."
        )
    [whole] = given
    whole.set_axis_off()
    width, height = 1 / n_columns, 1 / n_rows
    cells = [
        whole.inset_axes([j * width, 1 - (i + 1) * height, 0.94 * width, 0.88 * height])
        for i in range(n_rows)
        for j in range(n_columns)
    ]
    return np.array(cells, dtype=object).reshape(n_rows, n_columns)
