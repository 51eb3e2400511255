"""The layers of the house: which folder may import from which."""

ROOMS = ("server", "bench", "prompts", "grammars")

LAYERS = (
    ("grammars", "server/types.py", "server/ids.py"),
    ("server/python_worker.py", "server/json_schema.py"),
    ("server/tools/errors.py",),
    ("prompts/dialect.py",),
    ("prompts/families",),
    ("prompts", "server/errors.py", "server/models.py", "server/tools/deadline.py",
     "server/tools/redaction.py"),
    ("server/settings.py", "server/engines", "server/tools/validation.py",
     "server/tools/results.py"),
    ("server/observability", "server/tools/config"),
    ("server/http", "server/storage", "server/tools/executors", "server/tools/resilience"),
    ("server/tools",),
    ("server/generation",),
    ("server/engines/vllm",),
    ("server/api",),
    ("server/api/chat",),
    ("server/api/messages",),
    ("server/api/responses",),
    ("server/app.py",),
    ("bench",),
    ("server/cli",),
    ("server/replicas",),
    ("server",),
)  # fmt: skip
"""The folders from the ground up, and the files that stand apart from theirs.

A file imports from its own place and from those of lower layers: no two places import each other.
Some folders stand in two parts: the subfolders of `server/tools` raise its errors, the families are
what `prompts/dialect.py` says, and all of `server/` uses the files that lie directly in it.
"""
