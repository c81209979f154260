"""What is asked of both databases that hold a server's rows, and shows at one of them alone."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from folkmoot.server.store import databases, migrate, models
from folkmoot.v1 import task_service_pb2 as pb
from tests.integration.server.conftest import Hub
from tests.integration.server.test_growth import go_through_everything
from tests.postgresql import Cluster

pytestmark = pytest.mark.needs_postgres

COUNTED = ("tasks_position_seq", "runs_position_seq", "peer_messages_message_id_seq", "events_sequence_seq")


def test_the_tables_of_postgresql_are_those_that_the_models_declare(postgresql: Cluster) -> None:
    engine = create_engine(databases.postgresql_url(postgresql.url("declared")))
    with engine.connect() as connection:
        assert migrate.present(connection) == migrate.newest()
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, models.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_counts_go_on_where_32_bits_end(hub: Hub, postgresql: Cluster) -> None:
    """At a thousand messages a second that is after 25 days."""
    database = postgresql.name_of(hub.server.running.core.config.database)
    for sequence in COUNTED:
        postgresql.execute(f"ALTER SEQUENCE {sequence} RESTART WITH {2**31 - 2}", database=database)
    await go_through_everything(hub)
    newest = (await hub.tasks.ListTasks(pb.ListTasksRequest(page_size=2), metadata=hub.ada)).next_page_token
    older = await hub.tasks.ListTasks(pb.ListTasksRequest(page_token=newest), metadata=hub.ada)
    assert len(older.tasks) == 2
    assert (await hub.server.events())[-1].intent == "run.commit"
    [(last,)] = postgresql.execute("SELECT max(position) FROM tasks", database=database)
    assert last > 2**31
