"""Raters, what they sent, and their answers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("study", sa.Column("fingerprint", sa.String(64), primary_key=True))
    op.create_table(
        "rater",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("invited_at", sa.String(40), nullable=False),
        sa.Column("revoked_at", sa.String(40)),
    )
    op.create_table(
        "submission",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("rater_id", sa.Integer, sa.ForeignKey("rater.id"), nullable=False),
        sa.Column("item", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("form", sa.String(64), nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("at", sa.String(40), nullable=False),
        sa.UniqueConstraint("rater_id", "item", "revision"),
        sa.UniqueConstraint("rater_id", "form"),
    )
    op.create_table(
        "rating",
        sa.Column("submission_id", sa.Integer, sa.ForeignKey("submission.id"), primary_key=True),
        sa.Column("question", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
