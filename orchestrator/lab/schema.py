"""Decides the roles, databases and tables of the lab's registers; must give each role no more than it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.lab import postgres
from orchestrator.lab.layout import Lab

if TYPE_CHECKING:
    import psycopg

SEED_PERSONS = 100
SEED_PARCELS = 20
FIRST_RUN = "lab"  # the run id under which a lab begins at epoch 1

REWIND_FUNCTIONS = (
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)

# Every database that a service writes to has these: the epoch row is compared in the writing statement itself.
CONTINUITY_TABLES = """
CREATE SCHEMA continuity;
CREATE TABLE continuity.writer (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    epoch bigint NOT NULL,
    site text NOT NULL,
    run text NOT NULL,
    durability text NOT NULL CHECK (durability IN ('remote', 'local')));
CREATE TABLE continuity.canary (site text PRIMARY KEY, run text, at timestamptz, epoch bigint);
CREATE TABLE continuity.heartbeat (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"), at timestamptz NOT NULL, waits boolean);
INSERT INTO continuity.heartbeat (at) VALUES (clock_timestamp());
"""

# The control role has the name of the schema continuity, so tables elsewhere are named with their schema.
# No foreign key to persons: they live in another register, which is asked over HTTP.
REGISTER_TABLES = {
    "population": """
CREATE TABLE public.persons (
    id text PRIMARY KEY, value text NOT NULL, site text NOT NULL, epoch bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO public.persons (id, value, site, epoch)
    SELECT number::text, 'person ' || number, 'home', 1 FROM generate_series(1, %(persons)s) AS number;
""",
    "land": """
CREATE TABLE public.parcels (
    id text PRIMARY KEY, value text NOT NULL, owner text NOT NULL, site text NOT NULL, epoch bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO public.parcels (id, value, owner, site, epoch)
    SELECT number::text, 'parcel ' || number, number::text, 'home', 1
    FROM generate_series(1, %(parcels)s) AS number;
""",
}
TABLES = {"population": "persons", "land": "parcels"}


def install(lab: Lab, session: psycopg.Connection[Any]) -> None:
    """Make roles, databases, tables and the first epoch row at home. ``session``: control role, any database."""
    from psycopg import sql

    def create_role(name: str, options: str, secret: str) -> None:
        session.execute(
            sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(
                sql.Identifier(name),
                sql.SQL(options),
                sql.Literal(lab.secret(secret)),
            )
        )

    create_role(postgres.REPLICATION, "REPLICATION", "pg-replication")
    create_role(postgres.REWIND, "", "pg-rewind")
    create_role(postgres.AUDITOR, "IN ROLE pg_read_all_data", "pg-auditor")
    for function in REWIND_FUNCTIONS:
        session.execute(
            sql.SQL("GRANT EXECUTE ON FUNCTION pg_catalog.{} TO {}").format(
                sql.SQL(function),
                sql.Identifier(postgres.REWIND),
            )
        )
    for database, role in postgres.APPLICATION_ROLES.items():
        create_role(role, "", f"pg-{database}")
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        session.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
        session.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(
                sql.Identifier(database), sql.Identifier(role), sql.Identifier(postgres.AUDITOR)
            )
        )
        _install_tables(lab, database, role)


def _install_tables(lab: Lab, database: str, role: str) -> None:
    from psycopg import sql

    figures = {"persons": SEED_PERSONS, "parcels": SEED_PARCELS}
    user = sql.Identifier(role)
    with postgres.connect(lab, "home", database) as session:
        session.execute(CONTINUITY_TABLES)
        session.execute(
            "INSERT INTO continuity.writer (epoch, site, run, durability) VALUES (1, 'home', %s, %s)",
            (FIRST_RUN, lab.durability),
        )
        for statement in filter(str.strip, REGISTER_TABLES[database].split(";")):
            session.execute(statement, figures)
        session.execute(sql.SQL("GRANT USAGE ON SCHEMA continuity TO {}").format(user))
        session.execute(sql.SQL("GRANT SELECT ON continuity.writer TO {}").format(user))
        session.execute(sql.SQL("GRANT SELECT, UPDATE ON continuity.heartbeat TO {}").format(user))
        session.execute(
            sql.SQL("GRANT SELECT, INSERT, UPDATE ON {} TO {}").format(
                sql.Identifier("public", TABLES[database]), user
            )
        )
