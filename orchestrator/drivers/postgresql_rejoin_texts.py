"""Decides how a rejoin is told before it is done: its commands in their order; must never open anything."""

from __future__ import annotations

import shlex

from orchestrator.drivers import (
    postgresql_follower,
    postgresql_rejoin,
    postgresql_server,
    postgresql_upstream,
)
from orchestrator.drivers.postgresql_member import Member

PLAIN_RUN = "@run@"  # stands for the run's id where a command's argument would be quoted for it
CHECKPOINT = "CHECKPOINT"


def texts(how: str, source: Member, follower: Member, others: tuple[Member, ...]) -> list[str]:
    """The commands for a history that diverged, or for a clone; ``PLAIN_RUN`` stands for the run's id."""
    where = postgresql_rejoin.places(follower, PLAIN_RUN)
    host = follower.host.name
    before = [
        postgresql_rejoin.signal_text(follower),
        postgresql_server.stop_text(follower),
        postgresql_upstream.slot_text(follower),
        CHECKPOINT,
        postgresql_follower.role_text(follower),
    ]
    keep = [
        f"{host}: write {where.kept}/{postgresql_rejoin.NOTE}",
        postgresql_rejoin.move_text(follower, where.data, where.kept_data),
    ]
    finish = [
        postgresql_follower.files_text(follower, where.new),
        postgresql_rejoin.finish_text(follower, where.new),
    ]
    place = [postgresql_rejoin.move_text(follower, where.new, where.data)]
    if how == "rewind":
        rewind = [
            shlex.join(postgresql_rejoin.copy_argv(where.kept_data, where.new)),
            postgresql_rejoin.clean_text(follower, where.new),
            f"{host}: write {postgresql_rejoin.recovery_file(follower)}",
            shlex.join(postgresql_rejoin.rewind_argv(source, follower, where.new)),
            shlex.join(postgresql_rejoin.sync_argv(where.new)),
        ]
        middle = [*keep, *rewind, *finish, *place]
    else:
        argv = shlex.join(postgresql_rejoin.clone_argv(source, follower, where.new))
        middle = [argv, *finish, *keep, *place]
    after = postgresql_follower.texts(source, follower)[1:]
    return [*before, *middle, *after, postgresql_upstream.free_slots_text(others)]
