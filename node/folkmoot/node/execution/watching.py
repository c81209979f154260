"""A run's process, watched until its end: it is ended when its time is over, or when its job's scratch takes too much."""

import asyncio
from datetime import timedelta

import structlog

from folkmoot.node.execution.outcomes import Outcome, crashed, exit_class_name
from folkmoot.node.journal.records import moment
from folkmoot.node.proxy.ports import Exit, Runtime
from folkmoot.node.proxy.runs import Run
from folkmoot.node.storage.disk import Disk
from folkmoot.node.storage.scratch import Scratch
from folkmoot.node.waiting import cancelled
from folkmoot.v1 import task_pb2

log = structlog.get_logger()


async def watch(run: Run, runtime: Runtime, scratch: Scratch, disk: Disk) -> Outcome:
    """Wait for the process's end, and end it when its time is over."""
    ends_at = moment(run.record.started_at_us) + timedelta(seconds=run.record.run_time_seconds)
    remaining = max(0.0, (ends_at - run.station.now()).total_seconds())
    try:
        exit_ = await asyncio.wait_for(_process_end(run, runtime, scratch, disk), remaining)
    except TimeoutError:
        await runtime.stop(run.run_name)
        exit_ = Exit(task_pb2.EXIT_CLASS_OUT_OF_TIME, None, "")
    log.info(
        "run.process_ended",
        run_id=run.record.run_id,
        exit_class=exit_class_name(exit_.exit_class),
        code=exit_.code,
    )
    return crashed(exit_, run.record)


async def _process_end(run: Run, runtime: Runtime, scratch: Scratch, disk: Disk) -> Exit:
    """Wait for the process's end, and end it when its job's scratch takes too much."""
    if run.scratch_path and (overrun := await _overrun(run, runtime, scratch, disk)):
        log.warning("run.scratch_overrun", run_id=run.record.run_id, job_id=run.task.spec.job_id, detail=overrun)
        await runtime.stop(run.run_name)
        return Exit(task_pb2.EXIT_CLASS_OUT_OF_SCRATCH, None, "")
    await runtime.wait(run.run_name)
    return await runtime.exit(run.run_name)


async def _overrun(run: Run, runtime: Runtime, scratch: Scratch, disk: Disk) -> str | None:
    """How the job's scratch takes too much, as soon as it does; None if it has not by the end of the process."""
    job_id = run.task.spec.job_id
    ending = asyncio.create_task(runtime.wait(run.run_name))
    overrun = asyncio.create_task(disk.overrun(job_id, scratch.files(job_id), run.record.scratch_bytes))
    try:
        await asyncio.wait({ending, overrun}, return_when=asyncio.FIRST_COMPLETED)
        return None if ending.done() else overrun.result()
    finally:
        await cancelled(ending, overrun)
