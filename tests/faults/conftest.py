"""The same agent, stick and images as in the agent's integration tests."""

from tests.integration.agent.conftest import agent, good, key, newer, start_agent, stick

__all__ = ["agent", "good", "key", "newer", "start_agent", "stick"]
