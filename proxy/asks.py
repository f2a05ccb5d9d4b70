"""What is asked of the accounts for one request, and what comes of asking."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from claudeproxy.conf import conf
from clients.directory import KnownKey
from proxy.affinity import Conversation
from proxy.endpoints import Endpoint
from proxy.errors import UpstreamError
from proxy.facts import RequestFacts
from proxy.outcomes import Judgement
from proxy.spool import Body
from proxy.sse import FrameReader
from proxy.upstream import UpstreamReply


@dataclass(frozen=True, slots=True)
class Pin:
    """The one account that can serve, and the object that only it has."""

    account_id: int
    object_id: str
    is_thread: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted; the target is the caller's unless the gateway asks by itself."""

    endpoint: Endpoint
    key: KnownKey
    facts: RequestFacts
    body: Body
    pin: Pin | None = None
    method: str | None = None
    target: bytes | None = None
    # Would a second execution make a second object?
    is_making: bool = False

    @property
    def conversation(self) -> Conversation | None:
        if self.facts.conversation is None or conf.routing_strategy != "affinity":
            return None
        return (self.key.id, self.facts.conversation)


@dataclass(frozen=True, slots=True)
class Served:
    """An answer for the caller: what was read of its body, and what is to come."""

    reply: UpstreamReply
    start: bytes = b""
    rest: AsyncGenerator[bytes] | None = None
    frames: FrameReader | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that brought nothing for the caller, unless nothing better comes."""

    judgement: Judgement
    relayed: Served | None = None
    error: UpstreamError | None = None
    # Was it sent, and not refused, as far as anybody knows?
    is_perhaps_executed: bool = False

    @property
    def may_have_used(self) -> bool:
        """Has it used what no answer tells of, as far as anybody knows?"""
        has_begun = self.relayed is not None and b"message_start" in self.relayed.start
        return has_begun or self.is_perhaps_executed
