"""Uploads on their way into archive and catalogue: decoded by bounded processes, kept as sent and as understood.

Files are named by content and request, so the same upload twice leaves one row and the files of that row.
"""

from __future__ import annotations

import tempfile
import zlib
from datetime import datetime
from pathlib import Path

from service.archive import Archive
from service.catalogue import Catalogue
from service.catalogue.tables import Batch, Field, FieldPurpose, Partition
from service.errors import UnprocessableError, UnsupportedMediaTypeError
from service.field_intake import FUNCTION, TakenIn
from service.fields.errors import FieldError
from service.isolation import IsolationError, run_isolated
from service.observations.decoders import DecodeError, UnsupportedFormat
from service.observations.partitions import PartitionFile, StoredBatch, decode_into_isolated, is_table
from service.observations.table import REJECTED_SCHEMA
from service.settings import Settings
from service.uploads import Upload

VARIOUS_DAYS = "various"  # in the place of a day


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
        with tempfile.TemporaryDirectory(dir=self._settings.incoming_dir, prefix="batch-") as name:
            folder = Path(name)
            try:
                stored = decode_into_isolated(
                    upload.file,
                    upload.media_type,
                    source,
                    received_at,
                    folder,
                    seconds=self._settings.decode_seconds,
                    megabytes=self._settings.decode_megabytes,
                )
            except UnsupportedFormat as error:
                raise UnsupportedMediaTypeError(str(error)) from error
            except (DecodeError, IsolationError) as error:
                raise UnprocessableError(f"the observations cannot be decoded: {error}") from error
            # who sent it and when is in the files: another request with the same bytes must not replace them
            request = zlib.crc32(f"{source}|{received_at.isoformat()}".encode())
            return self._keep(stored, folder, f"{upload.sha256[:32]}-{request:08x}", upload, source, received_at)

    def _keep(
        self, stored: StoredBatch, folder: Path, name: str, upload: Upload, source: str, received_at: datetime
    ) -> tuple[Batch, bool]:
        """Move what was decoded into the archive and the catalogue."""
        raw = f"observations/received/{upload.sha256[:2]}/{upload.sha256}"
        partitions = [keep(self._archive, partition, folder, name) for partition in stored.partitions]
        rejected = self._rejected(stored, folder, f"observations/rejected/{name}.parquet")
        batch = Batch(
            sha256=upload.sha256,
            source=source,
            media_type=upload.media_type,
            path=None,
            rejected_path=rejected,
            raw_path=self._archive.adopt(upload.file, raw).path,
            received_at=received_at,
            time_min=min((partition.time_min for partition in partitions), default=None),
            time_max=max((partition.time_max for partition in partitions), default=None),
            received=stored.accepted + stored.rejected,
            rejected=stored.rejected,
            counts=dict(stored.counts),
            notes=list(stored.notes),
            status="accepted" if stored.accepted else "empty",
        )
        known, created = self._catalogue.batches.add(batch, partitions)
        if not created:
            theirs = {known.rejected_path, *(row.path for row in self._catalogue.partitions.of_batch(known.id))}
            for path in {rejected, *(partition.path for partition in partitions)} - theirs - {None}:
                self._archive.path(str(path)).unlink(missing_ok=True)
        return known, created

    def _rejected(self, stored: StoredBatch, folder: Path, key: str) -> str | None:
        if stored.rejected_file is None:
            return None
        file = _inside(folder, stored.rejected_file)
        if not is_table(file, stored.rejected, REJECTED_SCHEMA):
            raise UnprocessableError("the observations cannot be decoded: the decoder left no readable table")
        return self._archive.adopt(file, key).path

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


def _inside(folder: Path, file: str) -> Path:
    path = folder / Path(file).name
    if path.is_symlink() or not path.is_file():
        raise UnprocessableError("the observations cannot be decoded: the decoder left no table")
    return path


def keep(archive: Archive, partition: PartitionFile, folder: Path, name: str) -> Partition:
    """Move a file that was written in `folder` into the archive; its row for the catalogue. `name`: of the batch.

    Raises UnprocessableError when the file is not what `partition` says.
    """
    file = _inside(folder, partition.file)
    if not is_table(file, partition.rows):
        raise UnprocessableError("the observations cannot be decoded: the decoder left no readable table")
    day = VARIOUS_DAYS if partition.day is None else partition.day.isoformat()
    return Partition(
        day=partition.day,
        type=partition.type,
        path=archive.adopt(file, f"observations/day={day}/type={partition.type}/{name}.parquet").path,
        rows=partition.rows,
        time_min=partition.time_min,
        time_max=partition.time_max,
        receipt_min=partition.receipt_min,
        receipt_max=partition.receipt_max,
    )
