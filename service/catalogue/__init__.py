"""The catalogue: the truth about what exists and what is due. `Catalogue.open(url)` is the way in."""

from __future__ import annotations

from service.catalogue.cycles import Cycles
from service.catalogue.engine import Clock, Transactions, migrate, open_engine, utc_now
from service.catalogue.errors import CatalogueError, ConflictError, NotFoundError, StaleLease
from service.catalogue.inputs import Batches, Experiments, Fields
from service.catalogue.leases import Lease, Leases, NewProduct, NewScore, StageOutcome
from service.catalogue.outbox import Leaders, Outbox
from service.catalogue.outputs import Products, Scores
from service.catalogue.pages import Page
from service.catalogue.partitions import Partitions
from service.catalogue.verifications import Verifications

__all__ = [
    "Catalogue",
    "CatalogueError",
    "ConflictError",
    "Lease",
    "NewProduct",
    "NewScore",
    "NotFoundError",
    "Page",
    "StageOutcome",
    "StaleLease",
]


class Catalogue:
    """All repositories over one database. Thread-safe; open a new one in every process."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self.experiments = Experiments(transactions)
        self.batches = Batches(transactions)
        self.partitions = Partitions(transactions)
        self.fields = Fields(transactions)
        self.cycles = Cycles(transactions)
        self.leases = Leases(transactions)
        self.verifications = Verifications(transactions)
        self.products = Products(transactions)
        self.scores = Scores(transactions)
        self.outbox = Outbox(transactions)
        self.leaders = Leaders(transactions)

    @classmethod
    def open(cls, url: str, clock: Clock = utc_now) -> Catalogue:
        """Open `sqlite:///path` or `postgresql://...` and bring its schema up to date."""
        engine = open_engine(url)
        migrate(engine)
        return cls(Transactions(engine, clock))

    @property
    def clock(self) -> Clock:
        """The clock that leases and cut-offs are measured with."""
        return self._transactions.clock

    def ping(self) -> None:
        """Raises sqlalchemy.exc.DBAPIError when the database cannot be read."""
        with self._transactions.reading() as session:
            session.connection().exec_driver_sql("SELECT 1 FROM experiments LIMIT 1")

    def close(self) -> None:
        """Close all connections."""
        self._transactions.engine.dispose()
