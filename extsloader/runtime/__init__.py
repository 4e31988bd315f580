"""The asyncio shell around the core: inbox, loop, timers, executor, status hub."""
