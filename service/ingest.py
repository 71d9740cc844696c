"""Uploads on their way into archive and catalogue: decoded by bounded processes, kept as sent and as understood.

Files are named by content, so the same upload twice at once leaves the same files and one row.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.archive import Archive
from service.catalogue import Catalogue
from service.catalogue.tables import Batch, Field, FieldPurpose
from service.errors import UnprocessableError, UnsupportedMediaTypeError
from service.field_intake import FUNCTION, TakenIn
from service.fields.errors import FieldError
from service.isolation import IsolationError, run_isolated
from service.observations.decoders import DecodeError, UnsupportedFormat, decode_isolated
from service.settings import Settings
from service.uploads import Upload


class Ingest:
    """Takes in what was uploaded. Blocking: call it in a thread."""

    def __init__(self, settings: Settings, catalogue: Catalogue, archive: Archive) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._archive = archive

    def observations(self, upload: Upload, source: str, received_at: datetime) -> tuple[Batch, bool]:
        """Decode, archive and catalogue a batch. Returns (row, created).

        Raises UnprocessableError when nothing can be read from it, UnsupportedMediaTypeError for no known format.
        """
        try:
            decoded = decode_isolated(
                upload.file,
                upload.media_type,
                source,
                received_at,
                seconds=self._settings.decode_seconds,
                megabytes=self._settings.decode_megabytes,
            )
        except UnsupportedFormat as error:
            raise UnsupportedMediaTypeError(str(error)) from error
        except (DecodeError, IsolationError) as error:
            raise UnprocessableError(f"the observations cannot be decoded: {error}") from error
        key = f"observations/{upload.sha256[:2]}/{upload.sha256}"
        first, last = time_range(decoded.table)
        batch = Batch(
            sha256=upload.sha256,
            source=source,
            media_type=upload.media_type,
            path=self._put_table(decoded.table, f"{key}.parquet"),
            rejected_path=self._put_table(decoded.rejected, f"{key}.rejected.parquet"),
            raw_path=self._archive.adopt(upload.file, f"{key}.received").path,
            received_at=received_at,
            time_min=first,
            time_max=last,
            received=decoded.received,
            rejected=decoded.rejected.num_rows,
            counts=dict(decoded.counts),
            notes=list(decoded.notes),
            status="accepted" if decoded.table.num_rows else "empty",
        )
        return self._catalogue.batches.add(batch)

    def field(
        self,
        upload: Upload,
        bundle: Path,
        purpose: FieldPurpose,
        experiment_id: int | None,
        lead_hours: int | None,
        received_at: datetime,
    ) -> tuple[Field, bool]:
        """Check, regrid, archive and catalogue a field. Returns (row, created).

        Raises UnprocessableError when it is no state of the bundle in the folder `bundle`.
        """
        product = "forecast" if lead_hours else "analysis"
        with tempfile.TemporaryDirectory(dir=self._settings.incoming_dir, prefix="field-") as folder:
            target = Path(folder) / "field.nc"
            try:
                taken: TakenIn = run_isolated(
                    FUNCTION,
                    *(str(upload.file), str(bundle), str(target), product),
                    seconds=self._settings.decode_seconds,
                    megabytes=self._settings.decode_megabytes,
                )
            except (FieldError, IsolationError) as error:
                raise UnprocessableError(f"the fields cannot be used: {error}") from error
            key = f"fields/{upload.sha256[:2]}/{upload.sha256}"
            field = Field(
                sha256=upload.sha256,
                purpose=purpose,
                experiment_id=experiment_id,
                valid_time=taken.valid_time,
                lead_hours=lead_hours,
                # The same file is another field on another bundle's grid.
                path=self._archive.adopt(target, f"{key}.{bundle.name}.nc").path,
                raw_path=self._archive.adopt(upload.file, f"{key}.received").path,
                received_at=received_at,
                notes=taken.notes,
            )
            return self._catalogue.fields.add(field)

    def _put_table(self, table: pa.Table, key: str) -> str | None:
        if table.num_rows == 0:
            return None
        with tempfile.TemporaryDirectory(dir=self._settings.incoming_dir, prefix="table-") as folder:
            file = Path(folder) / "table.parquet"
            pq.write_table(table, file, compression="zstd")
            return self._archive.adopt(file, key).path


def time_range(table: pa.Table) -> tuple[datetime | None, datetime | None]:
    """The first and the last valid time of an observation table; None, None when it is empty."""
    if table.num_rows == 0:
        return None, None
    limits = pc.min_max(table.column("time")).as_py()
    first, last = limits["min"], limits["max"]
    assert isinstance(first, datetime) and isinstance(last, datetime)
    return first.astimezone(UTC), last.astimezone(UTC)
