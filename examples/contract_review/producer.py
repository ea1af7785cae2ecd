"""A review of a contract that reports its progress: python producer.py TASK_ID"""

import asyncio
import sys

import fanline

STAGES = ("reading", "analyzing", "checking", "summarizing")


async def main(task_id: str) -> None:
    contract = {"contract_type": "lease", "role": "tenant"}
    async with fanline.Task(task_id, title="Review of a lease", fields=contract) as task:
        for number, stage in enumerate(STAGES):
            await task.progress(100 * number / len(STAGES), f"{stage} the contract", stage=stage)
            await asyncio.sleep(0.2)  # the work
        task.result({"risks": ["no notice period"]})


asyncio.run(main(sys.argv[1]))
