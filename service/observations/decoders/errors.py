"""What goes wrong with a whole submission; a single bad value is a rejected row, not an error."""


class DecodeError(Exception):
    """Nothing can be read from the submission. The text says what is wrong and what to do (HTTP 422)."""


class UnsupportedFormat(DecodeError):
    """No decoder for this media type or these bytes (HTTP 415)."""
