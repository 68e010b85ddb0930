"""Alembic's entry: runs the steps in `versions/` on the connection that `database.migrate` gives."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
