"""Forms that changed nothing when they came, so that they change nothing later either."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "repeated",
        sa.Column("rater_id", sa.Integer, sa.ForeignKey("rater.id"), primary_key=True),
        sa.Column("form", sa.String(64), primary_key=True),
    )
