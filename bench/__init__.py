from falsework.bench.endpoint import EndpointError
from falsework.bench.main import print_table

__all__ = [
    "EndpointError",
    "print_table",
]
