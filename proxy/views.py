"""The way of a request: admit, choose, send, relay."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

import claudeproxy
from accounts.status import ObjectKind, health_of
from claudeproxy.conf import conf
from clients.directory import KnownKey
from proxy import (
    addresses,
    admission,
    endpoints,
    errors,
    facts,
    headers,
    objects,
    relay,
    results_url,
    sightings,
)
from proxy.asks import Ask, Served
from proxy.attempts import Attempts
from proxy.endpoints import Endpoint
from proxy.errors import RevokedError
from proxy.facts import RequestFacts
from proxy.handler import GatewayRequest
from proxy.lists import RelayedError
from proxy.selection import is_eligible
from proxy.spool import Body
from sessions_limit import reception
from usage.tally import Tally

# A name that is longer is no model's: the log and the ledger need no more of it.
_MODEL_LENGTH = 200


async def forward(request: GatewayRequest) -> HttpResponseBase:
    """Serve a request of the API with an account of the pool."""
    endpoint = _endpoint(request)
    key = await _admit(request)
    if endpoint.needs_session:
        await _enter(request, key)
    timeout_seconds = conf.request_timeout.total_seconds()
    request.record.endpoint = endpoint.name
    if endpoint.reports_usage:
        request.record.tally = Tally()
    if endpoint.kind is not None:
        body = await request.read_body(
            endpoint.body_limit_bytes, timeout_seconds, may_spool=True
        )
        request.begin()
        return await _forward_owned(request, endpoint, key, body)
    held = await request.read_body(endpoint.body_limit_bytes, timeout_seconds)
    known = _facts(request, endpoint, held)
    request.begin()
    pin = await objects.pin_of(request, known.object_ids, known.thread)
    attempts = Attempts(request, Ask(endpoint, key, known, held, pin))
    served = await attempts.run()
    content = _content(request, served, attempts)
    if known.may_show and attempts.served_by is not None:
        content = await objects.watched(
            *(content, served, request.gateway.owners, attempts.served_by.id),
            is_thread=known.is_threaded,
        )
    return _answer(request, served, content)


async def _forward_owned(
    request: GatewayRequest, endpoint: Endpoint, key: KnownKey, body: Body
) -> HttpResponseBase:
    """Serve a request about what belongs to one account, or to each its own."""
    if not endpoint.is_collection:
        served = await objects.by_id(request, endpoint, key, body)
    elif request.method == "POST":
        served = await objects.make(request, endpoint, key, body)
    else:
        base_url = addresses.base_url(request)
        try:
            page = await objects.listed(request, endpoint, key, base_url)
        except RelayedError as relayed:
            served = relayed.served
        else:
            return HttpResponse(page, content_type="application/json")
    if endpoint.kind is ObjectKind.BATCH and served.rest is None:
        served = _with_our_address(request, served)
    content = relay.body(served.start, served.rest, request.record)
    return _answer(request, served, content)


def _with_our_address(request: GatewayRequest, served: Served) -> Served:
    batch = sightings.read_object(served.start)
    if batch is None:
        return served
    base_url = addresses.base_url(request)
    start = results_url.rewritten(served.start, batch.id, base_url)
    return replace(served, start=start)


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
    request.record.key_id, request.record.key_name = key.id, key.name
    for name, _ in request.raw_headers:
        if name in headers.ORGANIZATION_HEADERS:
            raise errors.names_an_organization(name.decode())
    return key


async def _enter(request: GatewayRequest, key: KnownKey) -> None:
    """Let the request into its session; SessionError if there is no place for it."""
    peer = request.scope.get("client")
    client = reception.client_of(
        peer[0] if peer else None,
        request.raw_headers,
        key_id=key.id,
        key_name=key.name,
    )
    admission = await request.gateway.limiter.admit(
        client,
        reception.scope_of(key.id, key.session_limit),
        partial(request.open_request.cut, RevokedError),
    )
    request.resources.callback(admission.release)
    request.admission = admission
    if admission.session_id is not None:
        request.record.session = admission.session_id.digest


def _facts(request: GatewayRequest, endpoint: Endpoint, body: bytes) -> RequestFacts:
    if not endpoint.is_conversation:
        return RequestFacts()
    known = facts.read(
        body,
        session_id=headers.first(request.raw_headers, b"x-claude-code-session-id"),
        by_prefix=conf.routing_strategy == "affinity",
    )
    request.record.model = known.model and known.model[:_MODEL_LENGTH]
    request.record.is_stream = known.is_stream
    return known


def _content(
    request: GatewayRequest, served: Served, attempts: Attempts
) -> AsyncIterator[bytes]:
    record = request.record
    if served.frames is not None and served.rest is not None:
        return relay.events(
            *(served.start, served.rest, served.frames, record, request.open_request),
            note_error=attempts.note_late_error,
        )
    if record.tally and served.rest is None and served.reply.status < 300:
        record.tally.note_body(served.start)
    return relay.body(served.start, served.rest, record)


def _answer(
    request: GatewayRequest, served: Served, content: AsyncIterator[bytes]
) -> StreamingHttpResponse:
    reply = served.reply
    response = StreamingHttpResponse(content, status=reply.status)
    del response.headers["content-type"]
    for name, value in headers.for_caller(reply.headers):
        if name == b"content-length":
            if reply.is_event_stream:
                continue  # an error event may have to be put behind it
            if served.rest is None:
                value = b"%d" % len(served.start)
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
