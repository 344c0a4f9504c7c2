"""Decides whether a site has power: the lab's baseboard controller, a subset of Redfish over HTTP.

It stands outside both sites. ``ForceOff`` ends every process of a site at once and answers only after it has
looked and found none; from then on the site stays off, whoever wants to start it, until ``On``. A program is
started at a site by nobody else. Run as a program: ``python -m orchestrator.lab.power LAB-FOLDER``.

    GET  /redfish/v1/Systems/home                               {"PowerState": "On" | "Off", …}
    POST /redfish/v1/Systems/home/Actions/ComputerSystem.Reset  {"ResetType": "ForceOff" | "On" | "GracefulShutdown"}
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from orchestrator.lab import claims, layout, owner, processes, supervise
from orchestrator.lab.layout import SITES, Lab, SiteName

SYSTEMS = "/redfish/v1/Systems"
ACTION = "Actions/ComputerSystem.Reset"
BODY_BYTES_MAX = 4096
RESET_SECONDS_MAX = 10.0


class Controller:
    """The power of both sites. The state is kept in a file, so it outlives this process."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._folder = lab.path / "outside"
        self._one_at_a_time = {site: threading.Lock() for site in SITES}

    def state(self, site: SiteName) -> dict[str, Any]:
        """What is so now: the ordered state, and how many processes of the site were seen just now."""
        return self._said(site, len(self._members(site)))

    def _said(self, site: SiteName, alive: int) -> dict[str, Any]:
        ordered = "On" if (self._folder / f"power-{site}").exists() else "Off"
        return {
            "@odata.id": f"{SYSTEMS}/{site}",
            "Id": site,
            "PowerState": "On" if ordered == "On" or alive else "Off",
            "Oem": {"Continuity": {"Processes": alive}},
        }

    def off(self, site: SiteName) -> dict[str, Any]:
        """Cut the power: no process of the site is left when this returns."""
        with self._one_at_a_time[site]:
            (self._folder / f"power-{site}").unlink(missing_ok=True)
            processes.kill_all(lambda: self._members(site))
            return self._said(site, 0)  # it looked last, and found none

    def on(self, site: SiteName, held: Collection[str] = ()) -> dict[str, Any]:
        """Give power: the site's supervisord starts, and with it all that starts by itself there."""
        with self._one_at_a_time[site]:
            processes.reap()
            if not self._members(site):
                claims.forget_server(self._lab.site(site).data)
                (self._folder / f"power-{site}").touch(mode=0o600)
                supervise.start(self._lab, site, held)
            return self.state(site)

    def _members(self, site: SiteName) -> dict[int, processes.Process]:
        return processes.of_part(self._lab.mark(site), self._lab.site(site).path)


def handler(controller: Controller) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path.rstrip("/") == SYSTEMS:
                members = [{"@odata.id": f"{SYSTEMS}/{site}"} for site in SITES]
                self._answer(200, {"Members": members, "Members@odata.count": len(members)})
            elif (site := self._site(self.path)) is not None:
                self._answer(200, controller.state(site))
            else:
                self._answer(404, {"error": "no such system"})

        def do_POST(self) -> None:
            length = min(int(self.headers.get("Content-Length") or 0), BODY_BYTES_MAX)
            body = self.rfile.read(length)
            suffix = f"/{ACTION}"
            site = self._site(self.path.removesuffix(suffix)) if self.path.endswith(suffix) else None
            if site is None:
                self._answer(404, {"error": "no such action"})
                return
            try:
                order = json.loads(body)
                kind, held = order["ResetType"], tuple(order.get("Oem", {}).get("Held", ()))
            except (ValueError, KeyError, TypeError, AttributeError):
                self._answer(400, {"error": 'send {"ResetType": "ForceOff" | "On"}'})
                return
            if kind in ("ForceOff", "GracefulShutdown"):
                self._answer(200, controller.off(site))
            elif kind == "On":
                self._answer(200, controller.on(site, held))
            else:
                self._answer(400, {"error": f"ResetType {kind} is not supported"})

        def _site(self, path: str) -> SiteName | None:
            name = path.removeprefix(f"{SYSTEMS}/").rstrip("/")
            return name if name in SITES else None

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            sys.stderr.write(f"{self.log_date_time_string()} {format % args}\n")

    return Handler


def reset(lab: Lab, site: SiteName, kind: str, held: Collection[str] = ()) -> dict[str, Any]:
    """Order a reset as anybody would, over HTTP. TransientError when the controller does not answer."""
    from orchestrator.drivers import http as plain_http

    answer = plain_http.exchange(
        "POST",
        f"{lab.power_url}{SYSTEMS}/{site}/{ACTION}",
        headers={"Content-Type": "application/json"},
        body=json.dumps({"ResetType": kind, "Oem": {"Held": list(held)}}).encode(),
        timeout_seconds=RESET_SECONDS_MAX,
    )
    found: dict[str, Any] = json.loads(answer.body)
    return found


def main(folder: str) -> None:
    lab = layout.load(Path(folder))
    server = http.server.ThreadingHTTPServer(
        (f"127.{lab.number}.9.9", layout.POWER_PORT), handler(Controller(lab))
    )
    server.daemon_threads = True
    threading.Thread(target=owner.watch, args=(lab.path,), daemon=True, name="owner").start()
    server.serve_forever(poll_interval=60)


if __name__ == "__main__":
    main(sys.argv[1])
