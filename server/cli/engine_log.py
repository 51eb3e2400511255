"""What vLLM says goes to the log at --log-level debug; otherwise only its errors do.

A start has some thirty warnings of its libraries, none of which tells an operator what to do. What
does is said by `model_check.advice`.
"""

import logging
import os

LEVEL_VARIABLE = "VLLM_LOGGING_LEVEL"


def choose_engine_level(log_level: str) -> None:
    """Choose vLLM's level for this process and the engine's, unless the variable has one."""
    os.environ.setdefault(LEVEL_VARIABLE, "DEBUG" if log_level == "debug" else "ERROR")
    apply_engine_level()


def apply_engine_level() -> None:
    """Let vLLM's loggers have the chosen level while vLLM is imported.

    It warns there before it has set up its log.
    """
    if level := os.environ.get(LEVEL_VARIABLE):
        logging.getLogger("vllm").setLevel(level.upper())
