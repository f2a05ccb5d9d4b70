"""Answers a conversation together with the objects that it names."""

from dataclasses import dataclass, replace

from claudeproxy.sandbox import answers, catalogue, requests
from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.answers import Answer, Wording
from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.objects import containers, files, threads
from claudeproxy.sandbox.objects.store import Thread, new_id
from claudeproxy.sandbox.requests import Conversation, Head


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that can be answered."""

    conversation: Conversation
    model: str
    thread: Thread | None = None


def check(
    call: Call, account: Account, head: Head, *, counting: bool = False
) -> Question:
    """Check that a request is valid and that all it names is there; changes nothing.

    Errors: ApiError 400 or 404.
    """
    head, thread = threads.begin(call, account, head)
    conversation = requests.read_conversation(head, counting=counting)
    model = catalogue.find(account.models, conversation.model)
    for name in conversation.files:
        files.require(call, account, name)
    containers.require(call, account, conversation)
    return Question(conversation, model.id, thread)


def answer(
    call: Call, account: Account, question: Question, wording: Wording
) -> Answer:
    """Make up the answer, with the container it ran in."""
    composed = answers.compose(
        question.conversation,
        account=account.name,
        model=question.model,
        wording=wording,
    )
    container = None
    if not call.step.prevents_work:
        container = containers.use(call, account, question.conversation)
    if container is not None:
        composed = replace(composed, container=containers.show(container))
    if question.thread is not None:
        # The same words may be asked in two threads, which must not get mixed up.
        composed = replace(composed, id=new_id("msg"))
    return composed
