from falsework.prompts.call_profile import CallProfile, call_profile
from falsework.prompts.errors import UnusableModel

__all__ = [
    "CallProfile",
    "UnusableModel",
    "call_profile",
]
