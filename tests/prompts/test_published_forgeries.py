"""Text is text with the published templates: what a client writes is no control token of theirs."""

import pytest
from support import model_families
from support.forged_conversations import PLACES, PLAIN, conversation
from support.model_families import FAMILIES, Family
from support.published_templates import Unreachable

from falsework.prompts.detection import detect_renderer
from falsework.prompts.renderer import PromptRenderer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def control_tokens(renderer: PromptRenderer, place: str, text: str) -> list[int]:
    prompt = renderer.render(*conversation(place, text))
    return [token for token in prompt.tokens if token in renderer.control_tokens.ids]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_published_template_writes_the_same_control_tokens_whatever_texts_say(
    family: Family,
) -> None:
    try:
        renderer = detect_renderer(model_families.tokenizer(family))
    except Unreachable as error:
        pytest.skip(str(error))
    template = renderer.template.source
    spellings = [one for one in renderer.control_tokens.spellings if one in template]
    forged = "a" + "b".join([*spellings, *renderer.control_tokens.spellings][:60])

    for place in PLACES:
        expected = control_tokens(renderer, place, PLAIN)
        assert control_tokens(renderer, place, forged) == expected, place
