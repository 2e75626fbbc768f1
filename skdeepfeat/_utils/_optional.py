"""Import of optional and of slow dependencies."""

import importlib
import sys


def import_optional(module, *, extra, purpose):
    """Import a module, or raise an error that names the extra that installs it.

    Parameters
    ----------
    module : str
        The module's dotted name.
    extra : str
        The extra of this package that installs it.
    purpose : str
        What needs it; the error begins with it.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If it is not installed. The message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {module.partition('.')[0]!r}, which is not "
            f"installed. Install it with: pip install 'skdeepfeat[{extra}]'"
        ) from error


def import_without_telemetry(module, *, extra, purpose):
    """Import a module of OpenVINO's family without what sends its usage telemetry.

    That package would be told of imports, conversions and more. The family also works
    without it, so it is hidden during the import.

    Parameters
    ----------
    module, extra, purpose
        As for `import_optional`.

    Returns
    -------
    module
    """
    name = "openvino_telemetry"
    telemetry = sys.modules.get(name)
    sys.modules[name] = None
    try:
        return import_optional(module, extra=extra, purpose=purpose)
    finally:
        if telemetry is None:
            del sys.modules[name]
        else:
            sys.modules[name] = telemetry


def loaded_class(module, name):
    """Return a class for `isinstance`, without importing its module.

    torchvision and timm take seconds to import. While a module is not imported, no
    object is an instance of its classes.

    Parameters
    ----------
    module : str
        The module's dotted name.
    name : str
        The name of the class in it.

    Returns
    -------
    type or tuple
        An empty tuple, of which nothing is an instance, if the module is not imported.
    """
    return getattr(sys.modules.get(module), name, ())
