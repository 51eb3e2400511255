"""What vLLM refuses before its process is started, said in one sentence."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.real_tokenizers import hugging_face

from falsework.prompts.dialects import DIALECTS
from falsework.server.engines.base import EngineStartError
from falsework.server.settings import Settings

pytestmark = [
    pytest.mark.slow,  # vLLM takes ten seconds to import
    pytest.mark.timeout(200),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_model_len": 100_000}, "max_model_len"),
        ({"model": "/no/such/folder"}, "/no/such/folder"),
        ({"tensor_parallel_size": 2}, "tensor parallel size|attention heads"),
    ],
)
def test_what_the_engine_refuses_is_told_with_its_reason(
    smollm2: Path, settings: dict[str, Any], reason: str
) -> None:
    from falsework.server.engines.vllm.engine import start_engine  # noqa: PLC0415 - it warns

    chosen = Settings(**{"model": str(smollm2), **settings})
    start = start_engine(chosen, chosen.model, hugging_face(smollm2), DIALECTS["hermes"])

    with pytest.raises(EngineStartError, match=reason) as refused:
        asyncio.run(start)

    assert len(str(refused.value).splitlines()) == 1
