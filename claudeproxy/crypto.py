"""Secrets at rest: encrypted in the database, wrapped in memory.

A stored secret is a Fernet token (https://github.com/fernet/spec). The first key of
`ENCRYPTION_KEYS` encrypts, every key decrypts, so keys can be rotated. What a field
yields is a `Secret`, which shows itself to nobody until `reveal()` is called.
"""

import hashlib
import secrets as stdlib_secrets
from functools import cached_property
from typing import Any, NoReturn

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.core.exceptions import ValidationError
from django.db import models

from claudeproxy.conf import conf
from claudeproxy.errors import ClaudeProxyError


class WrongEncryptionKeyError(ClaudeProxyError):
    """A stored secret cannot be read with the keys in ENCRYPTION_KEYS."""


def fingerprints(keys: list[str]) -> list[str]:
    """Name keys by what can be shown and stored: nobody finds a key by it."""
    return [hashlib.sha256(key.encode()).hexdigest()[:12] for key in keys]


class Secret:
    """A text that prints as `[secret]` and can be neither pickled nor serialised."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text, for the one call that needs it."""
        return self._value

    def __str__(self) -> str:
        return "[secret]"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and stdlib_secrets.compare_digest(
            self.reveal().encode(), other.reveal().encode()
        )

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied; pass the row's id")


class SealedSecret(Secret):
    """A secret as it came from the database, decrypted when it is first revealed.

    So a list of accounts costs no decryption, and one row that cannot be read breaks
    only what needs that row.
    """

    __slots__ = ("_cipher", "_is_open", "sealed")

    def __init__(self, sealed: str, cipher: "Cipher") -> None:
        super().__init__("")
        self.sealed = sealed
        self._cipher = cipher
        self._is_open = False

    def reveal(self) -> str:
        if not self._is_open:
            self._value = self._cipher.decrypt(self.sealed)
            self._is_open = True
        return self._value


class Cipher:
    """Encrypts with the first key and decrypts with any of them."""

    def __init__(self, keys: list[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def decrypt(self, sealed: str) -> str:
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise WrongEncryptionKeyError(
                "A stored secret cannot be read with the keys in ENCRYPTION_KEYS. "
                "Put back the key it was written with; nothing was changed."
            ) from None


class EncryptedField(models.TextField[Secret | None, Secret | None]):
    """A text column whose value is a `Secret` in Python and a Fernet token at rest."""

    @cached_property
    def cipher(self) -> Cipher:
        return Cipher(conf.encryption_keys)

    def from_db_value(self, value: str | None, *_: object) -> Secret | None:
        return None if value is None else SealedSecret(value, self.cipher)

    def to_python(self, value: Any) -> Secret | None:
        if value == str(Secret("")):
            # From an export, which says only that there was a secret.
            raise ValidationError(f"{self.name}: an export holds no secrets.")
        return Secret(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, Secret):
            raise TypeError(f"{self.name} takes a Secret, not {type(value).__name__}")
        if isinstance(value, SealedSecret):
            return value.sealed  # unchanged; also when the key to read it is missing
        return self.cipher.encrypt(value.reveal())

    def value_to_string(self, obj: models.Model) -> str:
        """What `dumpdata` and exports get: whether it is set, never what it is."""
        return str(self.value_from_object(obj) or "")

    def get_lookup(self, lookup_name: str) -> Any:
        # Ciphertexts differ every time, so only "is it set?" can be asked.
        if lookup_name == "isnull":
            return super().get_lookup(lookup_name)
        raise TypeError(f"{self.name} is encrypted and cannot be searched")
