"""Decides how one HTTP request is a step (``http.request``) and how services are asked from outside
(``http.check``); must never take a status for an effect where a check is declared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from orchestrator.core.model import ProofKind
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import Json, Milliseconds, NameServerRef, Secret, SiteRef, Template
from orchestrator.errors import ContinuityError, InputError
from orchestrator.ports import Context, Description

if TYPE_CHECKING:
    from orchestrator.drivers import http

POLL_SECONDS = (0.005, 0.1)
EXCHANGE_SECONDS_MAX = 1.0
SECRET_PREFIX = "secret://"


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET that shows whether the effect is there. ``json``: equalities by key, ``a.b`` inside objects."""

    url: Template
    status: int = 200
    json: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestParams:
    """``expect_status`` 0: any 2xx. A header may be a secret reference as a whole.

    With ``check`` the step ends when the check is satisfied (a controller's read-back, not its exit
    code); without it the answer itself must be as expected. ``proves`` makes it usable as a fence: then
    a ``check`` that expects a value is a must.
    """

    method: str
    url: Template
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Json] | None = None
    user: str = ""
    password: Secret = ""
    expect_status: int = 0
    expect_json: Mapping[str, Json] = field(default_factory=dict)
    check: HttpCheck | None = None
    proves: ProofKind | None = None
    ca: Template = ""


class Request:
    """Send one request. With a check, an answer that got lost is looked up instead of guessed."""

    kind: ClassVar[str] = "http.request"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = RequestParams
    idempotent: ClassVar[bool] = False
    mutates: ClassVar[bool] = True

    def describe(self, params: RequestParams, parts: Parts) -> Description:
        if params.proves is not None and (params.check is None or not params.check.json):
            raise InputError(
                f"{self.kind}: it proves {params.proves} only by a read-back:"
                " give a `check` with the `json` that it must read"
            )
        body = "" if params.json is None else " " + json.dumps(params.json, sort_keys=True)
        commands = [f"{params.method} {params.url}{body}"]
        touches = [touch(params.url, parts)]
        if params.check is not None:
            wanted = json.dumps(params.check.json, sort_keys=True)
            commands.append(f"until GET {params.check.url}: HTTP {params.check.status} {wanted}")
            touches.append(touch(params.check.url, parts))
        return Description(tuple(commands), tuple(dict.fromkeys(touches)), Undo.POINT_OF_NO_RETURN)

    def load(self, context: Context[RequestParams]) -> None:
        from orchestrator.drivers import http, waiting  # noqa: F401

        waiting.load()
        self._headers(context)

    def check(self, context: Context[RequestParams]) -> Finding:
        from orchestrator.drivers import http

        check = context.params.check
        if check is None:
            return Finding(FindingKind.CANNOT_TELL, "no check is declared for this request")
        try:
            answer = self._read(context, check)
        except ContinuityError as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        problems = _problems(answer, check.status, check.json)
        if problems:
            return Finding(FindingKind.NOT_DONE, "; ".join(problems))
        facts = {key: _value(answer, key) for key in check.json}
        assert isinstance(answer, http.Response)
        return Finding(FindingKind.DONE, "", self._evidence(context.params, answer.status, facts))

    def execute(self, context: Context[RequestParams]) -> Outcome:
        from orchestrator.drivers import http

        params = context.params
        context.record(f"{params.method} {params.url}")
        body = b"" if params.json is None else json.dumps(params.json).encode()
        lost = ""
        try:
            headers = self._headers(context)
        except InputError as error:  # a secret is not where the estate says: nothing was sent
            return Failed(str(error))
        try:
            answer = http.exchange(
                params.method,
                params.url,
                headers=headers,
                body=body,
                timeout_seconds=self._share(context),
                ca_file=params.ca,
            )
        except http.NotConnectedError as error:
            return Failed(str(error), retryable=True)
        except http.NoAnswerError as error:
            if params.check is None:
                return Unknown(str(error))
            lost = str(error)
        else:
            problems = _problems(answer, params.expect_status, params.expect_json)
            if params.check is None:
                facts = {key: _value(answer, key) for key in params.expect_json}
                if not problems:
                    return Succeeded(self._evidence(params, answer.status, facts))
                refused = 400 <= answer.status < 500
                text = f"{params.method} {params.url}: {'; '.join(problems)}"
                return Failed(text) if refused else Unknown(text)
            lost = "; ".join(problems)
            if 400 <= answer.status < 500 and (finding := self.check(context)).kind is FindingKind.NOT_DONE:
                return Failed(f"{params.method} {params.url}: {lost}; {finding.reason}")
        return self._await_check(context, lost)

    def undo(self, context: Context[RequestParams]) -> Outcome:
        return Failed(f"{context.params.method} {context.params.url} cannot be undone")

    def _await_check(self, context: Context[RequestParams], lost: str) -> Outcome:
        from orchestrator.drivers import waiting

        left = context.seconds_left()
        found = waiting.until_done(context, lambda _: self.check(context), left, waiting.Pace(*POLL_SECONDS))
        if found.kind is FindingKind.DONE:
            return Succeeded(found.evidence)
        return Unknown("; ".join(part for part in (lost, found.reason) if part))

    def _share(self, context: Context[RequestParams]) -> float:
        """With a check, half of the time is kept for it."""
        return context.seconds_left() / (2 if context.params.check is not None else 1)

    def _read(self, context: Context[RequestParams], check: HttpCheck) -> http.Response:
        from orchestrator.drivers import http

        return http.exchange(
            "GET",
            check.url,
            headers=self._headers(context),
            timeout_seconds=min(EXCHANGE_SECONDS_MAX, context.seconds_left()),
            ca_file=context.params.ca,
        )

    def _headers(self, context: Context[RequestParams]) -> dict[str, str]:
        from orchestrator.drivers import http

        params = context.params
        headers = {} if params.json is None else {"Content-Type": "application/json"}
        for name, value in params.headers.items():
            headers[name] = context.secrets.value(value) if value.startswith(SECRET_PREFIX) else value
        if params.user:
            password = context.secrets.value(params.password) if params.password else ""
            headers |= http.basic_authorisation(params.user, password)
        return headers

    def _evidence(self, params: RequestParams, status: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        evidence: dict[str, Any] = {"status": status, **facts}
        if params.proves is not None and params.check is not None and params.check.json:
            evidence["proof"] = str(params.proves)
        return evidence


@dataclass(frozen=True, slots=True)
class CheckParams:
    """``resolve_at``: the estate's name servers that are asked for the URL's host, best first; none:
    the system's resolver. ``from_site``: the vantage that the question is asked from."""

    url: Template
    status: int = 200
    json: Mapping[str, Json] = field(default_factory=dict)
    from_site: SiteRef = ""
    resolve_at: tuple[NameServerRef, ...] = ()
    within_ms: Milliseconds = 5_000
    ca: Template = ""


class Check:
    """Ask a service as a citizen would: by its name, through the front door."""

    kind: ClassVar[str] = "http.check"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = CheckParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: CheckParams, parts: Parts) -> Description:
        wanted = f"HTTP {params.status} {json.dumps(params.json, sort_keys=True)}"
        at = f" resolved at {', '.join(params.resolve_at)}" if params.resolve_at else ""
        asked = f" from {params.from_site}" if params.from_site else ""
        servers = [parts.name_servers[name] for name in params.resolve_at]
        touches = (*tuple(Touch(s.site, f"{s.address}:{s.port}") for s in servers), touch(params.url, parts))
        return Description((f"GET {params.url}{at}{asked}: {wanted}",), touches, Undo.NONE_NEEDED)

    def load(self, context: Context[CheckParams]) -> None:
        from orchestrator.drivers import dns, http, waiting  # noqa: F401

        waiting.load()
        if context.params.resolve_at:
            dns.load()

    def check(self, context: Context[CheckParams]) -> Finding:
        return self._look(context, context.seconds_left())

    def _look(self, context: Context[CheckParams], left_seconds: float) -> Finding:
        problem, evidence = self._ask(context, min(EXCHANGE_SECONDS_MAX, left_seconds))
        return Finding(FindingKind.NOT_DONE if problem else FindingKind.DONE, problem, evidence)

    def execute(self, context: Context[CheckParams]) -> Outcome:
        from orchestrator.drivers import waiting

        params = context.params
        found = waiting.until_done(
            context,
            lambda left: self._look(context, left),
            params.within_ms / 1000,
            waiting.Pace(*POLL_SECONDS),
        )
        if found.kind is FindingKind.DONE:
            return Succeeded(found.evidence)
        return Failed(f"{params.url}: {found.reason}", retryable=True)

    def undo(self, context: Context[CheckParams]) -> Outcome:
        return Succeeded()

    def _ask(self, context: Context[CheckParams], timeout_seconds: float) -> tuple[str, dict[str, Any]]:
        from orchestrator.drivers import dns, http

        params = context.params
        servers = [context.parts.name_servers[name] for name in params.resolve_at]
        try:
            answer = http.exchange(
                "GET",
                params.url,
                timeout_seconds=timeout_seconds,
                resolve=dns.resolver(servers, timeout_seconds=timeout_seconds) if servers else None,
                ca_file=params.ca,
            )
        except ContinuityError as error:
            return str(error), {}
        problems = _problems(answer, params.status, params.json)
        facts = {key: _value(answer, key) for key in params.json}
        evidence = {"status": answer.status, "address": answer.address, "from": params.from_site, **facts}
        return "; ".join(problems), evidence


def touch(url: str, parts: Parts) -> Touch:
    """The endpoint of a URL and the site of the declared thing that has its address ('' when none has)."""
    host = urlsplit(url).hostname or ""
    try:
        port = urlsplit(url).port
    except ValueError as error:
        raise InputError(f"{url}: {error}") from error
    return Touch(_sites(parts).get(host, ""), f"{host}:{port}" if port else host)


_sites_of_last: tuple[Parts, Mapping[str, str]] | None = None


def _sites(parts: Parts) -> Mapping[str, str]:
    """Address → site of what is declared; kept for the last parts asked, since a plan asks for each step."""
    global _sites_of_last  # noqa: PLW0603 - a memo of one: losing it costs time, nothing else
    last = _sites_of_last
    if last is None or last[0] is not parts:
        sites = {server.address: server.site for server in parts.name_servers.values()}
        sites |= {declared.address: declared.site for declared in parts.hosts.values()}
        last = _sites_of_last = (parts, sites)
    return last[1]


def _problems(answer: http.Response, status: int, wanted: Mapping[str, Json]) -> list[str]:
    from orchestrator.drivers import http

    problems = []
    if answer.status != status if status else not 200 <= answer.status < 300:
        problems.append(f"HTTP {answer.status}, not {status or '2xx'}")
    return problems + list(http.mismatches(wanted, answer.json()) if wanted else ())


def _value(answer: http.Response, path: str) -> Any:
    """A value of the answer as evidence may hold it: no floats."""
    at = answer.json()
    for key in path.split("."):
        at = at.get(key) if isinstance(at, Mapping) else None
    return str(at) if isinstance(at, float) else at
