"""Carrying out a plan: its moves as tasks, until it is enough, nobody is left, or the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from listeners.nested.planning import Move, Plan

Room = Callable[[], tuple[int, int]]
"""How many near ones, and how many far ones, are wanted at once now; nothing where it is enough."""


async def carry_out(plan: Plan, make: Callable[[Move], Awaitable[None]], room: Room, deadline: float) -> None:
    """Make moves for as long as there is room for them; what is in flight then is dropped.

    A move that ends has told what became of it already. If there is room for more afterwards, `plan.in_flight` are
    those that were cut off by the deadline, and `plan.waiting` those that it was too late for.
    """
    loop = asyncio.get_running_loop()
    tasks: dict[asyncio.Task[None], Move] = {}

    async def do(move: Move) -> None:
        await make(move)

    try:
        while loop.time() < deadline and any(wanted := room()):
            for move in plan.begin(*wanted, loop.time()):
                tasks[asyncio.create_task(do(move), name=f"spile nested {move.peer}")] = move
            if not tasks:
                return
            until = min(filter(None, (deadline, plan.looks_again(loop.time()))))
            done, _ = await asyncio.wait(
                tasks, timeout=max(0.0, until - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                plan.ended(tasks.pop(task))
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
