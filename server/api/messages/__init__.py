from falsework.server.api.messages import routes

__all__ = ["routes"]
