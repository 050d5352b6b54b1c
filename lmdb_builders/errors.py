"""Errors in the data. Each message is one line that names the file and, if there is one, the remedy."""


class BuildError(Exception):
    """The build cannot continue: a missing file or column, a full disk, too many faces lost."""


class ImageError(Exception):
    """One image cannot be used; the text is the reason, without the file's name. Never ends a build."""


class CropError(ImageError):
    """Five landmarks from which no crop follows: not finite, or all in one place."""
