"""The way of a request: admit, choose, send, relay."""

from datetime import UTC, datetime

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

import claudeproxy
from accounts.status import health_of
from claudeproxy.conf import conf
from clients.directory import KnownKey
from proxy import admission, endpoints, errors, facts, headers, relay
from proxy.attempts import Ask, Attempts, Served
from proxy.endpoints import Endpoint
from proxy.facts import RequestFacts
from proxy.handler import GatewayRequest
from proxy.selection import is_eligible


async def forward(request: GatewayRequest) -> HttpResponseBase:
    """Serve a request of the API with an account of the pool."""
    endpoint = _endpoint(request)
    key = await _admit(request)
    body = await request.read_body(
        endpoint.body_limit_bytes, conf.request_timeout.total_seconds()
    )
    known = _facts(request, endpoint, body)
    served = await Attempts(request, Ask(endpoint, key, known, body)).run()
    return _answer(request, served)


def _endpoint(request: GatewayRequest) -> Endpoint:
    endpoint = endpoints.find(request.scope["raw_path"])
    if endpoint is None:
        raise errors.not_found()
    if request.method not in endpoint.methods:
        raise errors.method_not_allowed(", ".join(endpoint.methods))
    return endpoint


async def _admit(request: GatewayRequest) -> KnownKey:
    """Find out whose request it is; RequestRefusedError (401) if nobody's."""
    snapshot = request.gateway.snapshot
    if not snapshot.is_loaded:
        raise errors.NotReadyError
    now = datetime.now(UTC)
    texts = admission.candidates(request.raw_headers)
    key = admission.find(texts, snapshot.contents.keys, now)
    if key is None and admission.may_be_new(texts, snapshot.contents.keys):
        await snapshot.refresh()
        key = admission.find(texts, snapshot.contents.keys, now)
    if key is None:
        raise admission.refusal(texts, snapshot.contents.keys, now)
    for name, _ in request.raw_headers:
        if name in headers.ORGANIZATION_HEADERS:
            raise errors.names_an_organization(name.decode())
    request.record.key_name = key.name
    return key


def _facts(request: GatewayRequest, endpoint: Endpoint, body: bytes) -> RequestFacts:
    if not endpoint.is_conversation:
        return RequestFacts()
    known = facts.read(
        body,
        session_id=headers.first(request.raw_headers, b"x-claude-code-session-id"),
        by_prefix=conf.routing_strategy == "affinity",
    )
    request.record.model = known.model
    request.record.is_stream = known.is_stream
    return known


def _answer(request: GatewayRequest, served: Served) -> StreamingHttpResponse:
    record, reply = request.record, served.reply
    if served.frames is not None and served.rest is not None:
        content = relay.events(
            served.start, served.rest, served.frames, record, request.open_request
        )
    else:
        content = relay.body(served.start, served.rest, record)
    response = StreamingHttpResponse(content, status=reply.status)
    del response.headers["content-type"]
    for name, value in headers.for_caller(reply.headers):
        if name == b"content-length" and reply.is_event_stream:
            continue  # an error event may have to be put behind it
        text = value.decode("latin-1")
        if name.decode() in response.headers:
            # RFC 9110 §5.3: several lines of one name are one list.
            text = f"{response.headers[name.decode()]}, {text}"
        response.headers[name.decode()] = text
    if reply.is_event_stream:
        # For a proxy in front of us, nginx above all.
        response.headers["x-accel-buffering"] = "no"
    return response


async def health(request: GatewayRequest) -> HttpResponse:
    """Say how the pool is, to anybody: a word and the version, no internals."""
    now = datetime.now(UTC)
    usable = sum(
        is_eligible(account, now)
        for account in request.gateway.snapshot.contents.accounts
    )
    request.record.is_quiet = True
    return JsonResponse(
        {"status": health_of(usable), "version": claudeproxy.__version__}
    )


async def probe(request: GatewayRequest) -> HttpResponse:
    """Answer the `HEAD` that Claude Code sends to see whether somebody is there."""
    request.record.is_quiet = True
    return HttpResponse()
