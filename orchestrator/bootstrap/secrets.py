"""Decides how a secret reference becomes a value; must never log, print or journal one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import InputError

ENV, FILE = "secret://env/", "secret://file/"


@dataclass(slots=True)
class FolderSecrets:
    """``secret://env/NAME`` from the environment, ``secret://file/NAME`` from ``folder/NAME``."""

    folder: Path
    _read: dict[str, str] = field(default_factory=dict)

    def value(self, reference: str) -> str:
        if reference not in self._read:
            self._read[reference] = self._look_up(reference)
        return self._read[reference]

    def _look_up(self, reference: str) -> str:
        if reference.startswith(ENV):
            name = reference[len(ENV) :]
            if name not in os.environ:
                raise InputError(f"{reference}: {name} is not in the environment")
            return os.environ[name]
        if not reference.startswith(FILE):
            raise InputError(f"{reference}: a secret is named secret://env/NAME or secret://file/NAME")
        name = reference[len(FILE) :]
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise InputError(f"{reference}: leads out of {self.folder}")
        try:
            return path.read_text().rstrip("\n")
        except OSError as error:
            raise InputError(f"{reference}: {path}: {error.strerror}") from error
