"""Requests as the tests of the ledger tell of them."""

from datetime import UTC, datetime
from typing import Any

from usage.entries import Begun, Finished
from usage.tokens import Tokens, Usage

AT = datetime(2026, 11, 25, 12, 30, 15, 250_000, tzinfo=UTC)


def begun(request_id: str = "req_1", **fields: Any) -> Begun:
    return Begun(
        **{
            "request_id": request_id,
            "started_at": AT,
            "endpoint": "/v1/messages",
            "key_id": 1,
            "key_name": "alice",
            "model_asked": "claude-opus-5-5",
            **fields,
        }
    )


def finished(request_id: str = "req_1", **fields: Any) -> Finished:
    return Finished(
        **{
            "request_id": request_id,
            "started_at": AT,
            "endpoint": "/v1/messages",
            "key_id": 1,
            "key_name": "alice",
            "model_asked": "claude-opus-5-5",
            "end_reason": "complete",
            "status": 200,
            "duration_ms": 1234.5,
            "first_byte_ms": 300.2,
            "account_id": 7,
            "account_name": "ada",
            "account_kind": "api_key",
            "model_answered": "claude-opus-5-5",
            "usage": Usage(Tokens(input=20, output=10)),
            "answer_bytes": 900,
            "request_bytes": 4000,
            **fields,
        }
    )
