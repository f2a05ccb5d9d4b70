"""The way of a request: admit, choose, send, relay."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

import claudeproxy
from accounts.pool import PooledAccount
from claudeproxy.conf import conf
from claudeproxy.errors import ClaudeProxyError
from clients.directory import KnownKey
from proxy import admission, endpoints, errors, facts, headers, relay
from proxy.endpoints import Endpoint
from proxy.facts import RequestFacts
from proxy.handler import GatewayRequest
from proxy.selection import Decision, is_eligible, lacks_everywhere
from proxy.upstream import UpstreamReply, UpstreamRequest


async def forward(request: GatewayRequest) -> HttpResponseBase:
    """Serve a request of the API with an account of the pool."""
    endpoint = _endpoint(request)
    key = await _admit(request)
    body = await request.read_body(
        endpoint.body_limit_bytes, conf.request_timeout.total_seconds()
    )
    known = _facts(request, endpoint, body)
    account = await _choose(request, endpoint, key, known)
    reply = await _send(request, account, body)
    if known.conversation is not None and reply.status < 400:
        request.gateway.affinity.bind((key.id, known.conversation), account.id)
    return _answer(request, reply)


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


async def _choose(
    request: GatewayRequest, endpoint: Endpoint, key: KnownKey, known: RequestFacts
) -> PooledAccount:
    """Choose an account whose token is good for this request."""
    gateway = request.gateway
    conversation = None
    if known.conversation is not None and conf.routing_strategy == "affinity":
        conversation = (key.id, known.conversation)
    tried: set[int] = set()
    while True:
        now = datetime.now(UTC)
        if endpoint.is_conversation:
            decision = gateway.choose(
                conversation, now, model=known.model, already_tried=tried
            )
        else:
            decision = gateway.choose_for_list(now, already_tried=tried)
        if decision.account is None:
            if await _learns_of_model(request, known):
                continue
            raise _nobody(request, known, decision)
        account = await gateway.refresher.fresh(decision.account, now)
        if account is not None:
            gateway.activity.note(account.id, now)
            request.record.account_name = account.name
            request.record.routing = decision.how
            return account
        tried.add(decision.account.id)


async def _learns_of_model(request: GatewayRequest, known: RequestFacts) -> bool:
    """Read the model lists again, for a model that nobody has; True if one has it now.

    Providers add models at any time, and the lists are read once a day.
    """
    snapshot = request.gateway.snapshot
    if known.model is None or not lacks_everywhere(
        snapshot.contents.accounts, known.model
    ):
        return False
    await request.gateway.catalogue.refresh()
    return not lacks_everywhere(snapshot.contents.accounts, known.model)


def _nobody(
    request: GatewayRequest, known: RequestFacts, decision: Decision
) -> ClaudeProxyError:
    accounts = request.gateway.snapshot.contents.accounts
    if known.model is not None and lacks_everywhere(accounts, known.model):
        offered = {model for account in accounts for model in account.model_ids}
        return errors.model_not_found(known.model, offered)
    return errors.NoAccountAvailableError(_why_nobody(decision))


def _why_nobody(decision: Decision) -> str:
    if not decision.excluded:
        return (
            "This gateway has no Claude account yet. Its operator adds one with "
            "manage.py add_account or in the admin."
        )
    counts = Counter(exclusion.reason for exclusion in decision.excluded)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return (
        f"None of this gateway's Claude accounts can serve now ({reasons}). "
        "Try again later, or ask its operator to activate one."
    )


async def _send(
    request: GatewayRequest, account: PooledAccount, body: bytes
) -> UpstreamReply:
    """Ask the upstream once; the reply is closed with the request.

    This is where trying again belongs, once there is a policy for it.
    """
    query: bytes = request.scope["query_string"]
    outgoing = UpstreamRequest(
        method=request.scope["method"],
        target=request.scope["raw_path"] + (b"?" + query if query else b""),
        headers=headers.for_upstream(
            request.raw_headers, account.kind, account.credential
        ),
        body=body,
    )
    try:
        async with asyncio.timeout(conf.request_timeout.total_seconds()):
            reply = await request.gateway.upstream.open(outgoing)
    except TimeoutError:
        raise errors.UpstreamTimeoutError(
            errors.Stage.PERHAPS_EXECUTED, "REQUEST_TIMEOUT passed"
        ) from None
    request.resources.push_async_callback(reply.aclose)
    return reply


def _answer(request: GatewayRequest, reply: UpstreamReply) -> StreamingHttpResponse:
    if reply.is_event_stream:
        content = relay.events(reply, request.record, request.open_request)
    else:
        content = relay.body(reply, request.record)
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
    status = ("unhealthy", "degraded", "healthy")[min(usable, 2)]
    request.record.is_quiet = True
    return JsonResponse({"status": status, "version": claudeproxy.__version__})


async def probe(request: GatewayRequest) -> HttpResponse:
    """Answer the `HEAD` that Claude Code sends to see whether somebody is there."""
    request.record.is_quiet = True
    return HttpResponse()
