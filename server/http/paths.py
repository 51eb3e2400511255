"""Paths that clients get wrong, and the right one."""

import re

ROUTES = ("/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/responses")
OTHER_PROTOCOLS = {
    "/api": "this server speaks OpenAI's and Anthropic's protocols, not Ollama's",
    "/v1/completions": "this server completes chats: POST /v1/chat/completions",
    "/v1/embeddings": "this server has no embeddings",
}


def path_hint(path: str) -> str:
    """Return the sentence that tells the path which was meant, "" where none is like it."""
    meant = _meant(path)
    if meant != path and meant.startswith(ROUTES):
        return f". The path is {meant}: a client's base URL ends in /v1, once."
    for beginning, sentence in OTHER_PROTOCOLS.items():
        if path == beginning or path.startswith(f"{beginning}/"):
            return f": {sentence}."
    return ""


def _meant(path: str) -> str:
    """Return a path as it is once `/v1` stands at its beginning, and nowhere else."""
    steps = [step for step in re.split("/+", path) if step]
    known = {"chat", "messages", "models", "responses"}
    start = next((i for i, step in enumerate(steps) if step in known), len(steps))
    return "/".join(["", "v1", *steps[start:]])
