"""Decides where the estate and its log lie; must never open either.

Order of precedence: ``--estate`` > CONTINUITY_ESTATE > ./estate.yaml > the one running lab.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError

LOG_FOLDER = ".continuity"
LOG_FILE = "journal.db"


@dataclass(frozen=True, slots=True)
class Settings:
    """``estate`` is an absolute path to estate.yaml; everything else lies relative to its folder."""

    estate: Path

    @property
    def folder(self) -> Path:
        return self.estate.parent

    @property
    def log_folder(self) -> Path:
        return self.folder / LOG_FOLDER

    @property
    def log(self) -> Path:
        return self.log_folder / LOG_FILE


def locate(
    option: str | None, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Settings:
    """Find the estate. Raises InputError that says where was looked."""
    environment = os.environ if environment is None else environment
    cwd = cwd or Path.cwd()
    for source, text in (("--estate", option), ("CONTINUITY_ESTATE", environment.get("CONTINUITY_ESTATE"))):
        if text:
            path = (cwd / text).absolute()
            path = path / "estate.yaml" if path.is_dir() else path
            if not path.is_file():
                raise InputError(f"{source}: there is no estate at {path}")
            return Settings(path)
    if (cwd / "estate.yaml").is_file():
        return Settings((cwd / "estate.yaml").absolute())
    labs = running_labs(environment)
    if len(labs) == 1:
        return Settings(labs[0])
    if labs:
        listed = ", ".join(str(lab) for lab in labs)
        raise InputError(f"several labs are running; name one with --estate: {listed}")
    raise InputError(
        "no estate: give --estate FILE or CONTINUITY_ESTATE, go to a folder with an estate.yaml, "
        "or start one to try things on: continuity lab up"
    )


def continuity_home(environment: Mapping[str, str]) -> Path:
    """Where this user's labs are registered: CONTINUITY_HOME, else ~/.continuity."""
    text = environment.get("CONTINUITY_HOME")
    return Path(text) if text else Path(environment.get("HOME", "~")).expanduser() / LOG_FOLDER


def running_labs(environment: Mapping[str, str]) -> list[Path]:
    """The estates of this user's running labs, by number."""
    found = []
    for entry in sorted((continuity_home(environment) / "labs").glob("*.json")):
        try:
            lab = json.loads(entry.read_text())
        except (OSError, ValueError):
            continue  # a lab that is being made or taken down right now
        estate = Path(str(lab.get("estate", "")))
        if lab.get("state", "up") == "up" and estate.is_file():
            found.append(estate)
    return found


def person() -> str:
    """Who sits at this machine, for the record: CONTINUITY_BY, else the login name."""
    import getpass

    try:
        return os.environ.get("CONTINUITY_BY") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def machine() -> str:
    return os.uname().nodename


def boot_id() -> str:
    """The kernel's id of this boot; "" where the kernel tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
