"""The containers that messages create and name."""

from datetime import timedelta
from typing import Final

from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects import skills
from claudeproxy.sandbox.objects.store import Container, new_id
from claudeproxy.sandbox.requests import ContainerAsked, Conversation, SkillAsked

LIFETIME: Final = timedelta(days=30)
BUILT_IN_SKILLS: Final = ("docx", "pdf", "pptx", "xlsx")
BUILT_IN_VERSION: Final = "20251013"


def require(call: Call, account: Account, conversation: Conversation) -> None:
    """Check that the container and the skills that a conversation names are there.

    Errors: ApiError 404 with the id that is not.
    """
    asked = _read(conversation)
    if asked.id is not None:
        found = call.sandbox.objects.containers.get(account.name, asked.id)
        if found.expires_at <= call.sandbox.clock.now():
            raise ApiError(404, f"Container not found: {asked.id}")
    _load(call, account, asked)


def use(call: Call, account: Account, conversation: Conversation) -> Container | None:
    """Find or make the container of a checked conversation, None if it needs none."""
    asked = _read(conversation)
    kept = call.sandbox.objects.containers
    loaded = _load(call, account, asked)
    if asked.id is not None:
        container = kept.get(account.name, asked.id)
        container.skills = loaded or container.skills
        return container
    if conversation.container is None and not conversation.runs_code:
        return None
    now = call.sandbox.clock.now()
    container = Container(new_id("container"), now, now + LIFETIME, loaded)
    kept.add_in_place_of_oldest(account.name, container)
    return container


def show(container: Container) -> dict[str, object]:
    """Write a container as it stands in an answer."""
    return {
        "id": container.id,
        "expires_at": container.expires_at,
        "skills": container.skills,
    }


def _read(conversation: Conversation) -> ContainerAsked:
    asked = conversation.container
    if isinstance(asked, str):
        return ContainerAsked(id=asked)
    return asked or ContainerAsked()


def _load(
    call: Call, account: Account, asked: ContainerAsked
) -> list[dict[str, str]] | None:
    if asked.skills is None:
        return None
    return [
        {
            "type": skill.type,
            "skill_id": skill.skill_id,
            "version": _resolve(call, account, skill),
        }
        for skill in asked.skills
    ]


def _resolve(call: Call, account: Account, asked: SkillAsked) -> str:
    if asked.type == "custom":
        skill = call.sandbox.objects.skills.get(account.name, asked.skill_id)
        return skills.find_version(skill, asked.version).id
    if asked.skill_id not in BUILT_IN_SKILLS:
        raise ApiError(404, f"Skill not found: {asked.skill_id}")
    return BUILT_IN_VERSION if asked.version == skills.LATEST else asked.version
