"""Partitions: the files of a batch by valid day and report type. Earlier batches keep their one file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UNDIVIDED = """
INSERT INTO partitions (batch_id, path, rows, time_min, time_max)
SELECT id, path, received - rejected, time_min, time_max FROM batches
WHERE path IS NOT NULL AND time_min IS NOT NULL AND time_max IS NOT NULL
ORDER BY id
"""


def upgrade() -> None:
    op.create_table(
        "partitions",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("batch_id", IDENTITY, nullable=False),
        sa.Column("day", sa.Date(), nullable=True),
        sa.Column("type", sa.String(length=32), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("time_min", sa.DateTime(timezone=True), nullable=False),
        sa.Column("time_max", sa.DateTime(timezone=True), nullable=False),
        sa.Column("receipt_min", sa.DateTime(timezone=True), nullable=True),
        sa.Column("receipt_max", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_partitions_batch_id_batches")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partitions")),
    )
    with op.batch_alter_table("partitions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_partitions_batch_id"), ["batch_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_partitions_day_type"), ["day", "type"], unique=False)
    op.execute(UNDIVIDED)


def downgrade() -> None:
    divided = op.get_bind().execute(sa.text("SELECT count(*) FROM batches WHERE path IS NULL AND time_min IS NOT NULL"))
    if divided.scalar_one():
        raise RuntimeError("there are partitioned batches, which revision 0002 cannot read: restore a backup instead")
    op.drop_table("partitions")
