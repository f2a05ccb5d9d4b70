"""The skills endpoint."""

import io
import zipfile
from typing import Final
from urllib.parse import parse_qs

from claudeproxy.sandbox import calls, paging
from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.objects.forms import Form
from claudeproxy.sandbox.objects.store import LIMIT, Skill, SkillFile, Version, new_id

MANUAL: Final = "SKILL.md"
NAME_LIMIT: Final = 255
LATEST: Final = "latest"


def create(call: Call, account: Account) -> Reply:
    """Make a skill with its first version."""
    form = Form(call)
    skills = call.sandbox.objects.skills
    skills.require_room(account.name)
    label = form.text("display_name")
    if label is not None and not 1 <= len(label) <= NAME_LIMIT:
        raise ApiError(400, f"display_name: must have 1 to {NAME_LIMIT} characters")
    version = _read_version(call, form)
    skill = Skill(
        id=new_id("skill"),
        created_at=version.created_at,
        updated_at=version.created_at,
        display_name=label or version.name,
        versions={version.id: version},
    )
    skills.add(account.name, skill)
    return calls.answer_json(call, _shown(skill))


def _read_version(call: Call, form: Form, skill: Skill | None = None) -> Version:
    parts = form.files("files")
    paths = [(part.filename or "").replace("\\", "/") for part in parts]
    top = paths[0].partition("/")[0]
    if any(not path.startswith(f"{top}/") or ".." in path for path in paths):
        raise ApiError(400, "files: must all be in the same top-level directory")
    if f"{top}/{MANUAL}" not in paths:
        raise ApiError(400, f"files: {MANUAL} is missing in the top-level directory")
    manual = form.content(parts[paths.index(f"{top}/{MANUAL}")])
    known = front_matter(manual.decode("utf-8", "replace"))
    name = known.get("name", top)
    if skill is not None and name != skill.latest.name:
        raise ApiError(400, f"files: the name must be {skill.latest.name} again")
    extents = form.keep(parts)
    return Version(
        id=new_id("skillver"),
        created_at=call.sandbox.clock.now(),
        number=call.sandbox.objects.next_number(),
        name=name,
        description=known.get("description", ""),
        files=tuple(
            SkillFile(path.removeprefix(f"{top}/"), extent)
            for path, extent in zip(paths, extents, strict=True)
        ),
    )


def front_matter(text: str) -> dict[str, str]:
    """Read the plain fields between the two lines of dashes at the top."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, str] = {}
    for line in lines[1:]:
        if line.strip() == "---":
            return found
        name, colon, value = line.partition(":")
        if colon and value.strip():
            found[name.strip()] = value.strip().strip("\"'")
    return {}


def listing(call: Call, account: Account) -> Reply:
    """List skills, the newest first; all are of the account's own making."""
    query = parse_qs(call.query, keep_blank_values=True)
    numbered = call.sandbox.objects.skills.numbered(account.name)
    if query.get("source", ["custom"])[-1] != "custom":
        numbered = {}
    shown = {number: _shown(skill) for number, skill in numbered.items()}
    page = paging.by_token(shown, query, f"skills:{account.name}")
    return calls.answer_json(call, page)


def retrieve(call: Call, account: Account, name: str) -> Reply:
    """Describe a skill."""
    return calls.answer_json(call, _shown(_get(call, account, name)))


def delete(call: Call, account: Account, name: str) -> Reply:
    """Delete a skill with all its versions."""
    skill = _get(call, account, name)
    call.sandbox.objects.skills.remove(account.name, name)
    for version in skill.versions.values():
        _delete_files(version)
    return calls.answer_json(call, {"id": name, "type": "skill_deleted"})


def create_version(call: Call, account: Account, name: str) -> Reply:
    """Add a version."""
    skill = _get(call, account, name)
    if len(skill.versions) >= LIMIT:
        text = f"The sandbox keeps {LIMIT} versions of a skill; delete one"
        raise ApiError(400, text, code="storage_quota_exceeded")
    version = _read_version(call, Form(call), skill)
    skill.versions[version.id] = version
    skill.updated_at = version.created_at
    return calls.answer_json(call, _shown_version(skill, version))


def list_versions(call: Call, account: Account, name: str) -> Reply:
    """List the versions of a skill, the newest first."""
    skill = _get(call, account, name)
    shown = {v.number: _shown_version(skill, v) for v in skill.versions.values()}
    query = parse_qs(call.query, keep_blank_values=True)
    return calls.answer_json(call, paging.by_token(shown, query, skill.id))


def retrieve_version(call: Call, account: Account, name: str, version: str) -> Reply:
    """Describe a version."""
    skill = _get(call, account, name)
    return calls.answer_json(call, _shown_version(skill, find_version(skill, version)))


def delete_version(call: Call, account: Account, name: str, version: str) -> Reply:
    """Delete a version, which must not be the last one."""
    skill = _get(call, account, name)
    if version == LATEST:
        raise ApiError(400, "version: must be an id")
    found = find_version(skill, version)
    if len(skill.versions) == 1:
        raise ApiError(400, "A skill holds at least one version; delete the skill")
    del skill.versions[version]
    _delete_files(found)
    return calls.answer_json(call, {"id": version, "type": "skill_version_deleted"})


def version_content(call: Call, account: Account, name: str, version: str) -> Reply:
    """Send the files of a version as a zip archive."""
    found = find_version(_get(call, account, name), version)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in found.files:
            # Without a date of its own, so that the same files give the same bytes.
            item = zipfile.ZipInfo(f"{found.name}/{file.path}")
            zipped.writestr(item, file.content.read())
    kind = (b"content-type", b"application/zip")
    return calls.answer(call, call.step.status or 200, archive.getvalue(), kind)


def find_version(skill: Skill, version: str) -> Version:
    """Find a version by its id, or the latest.

    Errors: ApiError 404.
    """
    if version == LATEST:
        return skill.latest
    found = skill.versions.get(version)
    if found is None:
        raise ApiError(404, f"Skill version not found: {version}")
    return found


def _get(call: Call, account: Account, name: str) -> Skill:
    return call.sandbox.objects.skills.get(account.name, name)


def _delete_files(version: Version) -> None:
    version.files[0].content.path.unlink(missing_ok=True)


def _shown(skill: Skill) -> dict[str, object]:
    return {
        "id": skill.id,
        "type": "skill",
        "display_name": skill.display_name,
        "latest_version_id": skill.latest.id,
        "source": {"type": "custom"},
        "created_at": skill.created_at,
        "updated_at": skill.updated_at,
    }


def _shown_version(skill: Skill, version: Version) -> dict[str, object]:
    return {
        "id": version.id,
        "type": "skill_version",
        "skill_id": skill.id,
        "name": version.name,
        "description": version.description,
        "created_at": version.created_at,
    }
