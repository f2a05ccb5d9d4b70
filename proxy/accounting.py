"""What the ledger is told of a request: its record, in the ledger's words. Pure."""

from proxy.record import Attempt, End, RequestRecord
from usage import entries
from usage.entries import Begun, Finished

# Ends that let go of an answer which was perhaps on its way.
_LET_GO = frozenset({End.CLIENT_GONE, End.DRAINED, End.REVOKED})


def begun(record: RequestRecord) -> Begun:
    """Say that a request is on its way."""
    return Begun(
        request_id=record.request_id,
        started_at=record.started_at,
        endpoint=record.endpoint or record.shown_path,
        key_id=record.key_id,
        key_name=record.key_name,
        model_asked=record.model,
        is_stream=record.is_stream,
        request_bytes=record.request_bytes,
        session_digest=record.session,
    )


def finished(record: RequestRecord) -> Finished:
    """Say how a request ended, and what it used as far as that is known."""
    account, tally = record.account, record.tally
    used = tally.usage if tally else None
    return Finished(
        request_id=record.request_id,
        started_at=record.started_at,
        endpoint=record.endpoint or record.shown_path,
        key_id=record.key_id,
        key_name=record.key_name,
        model_asked=record.model,
        is_stream=record.is_stream,
        request_bytes=record.request_bytes,
        session_digest=record.session,
        end_reason=str(record.end),
        status=record.status,
        duration_ms=record.duration_ms,
        first_byte_ms=record.first_byte_ms,
        account_id=account.id if account else None,
        account_name=account.name if account else None,
        account_kind=str(account.kind) if account else None,
        organization_uuid=account.organization_uuid if account else None,
        routing=record.routing,
        attempts=tuple(_attempt(attempt) for attempt in record.attempts),
        answer_bytes=record.answer_bytes,
        model_answered=tally.model if tally else None,
        stop_reason=tally.stop_reason if tally else None,
        usage=used,
        is_incomplete=_is_incomplete(record),
    )


def _is_incomplete(record: RequestRecord) -> bool:
    """Has it used something that no answer has told of, as far as anybody knows?"""
    tally = record.tally
    if tally is None:
        return False
    if any(attempt.may_have_used for attempt in record.attempts):
        return True
    if tally.is_complete:
        return False
    is_let_go = record.account is not None and record.end in _LET_GO
    return is_let_go or tally.usage is not None


def _attempt(attempt: Attempt) -> entries.Attempt:
    return entries.Attempt(
        account=attempt.account_name,
        blame=attempt.blame,
        reason=attempt.reason,
        duration_ms=attempt.duration_ms,
        waited_ms=attempt.waited_ms,
    )
