"""Claude Proxy: a self-hosted gateway that pools a team's Claude accounts."""

__version__ = "0.1.0"
