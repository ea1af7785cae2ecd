"""A run of an agent that asks before it deploys: python producer.py TASK_ID"""

import asyncio
import sys

import fanline

STEPS = ("reading the code", "writing the fix", "running the tests")


async def main(task_id: str) -> None:
    async with fanline.Task(task_id, title="Fix the login page") as run:
        for number, step in enumerate(STEPS):
            await run.progress(100 * number / len(STEPS), stage=step)
            await run.log(step)
            await asyncio.sleep(0.2)  # the work
        answer = await run.ask("Deploy it?")
        await run.log("deployed" if answer.approved else "not deployed")
        run.result({"deployed": answer.approved, "answered_by": answer.by})


asyncio.run(main(sys.argv[1]))
