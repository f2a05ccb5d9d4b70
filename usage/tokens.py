"""What an answer says it used: plain values, which the journal can write down."""

import msgspec


class Tokens(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Token counts by what they cost; together `prompt` and `output` are all."""

    input: int = 0  # neither written to a cache nor read from one
    write_5m: int = 0
    write_1h: int = 0
    read: int = 0
    output: int = 0

    @property
    def prompt(self) -> int:
        """The size of the prompt: the input of every class."""
        return self.input + self.write_5m + self.write_1h + self.read

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.input + other.input,
            self.write_5m + other.write_5m,
            self.write_1h + other.write_1h,
            self.read + other.read,
            self.output + other.output,
        )


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run of a model within a request."""

    tokens: Tokens
    kind: str = "message"
    model: str | None = None  # None: the model of the answer


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The usage of one answer.

    `stated` is what stands at its top. Where the answer lists the runs it is made of,
    `parts` has them, and they are what is billed; the top covers only some of them.
    """

    stated: Tokens
    parts: tuple[Part, ...] = ()
    web_searches: int = 0
    web_fetches: int = 0
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    # Something in it was no count, or no word: what is here may not be all.
    is_unreadable: bool = False

    @property
    def runs(self) -> tuple[Part, ...]:
        """What is billed."""
        return self.parts or (Part(self.stated),)

    @property
    def tokens(self) -> Tokens:
        """The sum of what is billed."""
        if not self.parts:
            return self.stated
        return sum((part.tokens for part in self.parts), Tokens())
