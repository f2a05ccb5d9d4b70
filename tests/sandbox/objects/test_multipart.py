"""Forms with files, as clients write them."""

import pytest

from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects import multipart

TYPE = "multipart/form-data; boundary=XX"
HEAD = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"--XX",
        b"\r\n--X",
        b"\r\n--XXY\r\n",
        b"\r\n--XX-\r\n",
        b"\n--XX--\n",
        bytes(range(256)),
    ],
)
def test_any_content_is_found(content: bytes) -> None:
    body = HEAD + content + b"\r\n--XX--\r\n"
    (part,) = multipart.parse(body, TYPE)
    assert body[part.start : part.end] == content
    assert part.size == len(content)


def test_every_part_is_found_in_order() -> None:
    field = b'--XX\r\ncontent-disposition: form-data; name="seconds"\r\n\r\n60\r\n'
    body = b"preamble\r\n" + field + HEAD + b"one\r\n" + HEAD + b"two\r\n--XX--epilogue"
    parts = multipart.parse(body, TYPE)
    assert [part.name for part in parts] == ["seconds", "file", "file"]
    assert [part.filename for part in parts] == [None, "a.bin", "a.bin"]
    assert [body[part.start : part.end] for part in parts] == [b"60", b"one", b"two"]


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="XX"',
        "Multipart/Form-Data; charset=utf-8; Boundary=XX",
        "multipart/form-data;boundary=XX",
    ],
)
def test_the_boundary_is_read_however_it_is_written(content_type: str) -> None:
    assert len(multipart.parse(HEAD + b"\r\n--XX--", content_type)) == 1


def test_a_part_tells_its_type_and_its_name_beyond_ascii() -> None:
    head = 'form-data; name="file"; filename="naïve; 思考.txt"'
    fields = f"--XX\r\nContent-Disposition: {head}\r\nContent-Type: text/plain; a=b"
    (part,) = multipart.parse(fields.encode() + b"\r\n\r\n\r\n--XX--", TYPE)
    assert part.filename == "naïve; 思考.txt"
    assert part.content_type == "text/plain"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (HEAD + b"\r\n--XX--", "application/json"),
        (HEAD + b"\r\n--XX--", "multipart/form-data"),
        (HEAD + b"\r\n--XX--", ""),
        (b"", TYPE),
        (b"--XX", TYPE),
        (HEAD, TYPE),
        (HEAD + b"cut", TYPE),
        (HEAD + b"\r\n--XX", TYPE),
        (b"--XX\r\nContent-Type: text/plain\r\n\r\n\r\n--XX--", TYPE),
        (b"--XX\r\n" + b"x: y\r\n" * 5_000 + b"\r\n\r\n--XX--", TYPE),
    ],
)
def test_what_is_no_complete_form_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(ApiError) as caught:
        multipart.parse(body, content_type)
    assert caught.value.status == 400
