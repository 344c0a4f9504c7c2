"""Decides which actions exist: kind → where its class stands; must never import them.

A new action is one file in this folder and one line here. The class is resolved on first use, so
that reading commands stay fast.
"""

from __future__ import annotations

from collections.abc import Mapping

ACTIONS: Mapping[str, str] = {}
