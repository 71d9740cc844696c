"""The one error of this room: a field that cannot be used, with what is wrong, where, and what to do."""

Missing = dict[str, tuple[float | None, ...]]


class FieldError(ValueError):
    """A file or a state that does not fulfil the contract of fields.

    Attributes:
        missing: by variable, the levels (hPa; None for a surface variable) that are needed and absent; empty
            when the error is about something else.
    """

    def __init__(self, message: str, missing: Missing | None = None) -> None:
        super().__init__(message)
        self.missing: Missing = missing or {}

    def __reduce__(self) -> tuple[type["FieldError"], tuple[str, Missing]]:
        # decoding runs in a subprocess: the error must survive pickling
        return type(self), (str(self), self.missing)
