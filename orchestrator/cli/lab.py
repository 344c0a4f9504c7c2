"""``continuity lab …``: the words of the lab on the command line; what they do stands in ``orchestrator.lab``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from orchestrator.cli import _complete, _exits, lab_demo
from orchestrator.cli._output import Output, OutputOption, emit, paint, say, table
from orchestrator.errors import RefusedError, WrongWordsError

if TYPE_CHECKING:
    from orchestrator.lab.layout import Lab, SiteName

app = typer.Typer(no_args_is_help=True)
lab_demo.register(app)

LabOption = Annotated[int | None, typer.Option("--lab", help="The lab's number; default: the only one.")]
SiteOption = Annotated[
    str | None, typer.Option("--site", help="home or embassy; default: as the fault says.")
]


def _find(number: int | None) -> Lab:
    from orchestrator.lab import claims

    return claims.find(number)


def _site(text: str | None) -> SiteName | None:
    if text not in (None, "home", "embassy"):
        raise WrongWordsError(f"{text} is no site of a lab", ("--site home", "--site embassy"))
    return cast("SiteName | None", text)


@app.command()
def up(
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Commits do not wait for the embassy: loss can be shown.")
    ] = False,
    number: Annotated[
        int | None, typer.Option("--lab", help="The lab's number; default: the next free one.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring up two data centres on this machine: home and the embassy, with a link between them.

    Examples:

      continuity lab up
      continuity lab up --async
    """
    from orchestrator.lab import adoption, sites

    started = time.monotonic()
    wanted = sites.Wanted(durability="local" if asynchronous else "remote", number=number)
    lab = sites.up(wanted, lambda line: say(f"{time.monotonic() - started:6.2f} s  {line}"), adoption.adopt)
    seconds = round(time.monotonic() - started, 2)
    found = {"number": lab.number, "folder": lab.folder, "estate": str(lab.estate), "seconds": seconds}
    text = "\n".join(
        [
            f"lab {lab.number} is up ({seconds:.1f} s); commits at home {_durability_text(lab.durability)}",
            f"  estate      {lab.estate}",
            f"  front door  http://{lab.address('home')}:8080 (Host: population.example)",
            "  next        continuity lab load --background · continuity status · continuity lab break home-crash",
        ]
    )
    emit(output, "continuity/lab-up/v1", {**found, "durability": lab.durability}, text)


def _durability_text(durability: str) -> str:
    return "wait for the embassy" if durability == "remote" else "do not wait for the embassy"


@app.command()
def status(number: LabOption = None, output: OutputOption = Output.TEXT) -> None:
    """Show the labs of this person, and how the parts of each are right now.

    Example: continuity lab status
    """
    from orchestrator.lab import claims, faults, sites

    labs = claims.labs() if number is None else [claims.find(number)]
    found = [{**sites.status(lab), "broken": faults.broken(lab)} for lab in labs]
    text = "\n\n".join(_status_text(each) for each in found) or "no lab is up (continuity lab up)"
    emit(output, "continuity/lab-status/v1", {"labs": found}, text)


def _status_text(found: dict[str, Any]) -> str:
    broken = ", ".join(f"{name} at {site}" for name, site in found["broken"].items()) or "nothing"
    lines = [
        f"lab {found['number']} ({found['state']}): commits {_durability_text(found['durability'])}",
        f"  link    {_state(found['link']['link'])}"
        + (f", {found['link']['delay_ms']} ms each way" if found["link"].get("delay_ms") else ""),
        f"  broken  {broken}",
        f"  load    {len(found['load'])} running",
    ]
    rows = []
    for name, site in found["sites"].items():
        rows.append((name, _state(site["state"]), f"{site['processes']} processes", site["front_door"], ""))
        for service, answer in site.get("services", {}).items():
            said = "does not answer" if answer is None else _service_text(answer)
            rows.append(("", "", "", service, said))
    return "\n".join(lines) + "\n" + "\n".join(f"  {line}" for line in table(rows).splitlines())


def _service_text(answer: dict[str, Any]) -> str:
    if "role" in answer:
        return f"{answer['role']}, epoch {answer['epoch']}, " + (
            "takes writes" if answer["writes"] else "refuses writes"
        )
    return f"{answer.get('mode', '')}, edition {answer.get('edition', 0)}"


def _state(word: str) -> str:
    return paint(word, {"running": "green", "up": "green"}.get(word, "red"))


@app.command()
def load(
    number: LabOption = None,
    service: Annotated[list[str] | None, typer.Option("--service", help="Default: both registers.")] = None,
    writers: Annotated[int, typer.Option(help="Writers of the population register.", min=1, max=64)] = 4,
    seconds: Annotated[float, typer.Option(help="0: until it is stopped.", min=0)] = 10.0,
    pause: Annotated[int, typer.Option(help="Milliseconds between a writer's requests.", min=0)] = 3,
    background: Annotated[
        bool, typer.Option("--background", help="Go on when this command has ended.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End every load of the lab.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write through the front door and keep a ledger of what was acknowledged.

    Examples:

      continuity lab load --seconds 30
      continuity lab load --background --seconds 0
      continuity lab load --stop
    """
    from orchestrator.lab import traffic

    for named in service or ():
        traffic.must_take_load(named)
    lab = _find(number)
    if stop:
        _print_load(traffic.stop(lab), output)
        return
    loads = [
        traffic.Load(
            service=each,
            writers=writers if each == "population-register" else max(1, writers // 4),
            seconds=seconds,
            pause_ms=pause if each == "population-register" else max(20, pause),
        )
        for each in service or ("population-register", "land-register")
    ]
    running = [traffic.start(lab, each) for each in loads]
    if background:
        lines = [
            f"{each.load.service}: {each.load.writers} writers, ledger {each.ledger}" for each in running
        ]
        body = {
            "ledgers": [str(each.ledger) for each in running],
            "pids": [each.process.pid for each in running],
        }
        emit(
            output, "continuity/lab-load/v1", body, "\n".join([*lines, "end it: continuity lab load --stop"])
        )
        return
    if not seconds:
        say("writing until Ctrl-C")
    try:
        for each in running:
            each.process.wait()
    except KeyboardInterrupt:
        for each in running:  # and no other load of this lab
            each.process.terminate()
    _print_load([traffic.wait(each) for each in running], output)


def _print_load(summaries: list[dict[str, Any]], output: Output) -> None:
    rows = [
        (
            str(each["ledger"]),
            f"{each['acked']} acknowledged",
            f"{each['refused']} refused",
            f"{each['unknown']} unknown",
        )
        for each in summaries
    ]
    emit(output, "continuity/lab-load/v1", {"loads": summaries}, table(rows) or "no load was running")


@app.command("break")
def break_(
    fault: Annotated[
        str,
        typer.Argument(
            help="home-crash, home-hang, home-returns, link-cut, link-slow, proxy-down, dns-refused.",
            autocompletion=_complete.faults,
        ),
    ],
    number: LabOption = None,
    site: SiteOption = None,
    delay: Annotated[int, typer.Option(help="link-slow: milliseconds each way.", min=0, max=10_000)] = 0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Break something for real; says what is real about it and what is not.

    Examples:

      continuity lab break home-crash
      continuity lab break link-slow --delay 200
    """
    from orchestrator.lab import faults

    faults.fault(fault)
    where = _site(site)
    found = faults.break_it(_find(number), fault, where, delay)
    text = (
        f"{found['fault']} at {found['site']}\n  real      {found['real']}\n  not real  {found['not_real']}"
    )
    emit(output, "continuity/lab-break/v1", found, text)


@app.command()
def heal(
    fault: Annotated[
        str | None,
        typer.Argument(
            help="Default: everything that is broken or without power.", autocompletion=_complete.faults
        ),
    ] = None,
    number: LabOption = None,
    site: SiteOption = None,
    even_if_unknown: Annotated[
        bool,
        typer.Option(
            "--even-if-unknown", help="Start a database although the other site may be the one that writes."
        ),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Heal a fault. A database is held back unless the other site says that it does not write: ``break
    home-returns`` does not.

    Examples:

      continuity lab heal
      continuity lab heal link-cut
    """
    from orchestrator.lab import faults

    if fault is not None:
        faults.fault(fault)
    where = _site(site)
    healed = faults.heal(_find(number), fault, where, insist=even_if_unknown)
    lines = []
    for each in healed:
        held = ", ".join(each["done"].get("held", ()))
        lines.append(f"{each['fault']} at {each['site']}: healed" + (f"; held back: {held}" if held else ""))
        if held:
            again = f"continuity lab heal home-crash --site {each['site']} --even-if-unknown"
            lines.append(f"    {each['done']['why']}; to start it all the same: {again}")
    emit(output, "continuity/lab-heal/v1", {"healed": healed}, "\n".join(lines) or "nothing was broken")


@app.command()
def check(
    number: LabOption = None,
    site: SiteOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Compare the ledgers with the site that survived, value by value; ends with exit code 6 if anything is wrong.

    Examples:

      continuity lab check
      continuity lab check --site embassy
    """
    from orchestrator.lab import sites, traffic

    named = _site(site)
    lab = _find(number)
    survivor = named or sites.active_site(lab)
    if survivor is None:
        raise RefusedError("no site, or more than one, is active", ("--site home", "--site embassy"))
    if sites.load_processes(lab):
        raise RefusedError(
            "load is running: what it writes between a look at the ledgers and one at the rows would pass for a fault",
            ("continuity lab load --stop",),
        )
    found = traffic.check(lab, survivor)
    emit(output, "continuity/lab-check/v1", found, _check_text(found))
    if not found["verified"]:
        raise typer.Exit(_exits.PARTIAL)


def _check_text(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"{paint('not verified', 'red')}: {found['error']}"
    word = paint("verified", "green") if found["verified"] else paint("NOT verified", "red")
    names = (
        "acked",
        "kept",
        "lost",
        "changed",
        "duplicated",
        "refused_present",
        "unknown_kept",
        "unknown_absent",
    )
    rows = [(name.replace("_", " "), str(found[name])) for name in names]
    if found.get("diverged"):
        rows.append(("diverged (only at the other site)", str(len(found["diverged"]))))
    lines = [f"{word} against the {found['survivor']}", *(f"  {line}" for line in table(rows).splitlines())]
    lines += [f"  {name}: {', '.join(listed)}" for name, listed in found["listed"].items()]
    return "\n".join(lines)


@app.command()
def down(
    number: LabOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every lab of this person.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """End every process of a lab and delete its folder.

    Examples:

      continuity lab down
      continuity lab down --all
    """
    from orchestrator.lab import claims, sites

    labs = claims.labs() if every else [_find(number)]
    ended = {str(lab.number): sites.down(lab) for lab in labs}
    lines = [f"lab {name} is gone ({count} processes ended)" for name, count in ended.items()]
    emit(output, "continuity/lab-down/v1", {"ended": ended}, "\n".join(lines) or "no lab is up")


@app.command()
def doctor(output: OutputOption = Output.TEXT) -> None:
    """Say which parts a lab would use here, and what is missing.

    Example: continuity lab doctor
    """
    from orchestrator.lab import doctor as lab_doctor

    findings = lab_doctor.examine()
    rows = [
        (paint("ok", "green") if each.ok else paint("missing", "red"), each.part, each.detail)
        for each in findings
    ]
    body = {"findings": [{"part": each.part, "ok": each.ok, "detail": each.detail} for each in findings]}
    emit(output, "continuity/lab-doctor/v1", body, table(rows))
    if not all(each.ok for each in findings):
        raise typer.Exit(_exits.REFUSED)
