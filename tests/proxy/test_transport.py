import aiohttp
import httpx
import pytest

from proxy import transport
from proxy.transport import AiohttpTransport
from tests.proxy.fakes import answering


def descendants(cls):
    yield cls
    for sub in cls.__subclasses__():
        yield from descendants(sub)


def raised(cls):
    """An instance as the tests need it, whatever its constructor wants."""

    members = {"__init__": lambda self: None, "__str__": lambda self: "said"}
    return type(cls.__name__, (cls,), members)()


FOREIGN = sorted(
    {
        *descendants(aiohttp.ClientError),
        *descendants(aiohttp.http.HttpProcessingError),
        *(TimeoutError, ConnectionResetError, BrokenPipeError, OSError),
    },
    key=lambda cls: cls.__qualname__,
)


@pytest.mark.parametrize("cls", FOREIGN)
def test_every_exception_of_aiohttp_has_a_translation(cls):
    translated = transport.translate(raised(cls))

    assert isinstance(translated, httpx.TransportError)
    assert cls.__name__ in str(translated)


@pytest.mark.parametrize("cls", FOREIGN)
def test_only_errors_of_the_operating_system_are_quoted(cls):
    translated = transport.translate(raised(cls))

    assert ("said" in str(translated)) is issubclass(cls, OSError)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (aiohttp.ClientConnectorError, httpx.ConnectError),
        (aiohttp.ClientConnectorDNSError, httpx.ConnectError),
        (aiohttp.ClientConnectorSSLError, httpx.ConnectError),
        (aiohttp.ClientConnectorCertificateError, httpx.ConnectError),
        (aiohttp.ServerFingerprintMismatch, httpx.ConnectError),
        (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
        (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
        (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
        (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
        (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
        (aiohttp.http_exceptions.BadStatusLine, httpx.RemoteProtocolError),
        (aiohttp.http_exceptions.TransferEncodingError, httpx.RemoteProtocolError),
        (aiohttp.ClientConnectionResetError, httpx.WriteError),
        (aiohttp.ClientOSError, httpx.ReadError),
        (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
        (TimeoutError, httpx.WriteTimeout),
        (ConnectionResetError, httpx.ReadError),
    ],
)
def test_a_translation_says_how_far_the_request_had_come(cls, expected):
    assert type(transport.translate(raised(cls))) is expected


def test_a_fault_of_our_own_is_not_taken_for_one_of_the_network():
    with pytest.raises(TypeError, match="no translation for KeyError"):
        transport.translate(KeyError("x"))


async def test_httpx_may_use_the_transport_without_a_literal_target():
    async with (
        answering() as server,
        httpx.AsyncClient(transport=AiohttpTransport(), trust_env=False) as client,
    ):
        reply = await client.get(f"{server.url}/a b?c=d e")

    assert reply.text == "ok"
    assert server.requests[0].line == b"GET /a%20b?c=d%20e HTTP/1.1"
