#!/usr/bin/python3
"""Connects to servers through every endpoint, all at once on asyncio: at_once.py HOST[:PORT]..."""
import asyncio
from typing import List

from pktlab_mlet import SOCKETS_MAX, AsyncSession, MletError, arguments, host_port


def words(given: List[str]) -> List[str]:
    return [server for server in given if host_port(server, 80)]


async def measure(endpoint: AsyncSession, sockets: asyncio.Semaphore, server: str) -> None:
    try:
        async with sockets, await endpoint.connect(*host_port(server, 80), timeout=10) as stream:
            endpoint.print_json(server=server, ms=stream.times.took_ms)
    except MletError as error:
        endpoint.print_json(server=server, error=error.word, reason=str(error))


async def main(servers: List[str]) -> None:
    sockets = asyncio.Semaphore(SOCKETS_MAX)
    async with AsyncSession(deadline=60) as endpoint:
        await asyncio.gather(*(measure(endpoint, sockets, server) for server in servers))


asyncio.run(main(arguments(words)))
