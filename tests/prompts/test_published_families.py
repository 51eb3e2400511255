"""Every family by its published template: known, laid out as trained, its calls read back."""

import functools

import pytest
from support import family_matrix, model_families, published_templates
from support.family_conversations import CONVERSATIONS, ORDINARY
from support.family_matrix import Row
from support.model_families import FAMILIES, Family

from falsework.prompts.detection import detect_renderer
from falsework.prompts.errors import ChatTemplateError, UnusableModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LEAST_EQUAL = 20
"""Of 22 conversations; those that a family's own template refuses don't count against it."""

# Templates that this project can't use, and why.
UNUSABLE: dict[str, str] = {}

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@functools.cache
def measured(family: Family) -> Row:
    try:
        return family_matrix.row(family)
    except published_templates.Unreachable as error:
        pytest.skip(str(error))


@each_family
def test_a_family_is_known_by_its_published_template(family: Family) -> None:
    assert measured(family).dialect == family.dialect


@each_family
def test_ordinary_conversations_are_accepted(family: Family) -> None:
    assert not set(measured(family).refused) & set(ORDINARY)


@each_family
def test_prompts_are_the_familys_own_token_for_token(family: Family) -> None:
    row = measured(family)

    assert len(row.different) + len(row.refused) <= len(CONVERSATIONS) - LEAST_EQUAL


@each_family
def test_calls_of_the_familys_own_template_are_admitted_and_read_back(family: Family) -> None:
    trips = measured(family).trips

    assert {name: trip for name, trip in trips.items() if trip is False} == {}


def test_every_published_template_accepts_ordinary_conversations() -> None:
    try:
        templates = published_templates.templates()
        base = model_families.tokenizer(FAMILIES[0])
    except published_templates.Unreachable as error:
        pytest.skip(str(error))
    refusing: dict[str, str] = {}
    for name, template in templates.items():
        base.chat_template = template
        try:
            renderer = detect_renderer(base)
            for conversation in ORDINARY:
                messages, tools = (
                    CONVERSATIONS[conversation].messages, CONVERSATIONS[conversation].tools
                )  # fmt: skip
                renderer.render(messages, tools)
        except (ChatTemplateError, UnusableModel) as error:
            refusing[name] = str(error)[:200]

    assert refusing.keys() == UNUSABLE.keys(), refusing
