"""Which account a conversation belongs to, as far as this worker knows.

A bounded memory, least recently used out first. Keys are scoped by client key, so two
callers never meet in one, whatever they send.
"""

from collections import OrderedDict

Conversation = tuple[int, bytes]  # client key id, digest

# About 150 bytes each: 8 MB when full.
_CAPACITY = 50_000


class Affinity:
    """Conversation → account id."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._accounts: OrderedDict[Conversation, int] = OrderedDict()

    def find(self, conversation: Conversation) -> int | None:
        """Return the id of the account the conversation belongs to, if known."""
        account_id = self._accounts.get(conversation)
        if account_id is not None:
            self._accounts.move_to_end(conversation)
        return account_id

    def bind(self, conversation: Conversation, account_id: int) -> None:
        """Remember who served the conversation; call it once an answer was served."""
        self._accounts[conversation] = account_id
        self._accounts.move_to_end(conversation)
        if len(self._accounts) > self._capacity:
            self._accounts.popitem(last=False)
