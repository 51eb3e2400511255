"""What keeps a model from being served, and a conversation from being laid out."""


class UnusableModel(ValueError):
    """A model that can't be served; one sentence says why."""


class ChatTemplateError(ValueError):
    """A conversation that the model's chat template refuses."""
