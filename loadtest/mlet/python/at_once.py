#!/usr/bin/python3
"""Connects to servers through every endpoint, all at once on asyncio: at_once.py HOST:PORT..."""
import asyncio
import sys

from pktlab_mlet import AsyncSession, MletError


async def measure(endpoint: AsyncSession, server: str) -> None:
    host, _, port = server.rpartition(":")
    try:
        async with await endpoint.connect(host, int(port), timeout=10) as stream:
            endpoint.print_json(server=server, ms=stream.times.took_ms)
    except MletError as error:
        endpoint.print_json(server=server, error=error.word, reason=str(error))


async def main() -> None:
    async with AsyncSession(deadline=60) as endpoint:
        await asyncio.gather(*(measure(endpoint, server) for server in sys.argv[1:]))


asyncio.run(main())
