"""From a photo to an answer."""
