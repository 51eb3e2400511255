"""The layers of the house: which folder may import from which."""

ROOMS = ("server", "bench", "prompts", "grammars")

LAYERS = (
    ("grammars",),
    ("prompts", "server/errors.py", "server/models.py", "server/tools/deadline.py",
     "server/tools/errors.py"),
    ("server/settings.py", "server/engines", "server/tools/validation.py",
     "server/tools/results.py"),
    ("server/observability", "server/tools/config"),
    ("server/http", "server/storage", "server/tools/executors", "server/tools/resilience"),
    ("server/tools",),
    ("server/generation",),
    ("server/engines/vllm",),
    ("server/api",),
    ("server/api/chat",),
    ("server/api/responses",),
    ("server/app.py",),
    ("bench",),
    ("server/cli",),
    ("server",),
)  # fmt: skip
"""The folders from the ground up, and the files that stand apart from theirs.

A file imports from its own place and from those of lower layers: no two places import each other.
`server/tools` stands in two parts, since its subfolders raise its errors; so does `server` itself.
"""
