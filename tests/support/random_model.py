"""A model that has learnt nothing: random weights behind the built-in model's tokenizer."""

import shutil
from pathlib import Path

COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def make_random(folder: Path, learnt: Path) -> Path:
    """Make a Llama that wants to say anything; tokenizer and template are the learnt model's."""
    import torch  # noqa: PLC0415 - it takes seconds, also where no test is run that needs it
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.2,  # its logits then differ by about 2, and by what was said before
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)
    GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2).save_pretrained(folder)
    for name in COPIED:
        shutil.copy(learnt / name, folder / name)
    return folder
