"""Decides which actions exist: kind → where its class stands; must never import them.

A new action is one file in this folder and one line here. The class is resolved on first use, so
that reading commands stay fast.
"""

from __future__ import annotations

from collections.abc import Mapping

ACTIONS: Mapping[str, str] = {
    "command.run": "orchestrator.actions.command:Run",
    "continuity.claims": "orchestrator.actions.claims:Claims",
    "continuity.epoch": "orchestrator.actions.epoch:Epoch",
    "dns.query-check": "orchestrator.actions.dns:QueryCheck",
    "dns.update": "orchestrator.actions.dns:Update",
    "files.inspect": "orchestrator.actions.files_inspect:Inspect",
    "files.keep": "orchestrator.actions.files_keep:Keep",
    "files.measure": "orchestrator.actions.files_measure:Measure",
    "files.publish": "orchestrator.actions.files:Publish",
    "files.start-replicator": "orchestrator.actions.files_replicator:StartReplicator",
    "files.stop-replicator": "orchestrator.actions.files_replicator:StopReplicator",
    "files.verify": "orchestrator.actions.files:Verify",
    "haproxy.route": "orchestrator.actions.haproxy:Route",
    "http.check": "orchestrator.actions.http:Check",
    "http.request": "orchestrator.actions.http:Request",
    "manual.confirm": "orchestrator.actions.manual:Confirm",
    "postgresql.aftercare": "orchestrator.actions.postgresql_aftercare:Aftercare",
    "postgresql.canary": "orchestrator.actions.postgresql_canary:Canary",
    "postgresql.checkpoint": "orchestrator.actions.postgresql_freeze:Checkpoint",
    "postgresql.close": "orchestrator.actions.postgresql_close:Close",
    "postgresql.epoch": "orchestrator.actions.postgresql_promote:Epoch",
    "postgresql.follow": "orchestrator.actions.postgresql_follow:Follow",
    "postgresql.freeze": "orchestrator.actions.postgresql_freeze:Freeze",
    "postgresql.hold-log": "orchestrator.actions.postgresql_hold_log:HoldLog",
    "postgresql.inspect": "orchestrator.actions.postgresql_inspect:Inspect",
    "postgresql.list-diverged": "orchestrator.actions.postgresql_diverged:ListDiverged",
    "postgresql.measure": "orchestrator.actions.postgresql_verify:Measure",
    "postgresql.open": "orchestrator.actions.postgresql_close:Open",
    "postgresql.promote": "orchestrator.actions.postgresql_promote:Promote",
    "postgresql.protect": "orchestrator.actions.postgresql_protect:Protect",
    "postgresql.refuses": "orchestrator.actions.postgresql_canary:Refuses",
    "postgresql.rejoin": "orchestrator.actions.postgresql_rejoin:Rejoin",
    "postgresql.stop": "orchestrator.actions.postgresql_stop:Stop",
    "postgresql.verify": "orchestrator.actions.postgresql_verify:Verify",
    "postgresql.verify-drained": "orchestrator.actions.postgresql_verify:VerifyDrained",
    "service.inspect": "orchestrator.actions.service:Inspect",
    "service.ready": "orchestrator.actions.service:Ready",
    "service.start": "orchestrator.actions.service:Start",
    "service.status": "orchestrator.actions.service:Status",
    "service.stop": "orchestrator.actions.service:Stop",
}
