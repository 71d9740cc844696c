"""What the catalogue refuses, in words that reach the caller unchanged."""

from __future__ import annotations


class CatalogueError(Exception):
    """Base of everything the catalogue refuses."""


class NotFoundError(CatalogueError):
    """The thing asked for does not exist."""

    def __init__(self, kind: str, key: object) -> None:
        super().__init__(f"there is no {kind} {key!r}; GET the collection to see what exists")
        self.kind = kind


class ConflictError(CatalogueError):
    """The request contradicts what the catalogue already holds."""


class StaleLease(CatalogueError):
    """A write with a fencing token that is no longer the cycle's: someone else holds it, or it was cancelled."""

    def __init__(self, cycle_id: int, token: int) -> None:
        super().__init__(
            f"lease {token} on cycle {cycle_id} is no longer valid (taken over, cancelled or finished): "
            "stop working on this cycle and write nothing more"
        )
        self.cycle_id = cycle_id
        self.token = token
