"""Runs migrations on the connection that service.catalogue.engine.migrate passes in (one locked transaction)."""

from __future__ import annotations

from alembic import context

from service.catalogue.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
