"""Run by Alembic, on the connection that `migrations` hands over."""

from alembic import context

from http_downloader.catalog import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    compare_type=True,
)
context.run_migrations()
