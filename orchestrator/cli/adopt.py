"""``continuity adopt``, ``resolve`` and ``epoch``: what people confirm about groups outside runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator.cli import _offered
from orchestrator.cli._output import EstateOption, Output, OutputOption, SignedOption, emit, say, table
from orchestrator.cli.verbs import reasoned, signed
from orchestrator.errors import RefusedError, WrongWordsError

if TYPE_CHECKING:
    from orchestrator.bootstrap.adoption import Conclusion
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.keeping import Sides, Wanted

epoch_app = typer.Typer(no_args_is_help=True, help="The writer epoch that each database carries.")


def register(app: typer.Typer) -> None:
    app.command("adopt")(adopt)
    app.command("resolve")(resolve)
    app.add_typer(epoch_app, name="epoch")


def adopt(
    group: Annotated[list[str] | None, typer.Argument(help="Groups; or --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every group of the estate.")] = False,
    active: Annotated[
        str | None, typer.Option("--active", help="The site that writes, if the evidence cannot say.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: SignedOption = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what the log and the reachable sites say about a group, side by side and in full; confirmed, write what
    follows from it as the log's first fact.

    Examples:

      continuity adopt --all --by "A. Tamm"
      continuity adopt registers --active embassy --by "A. Tamm"
    """
    from orchestrator.bootstrap import adoption
    from orchestrator.bootstrap.app import open_app
    from orchestrator.reports.sides import sides_document
    from orchestrator.reports.state import group_document

    name, app = signed(by), open_app(estate)
    wanted = adoption.groups_of(app) if every else list(group or ())
    if not wanted:
        raise WrongWordsError(
            "name a group, or --all",
            tuple(f"continuity adopt {g} --by NAME" for g in adoption.groups_of(app)),
        )
    _must_be_whole(app)
    conclusions = adoption.conclude(app, wanted)
    for conclusion in conclusions:
        _show(conclusion, active)
    if not yes and not _agreed("adopt"):
        raise RefusedError("not confirmed: nothing was written")
    states = [adoption.adopt(app, c, name, active) for c in conclusions]
    documents = [group_document(state) for state in states]
    rows = [[d["name"], d["label"], f"epoch {d['epoch']}"] for d in documents]
    evidence = {
        c.group: {**sides_document(c.known, c.evidence, c.unseen), "doubts": list(c.doubts)}
        for c in conclusions
    }
    emit(output, "continuity/groups/v1", {"groups": documents, "evidence": evidence}, table(rows))


def _show(conclusion: Conclusion, active: str | None) -> None:
    """The evidence first, then what follows from it: people sign what they saw."""
    site = f"active {active or conclusion.active or '?'}{' (by --active)' if active else ''}"
    follows = f"to be adopted: {site}, epoch {max(1, conclusion.epoch)}, {conclusion.protection}"
    _show_evidence(conclusion, follows)


def _show_evidence(conclusion: Conclusion, *follows: str) -> None:
    from orchestrator.reports.sides import log_text, side_lines

    lines = [log_text(conclusion.known), *side_lines(conclusion.evidence, conclusion.unseen)]
    silent = {text for found in conclusion.evidence.values() for text in found.get("silent", ())}
    lines += [f"doubt: {doubt}" for doubt in conclusion.doubts if doubt not in silent]  # these stand above
    say("\n".join([f"{conclusion.group}:", *(f"  {line}" for line in (*lines, *follows))]))


def resolve(
    group: str,
    keep: Annotated[
        str | None,
        typer.Option("--keep", help="The site whose history stands; without it both sides are only shown."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands in the record.")] = "",
    close: Annotated[
        bool, typer.Option("--close", help="Stop the other site's databases first, as a fence does.")
    ] = False,
    site_lost: Annotated[
        bool, typer.Option("--site-lost", help="Declare the other site lost: it does not answer.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: SignedOption = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """End a split brain: show both sides, list what differs by table and key, and decide whose history stands.

    A site that lost the epoch is kept under a new one, higher than all that is known, once the other site
    is closed. The other side's data directory is kept whole when it is next rejoined.

    Without --keep both sides are shown, and nothing is asked or changed.

    Examples:

      continuity resolve registers
      continuity resolve registers --keep embassy --by "A. Tamm" --reason "home was declared lost"
      continuity resolve registers --keep home --close --by "A. Tamm" --reason "false alarm"
    """
    from orchestrator.bootstrap import adoption, keeping
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.divergence import diverged
    from orchestrator.bootstrap.following import next_commands
    from orchestrator.reports.state import group_document

    if keep is None:
        _show_both(open_app(estate), group)
    name, reason = signed(by), reasoned(reason)
    app = open_app(estate)
    _must_be_whole(app)
    wanted = keeping.Wanted(group, keep, name, reason, close, site_lost)
    before = adoption.must_be_in_conflict(app, group, keep)
    is_granted = keeping.must_grant(before, keep)
    sides = keeping.look(app, wanted, before)
    for line in sides.lines:
        say(line)
    if is_granted:
        keeping.must_be_possible(app, wanted, sides)
    found = diverged(app, group, keep)
    for line in found.lines:
        say(line)
    _say_what_is_done(app, wanted, sides, is_granted=is_granted)
    if not yes and not _agreed(f"keep {keep}"):
        raise RefusedError("not confirmed: nothing was written")
    if is_granted:
        state = keeping.keep(app, wanted, sides, found.evidence)
    else:
        closed = {"closed": keeping.close(app, wanted, f"resolve-{group}")} if close else {}
        state = adoption.resolve(app, group, keep, name, reason, {**found.evidence, **closed})
    document, following = group_document(state), next_commands(app, state)
    for command in following:
        say(f"next: {command}")
    body = {"group": document, "diverged": found.evidence, "list": found.path, "next": list(following)}
    text = f"{document['name']}: {document['label']}, epoch {state.epoch}"
    emit(output, "continuity/resolved/v1", body, text)


def _say_what_is_done(app: App, wanted: Wanted, sides: Sides, *, is_granted: bool) -> None:
    """To the right to write, and to the other side."""
    from orchestrator.bootstrap import keeping

    if is_granted:
        say(f"{wanted.keep} does not hold the epoch: it is given a new one, above {sides.highest}")
    for text in keeping.closing_texts(app, wanted) if wanted.close else ():
        say(f"  first: {text}")
    for unit, site, _ in () if wanted.close else sides.writing:
        say(
            f"{unit} at {site} is not closed by this (--close): what it accepts until it is brought back is listed then"
        )


def _show_both(app: App, group: str) -> NoReturn:
    """The evidence of both sides, and the decision that only people can take. WrongWordsError ends it: nobody has
    said yet whose history stands."""
    from orchestrator.bootstrap import adoption
    from orchestrator.planning.select import HOLDS_SERVICES

    state = adoption.must_be_in_conflict(app, group, None)
    for conclusion in adoption.conclude(app, [group]):
        _show_evidence(conclusion)
    sites = [site.name for site in app.loaded.estate.sites.values() if site.role in HOLDS_SERVICES]
    raise WrongWordsError(
        f"{group}: whose history stands is for people to say; nothing was asked of them yet, nor changed. With --keep, "
        "what differs is listed by table and key before the confirmation",
        tuple(
            f"continuity resolve {group} --keep {site} --by NAME --reason TEXT"
            for site in sorted(sites, key=lambda site: site != state.active)
        ),
    )


@epoch_app.command("install")
def install(
    cluster: Annotated[str, typer.Argument(help="The cluster; its active site must be home.")],
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make the epoch row, the canary and the heartbeat in each database that a service uses.

    Example: continuity epoch install registers-db
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.epochs import install_epochs

    rows = install_epochs(open_app(estate), cluster)
    emit(output, "continuity/epoch/v1", {"cluster": cluster, "databases": rows},
         table([[name, f"epoch {row['epoch']} of {row['site']}, durability {row['durability']}"] for name, row in rows.items()]))  # fmt: skip


def _must_be_whole(app: App) -> None:
    """JournalError where the log is not what was written: nothing is written behind what is not true."""
    if app.has_log:
        app.journal.must_be_whole()


def _agreed(phrase: str) -> bool:
    from orchestrator.cli._prompt import Keyboard

    if not sys.stdin.isatty():
        raise RefusedError(
            "this needs a typed confirmation, and there is no terminal to ask on", (_offered.again("--yes"),)
        )
    Keyboard().forget()
    print(f"Type '{phrase}' to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == phrase
