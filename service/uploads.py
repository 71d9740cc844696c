"""Raw request bodies, streamed to a file with a running sha256 and refused as soon as they are too large."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.errors import ProblemError, UnprocessableError, UnsupportedMediaTypeError
from service.settings import Settings

WRITE_AT = 1 << 20


@dataclass(frozen=True)
class Upload:
    """A received body: a temporary file on the archive's file system, its sha256 in hex and size in bytes."""

    file: Path
    sha256: str
    size: int
    media_type: str


@asynccontextmanager
async def received(request: Request, settings: Settings, accepted: set[str]) -> AsyncIterator[Upload]:
    """Receive the body into the folder of incoming files; the file is removed at the end if it was not moved away.

    Raises ProblemError: 415 for other media types, 413 above the limit (before the body when its length is
    declared), 422 for an empty body.
    """
    media_type = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if media_type not in accepted:
        raise UnsupportedMediaTypeError(f"{media_type} is not accepted here; send {', '.join(sorted(accepted))}")
    limit = settings.max_upload_mb << 20
    too_large = ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is larger than {settings.max_upload_mb} MiB (ALIGNDA_MAX_UPLOAD_MB): send it in parts",
        {"Connection": "close"},
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    with tempfile.NamedTemporaryFile(dir=settings.incoming_dir, prefix="upload-", delete=False) as out:
        file = Path(out.name)
        try:
            digest, size, pending = hashlib.sha256(), 0, bytearray()

            def flush() -> None:
                digest.update(pending)
                out.write(pending)
                pending.clear()

            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                pending += chunk
                if len(pending) >= WRITE_AT:
                    await run_in_threadpool(flush)
            flush()
            out.close()
            if size == 0:
                raise UnprocessableError("the body is empty: send the file as the raw body, not as a form")
            yield Upload(file, digest.hexdigest(), size, media_type)
        except ClientDisconnect as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "the connection was closed before the body was whole") from error
        finally:
            file.unlink(missing_ok=True)


def forget_abandoned(folder: Path, older_than: float = 86_400.0) -> None:
    """Remove what a killed gateway left in the folder of incoming files, `older_than` seconds ago or more."""
    before = time.time() - older_than
    for path in folder.iterdir():
        # Another gateway may be removing the same one.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def raw_body(*media_types: str, json: dict[str, Any] | None = None) -> dict[str, Any]:
    """The OpenAPI entry of a raw body: bytes of one of these media types, or `json=` a schema."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content: dict[str, Any] = dict.fromkeys(media_types, binary)
    if json is not None:
        content["application/json"] = {"schema": json}
    return {"requestBody": {"required": True, "content": content}}
