from falsework.prompts.errors import UnusableModel

__all__ = [
    "UnusableModel",
]
