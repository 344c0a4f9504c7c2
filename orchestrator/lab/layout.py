"""Decides where everything of a lab stands: addresses, ports, folders; must never start or change anything.

Lab number N (1..250) has addresses of its own: 127.N.1.1 is home, 127.N.2.1 the embassy, 127.N.3.1 the
vantage outside both, 127.N.9.1 the way to home and 127.N.9.2 the way from home to the embassy (both are
the link's relay, which stands at neither site). Ports are the same at each site.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

SiteName = Literal["home", "embassy"]
SITES: tuple[SiteName, SiteName] = ("home", "embassy")
NUMBER_MAX = 250
MARK = "CONTINUITY_LAB_PART"  # environment variable that every process of a lab carries: FOLDER:PART

POSTGRES_PORT = 5432
FRONT_PORT = 8080
POPULATION_PORT = 8201
LAND_PORT = 8202
GAZETTE_PORT = 8203
DNS_PORT = 5353
SUPERVISOR_PORT = 9001
POWER_PORT = 8443
CLAIM_PORT = 8440  # held by the relay at the vantage for as long as the lab lives

ZONE = "example."
TSIG_NAME = "continuity."
TSIG_ALGORITHM = "hmac-sha256"
SOCKET_PATH_BYTES_MAX = 90  # the system's limit is 107; HAProxy appends to the name while it binds

SERVICE_PORTS = {
    "population-register": POPULATION_PORT,
    "land-register": LAND_PORT,
    "state-gazette": GAZETTE_PORT,
}
SERVICE_HOSTS = {
    "population-register": "population.example",
    "land-register": "land.example",
    "state-gazette": "gazette.example",
}
DATABASES = {"population-register": "population", "land-register": "land"}
HOST_NAMES: dict[SiteName, str] = {"home": "h1", "embassy": "e1"}
PROXY_NAMES: dict[SiteName, str] = {"home": "ph", "embassy": "pe"}
NAME_SERVER_NAMES: dict[SiteName, str] = {"home": "nh", "embassy": "ne"}


def other(site: SiteName) -> SiteName:
    return "embassy" if site == "home" else "home"


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab. ``durability`` remote = synchronous commit; ``state`` starting | up | stopping.

    ``owner_pid`` (0: none) is a process that the lab belongs to: when it is gone, so is the lab's right to exist.
    """

    number: int
    folder: str
    durability: Literal["remote", "local"] = "remote"
    state: Literal["starting", "up", "stopping"] = "starting"
    owner_pid: int = 0
    owner_started: int = 0
    boot: str = ""
    postgres: str = ""  # where its real binaries stand
    haproxy: str = ""

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def bin(self) -> Path:
        return self.path / "bin"

    @property
    def estate(self) -> Path:
        return self.path / "estate" / "estate.yaml"

    @property
    def secrets(self) -> Path:
        return self.path / "estate" / "secrets"

    @property
    def ca(self) -> Path:
        return self.path / "pki" / "ca.pem"

    @property
    def relay_socket(self) -> Path:
        return self.path / "outside" / "relay.sock"

    @property
    def load_folder(self) -> Path:
        return self.path / "load"

    def address(self, site: SiteName) -> str:
        """Where clients meet a site."""
        return f"127.{self.number}.{1 if site == 'home' else 2}.1"

    def way_to(self, site: SiteName) -> str:
        """Where the other site meets a site: an address of the link's relay."""
        return f"127.{self.number}.9.{1 if site == 'home' else 2}"

    def control_address(self, site: SiteName) -> str:
        """Where continuity, which works from the embassy's side, meets a site."""
        return self.way_to("home") if site == "home" else self.address("embassy")

    @property
    def vantage(self) -> str:
        return f"127.{self.number}.3.1"

    @property
    def power_url(self) -> str:
        return f"http://127.{self.number}.9.9:{POWER_PORT}"

    def site(self, site: SiteName) -> SitePaths:
        return SitePaths(site, self.path / site)

    def secret(self, name: str) -> str:
        """The value of a secret of this lab's estate."""
        return (self.secrets / name).read_text(encoding="utf-8").rstrip("\n")

    def mark(self, part: str) -> str:
        return f"{self.folder}:{part}"

    def save(self) -> None:
        write_file(self.path / "lab.json", json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class SitePaths:
    """The folders and files of one site. Nothing of the other site is ever below them."""

    name: SiteName
    path: Path

    @property
    def data(self) -> Path:
        return self.path / "postgresql" / "data"

    @property
    def config(self) -> Path:
        return self.path / "postgresql" / "config"

    @property
    def haproxy(self) -> Path:
        return self.path / "haproxy"

    @property
    def gazette(self) -> Path:
        return self.path / "gazette"

    @property
    def nameserver(self) -> Path:
        return self.path / "nameserver"

    @property
    def logs(self) -> Path:
        return self.path / "log"

    @property
    def supervisor(self) -> Path:
        return self.path / "supervisord.conf"

    @property
    def run(self) -> Path:
        return self.path / "run"


def load(folder: str | Path) -> Lab:
    """The lab in a folder. FileNotFoundError or ValueError when there is none."""
    return Lab(**json.loads((Path(folder) / "lab.json").read_text(encoding="utf-8")))


def continuity_home() -> Path:
    """``~/.continuity``, or CONTINUITY_HOME."""
    return Path(os.environ.get("CONTINUITY_HOME") or "~/.continuity").expanduser().absolute()


def labs_folder() -> Path:
    """Where labs stand: below ``continuity_home``, or a short folder when socket paths would be too long."""
    folder = continuity_home() / "lab"
    longest = folder / "250" / "embassy" / "haproxy" / "admin.sock"
    if len(os.fsencode(longest)) <= SOCKET_PATH_BYTES_MAX:
        return folder
    return Path(tempfile.gettempdir()) / f"continuity-lab-{os.getuid()}"


def write_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fchmod(handle.fileno(), mode)
    os.replace(temporary, path)
