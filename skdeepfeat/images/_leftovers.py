"""Files and folders that systems and programs leave behind, which are not images."""

__all__ = ["is_left_over"]

_NAMES = frozenset(
    {
        "__macosx",  # what ZIP archives made on a Mac hold beside the files
        "@eadir",  # Synology's thumbnails
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)


def is_left_over(name: str) -> bool:
    """Return whether a file or folder of this name is passed over."""
    return name.startswith(".") or name.lower() in _NAMES
