"""Names of all metrics, spans, span attributes and log events.

The GenAI conventions of OpenTelemetry are still in development, so they are spelled here alone.
Label values come from closed lists: tools and upstreams of the tools file, error types. Tools that
a request brought share the label OTHER.
"""

from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
GEN_AI_BUCKETS = tuple(0.01 * 2**n for n in range(14))
MCP_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
TTFT_BUCKETS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
)
TPOT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
COUNT_BUCKETS = tuple(range(17))

OTHER = "other"
"""Label of tools and upstreams that no tools file names."""

HTTP_REQUESTS = Counter(
    "falsework_http_requests", "Requests at the door, refused ones too.", ("route", "status")
)

REQUEST_WARNINGS = Counter(
    "falsework_request_warnings",
    "What requests asked for and got otherwise or not at all.",
    ("code",),
)
REQUESTS_RUNNING = Gauge("falsework_requests_running", "Requests that are being answered.")

REQUEST_SECONDS = Histogram(
    "falsework_request_duration_seconds",
    "A request, from its body to its last byte.",
    ("model", "api", "stream", "outcome"),
    buckets=LATENCY_BUCKETS,
)
FIRST_TOKEN_SECONDS = Histogram(
    "falsework_request_ttft_seconds",
    "Time to first token.",
    ("model", "api", "stream", "outcome"),
    buckets=LATENCY_BUCKETS,
)
PHASE_SECONDS = Histogram(
    "falsework_request_time_seconds",
    "Parts of a request; they sum to the whole.",
    ("phase",),
    buckets=LATENCY_BUCKETS,
)
MODEL_TURNS = Histogram(
    "falsework_request_model_turns",
    "Turns of the model in a request.",
    ("model",),
    buckets=COUNT_BUCKETS,
)
TOOL_CALLS_OF_REQUEST = Histogram(
    "falsework_request_tool_calls",
    "Calls that the server ran in a request.",
    ("model",),
    buckets=COUNT_BUCKETS,
)
DEADLINE_REMAINING = Histogram(
    "falsework_request_deadline_remaining_seconds",
    "What was left of the deadline at the end.",
    buckets=LATENCY_BUCKETS,
)
LIMIT_HITS = Counter(
    "falsework_request_stopped", "Requests that a limit led to their answer.", ("by",)
)
SERVER_SECONDS = Histogram(
    "gen_ai_server_request_duration_seconds",
    "A request, as the conventions name it.",
    ("gen_ai_operation_name", "gen_ai_request_model", "error_type"),
    buckets=GEN_AI_BUCKETS,
)
SERVER_FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "The first token of a request.",
    ("gen_ai_operation_name", "gen_ai_request_model"),
    buckets=TTFT_BUCKETS,
)
SERVER_PER_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Tokens after the first, of one turn.",
    ("gen_ai_operation_name", "gen_ai_request_model"),
    buckets=TPOT_BUCKETS,
)
CHAT_SECONDS = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "One turn of the model, asked by our runtime.",
    ("gen_ai_operation_name", "gen_ai_request_model", "error_type"),
    buckets=GEN_AI_BUCKETS,
)
EXECUTE_SECONDS = Histogram(
    "gen_ai_execute_tool_duration_seconds",
    "A call of a tool, all attempts together.",
    ("tool", "tool_type", "error_type"),
    buckets=GEN_AI_BUCKETS,
)
TOOL_CALLS = Counter(
    "falsework_tool_calls", "Calls of tools.", ("tool", "kind", "effect", "outcome", "error_type")
)
ATTEMPTS = Counter("falsework_tool_attempts", "Attempts of calls.", ("tool", "outcome"))
ATTEMPT_SECONDS = Histogram(
    "falsework_tool_attempt_duration_seconds",
    "One attempt.",
    ("tool", "outcome"),
    buckets=LATENCY_BUCKETS,
)
RETRIES = Counter("falsework_tool_retries", "Attempts after the first.", ("tool", "reason"))
RETRIES_DENIED = Counter(
    "falsework_retries_denied", "Retries that no budget was left for.", ("upstream",)
)
RETRY_BUDGET = Gauge("falsework_retry_budget_tokens", "Retries that are left.", ("upstream",))
HEDGES = Counter("falsework_tool_hedges", "Second copies of slow reads.", ("tool", "won"))
BREAKER_STATE = Gauge("falsework_breaker_state", "0 closed, 1 half open, 2 open.", ("upstream",))
BREAKER_TRANSITIONS = Counter(
    "falsework_breaker_transitions",
    "Changes of a breaker's state.",
    ("upstream", "from", "to"),
)
BREAKER_REJECTIONS = Counter(
    "falsework_breaker_rejections", "Attempts that a breaker kept away.", ("upstream",)
)
BULKHEAD_IN_FLIGHT = Gauge("falsework_bulkhead_in_flight", "Calls that run.", ("tool",))
BULKHEAD_QUEUED = Gauge("falsework_bulkhead_queued", "Calls that wait for a place.", ("tool",))
BULKHEAD_WAIT = Histogram(
    "falsework_bulkhead_wait_seconds", "Waiting for a place.", ("tool",), buckets=LATENCY_BUCKETS
)
BULKHEAD_REJECTIONS = Counter(
    "falsework_bulkhead_rejections", "Calls that got no place.", ("tool",)
)
FALLBACKS = Counter("falsework_fallbacks", "Calls that something else answered.", ("tool", "to"))
RESULT_CACHE = Counter("falsework_cache", "Looks into the result cache.", ("tool", "result"))
ARGUMENT_VALIDATION = Counter(
    "falsework_argument_validation", "Arguments of calls, checked.", ("tool", "result")
)
REPAIR_TURNS = Counter(
    "falsework_repair_turns", "Turns of the model after arguments that it got wrong."
)
IDEMPOTENT_REPLAYS = Counter(
    "falsework_idempotent_replays", "Requests answered by a kept response."
)
STORAGE_ERRORS = Counter(
    "falsework_storage_errors", "Uses of the database that failed.", ("operation", "kind")
)
AMBIGUOUS_WRITES = Counter(
    "falsework_ambiguous_writes", "Writes whose answer never came.", ("tool", "resolved")
)
DISCONNECTS = Counter("falsework_client_disconnects", "Clients that left early.", ("phase",))
CANCELLED_CALLS = Counter("falsework_cancelled_tools", "Calls that were given up.", ("tool",))
LEAKED_THREADS = Gauge("falsework_leaked_threads", "Abandoned threads that still run.", ("tool",))
MCP_UP = Gauge("falsework_mcp_server_up", "1 while a server is connected.", ("server",))
MCP_RESTARTS = Counter("falsework_mcp_restarts", "Connections that were lost.", ("server",))
MCP_SECONDS = Histogram(
    "mcp_client_operation_duration_seconds",
    "A request to an MCP server.",
    ("server", "mcp_method_name", "error_type"),
    buckets=MCP_BUCKETS,
)
EGRESS_BLOCKED = Counter(
    "falsework_egress_blocked", "Connections refused by the rules.", ("reason",)
)
TRUNCATED_RESULTS = Counter("falsework_result_truncated", "Results cut for the model.", ("tool",))

REASONING_TOKENS = Counter("falsework_reasoning_tokens", "Tokens of think blocks.")
REASONING_LEVEL = Counter(
    "falsework_reasoning_level", "Requests by their reasoning effort.", ("level", "source")
)
GRAMMAR_SECONDS = Histogram(
    "falsework_grammar_compile_seconds",
    "From a form of reply to its automaton.",
    buckets=LATENCY_BUCKETS,
)
GRAMMAR_CACHE = Counter("falsework_grammar_cache", "Looks for a kept automaton.", ("result",))
OUTPUT_CHECKS = Counter(
    "falsework_output_checks",
    "Calls and answers judged by their schema when complete, by what came of it.",
    ("result",),
)
REPLIES_ENDED = Counter(
    "falsework_replies_ended", "Replies that a limit of the server ended, by which.", ("by",)
)

PHASES = ("queue", "prefill", "think", "decode", "tool", "backoff", "queue_tool", "other")

TRACER = trace.get_tracer("falsework")

SPAN_SERVER = "POST {path}"
SPAN_BACKGROUND = "background response"
SPAN_WORKFLOW = "invoke_workflow {name}"
SPAN_CHAT = "chat {model}"
SPAN_EXECUTE_TOOL = "execute_tool {name}"
SPAN_ATTEMPT = "attempt {number}"
SPAN_BACKOFF = "backoff"

ATTR_OPERATION = "gen_ai.operation.name"
ATTR_PROVIDER = "gen_ai.provider.name"
WORKFLOW_NAME = "gen_ai.workflow.name"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
CALL_ID = "gen_ai.tool.call.id"
REQUEST_MODEL = "gen_ai.request.model"
REASONING = "gen_ai.request.reasoning.level"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
THOUGHT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"
ENDED_BY = "falsework.reply.ended_by"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
ERROR_TYPE = "error.type"
STATUS_CODE = "http.response.status_code"
ATTEMPT_NUMBER = "falsework.attempt.number"
ATTR_BREAKER_STATE = "falsework.breaker.state"
DEADLINE_LEFT = "falsework.deadline_left_ms"
ATTR_BACKOFF_MS = "falsework.backoff_ms"
TOOL_TYPE_EXTENSION = "extension"
"""gen_ai.tool.type of a tool that the server runs."""
PROVIDER_NAME = "falsework"
"""gen_ai.provider.name of the served model."""

RETRY, HEDGE, BREAKER_OPEN = "retry", "hedge", "breaker.open"
FALLBACK, REPAIR, CANCEL = "fallback", "repair", "cancel"
"""Events of the span of a tool call."""
EVENT_FIRST_TOKEN = "first token"  # noqa: S105 - a token of text
"""Event of the span of a turn."""

EVENT_WARNING = "warning"
"""Event of the span of a request, see `request_warnings`."""

LIST_TOOLS, CALL_TOOL = "tools/list", "tools/call"
"""mcp.method.name of requests to MCP servers."""

LOG_REQUEST = "request"
LOG_REFUSED = "refused"
LOG_TOOL_CALL = "tool call"
FAILED_LINE, CUT_LINE = "request failed", "stream failed"
LOG_CONNECTION_LOST = "connection lost"
LOG_MCP_STDERR = "MCP server wrote to its standard error"
BROKEN_LINE, UNRECORDED_LINE = "call failed", "outcome not recorded"
UNFINISHED_LINE, UNMADE_LINE = "work failed", "response failed"
LOG_SWEEP_FAILED = "database not tidied"
LOG_NOT_STORED = "not stored"
"""Log events."""

BREAKER_NUMBERS = {"closed": 0, "half_open": 1, "open": 2}
