"""Background jobs that belong to no app.

A job may run twice, at the same time or after it has succeeded, and it may be killed at
any point: it takes literals only (ids, never objects or secrets), claims in the
database what it works on, and gives every call over the network a time-out of its own,
so that it ends well before the cluster would stop it.
"""

from claudeproxy import crypto
from claudeproxy.conf import conf


def heartbeat() -> str:
    """Say which encryption keys this process knows, by their fingerprints.

    That a job ran at all is what the supervisor wants to see; that the gateway was
    restarted with the newest key is what `rotate_encryption_key` wants to know.
    """
    return ",".join(crypto.fingerprints(conf.encryption_keys))
