"""What can be wrong with the data. Each message is one line that names the file and, where there is one, the remedy."""


class BuildError(Exception):
    """The build cannot go on: a missing file or column, a full disk, too many faces lost."""


class ImageError(Exception):
    """One image cannot be used; the text is the reason, without the file's name. Never ends a build."""


class CropError(ImageError):
    """Five landmarks from which no crop follows: not finite, or all in one place."""
