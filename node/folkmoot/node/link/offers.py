"""What the node tells of itself: the policy in force, in the form in which researchers see it, and whether it takes new work.

A summary says what holds for everybody. What single rules allow, and whom, is the data owner's own: `Check` answers that for one task.
"""

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from folkmoot.node.policy.policy_file import APPROVAL, RELEASE, REPORT, VOTED, Policy, PolicyLimits
from folkmoot.node.station import Station
from folkmoot.v1.link_pb2 import DataframeReport, NodeFrame, Offer, PolicySummary
from folkmoot.v1.task_pb2 import Isolation, Resources


def offer(station: Station, isolation: Isolation.ValueType) -> NodeFrame:
    """What a node that is attached says when any of it has changed; its Hello said it before."""
    return NodeFrame(
        offer=Offer(
            policy=policy_summary(station, isolation),
            availability=station.availability,
            free_slots=station.slots.free,
        )
    )


def policy_summary(station: Station, isolation: Isolation.ValueType) -> PolicySummary:
    """The policy in force, with what node.toml says of the station."""
    policy = station.policy_file.policy
    return PolicySummary(
        digest=station.policy_file.digest,
        labels=sorted(station.config.data),
        slots=station.slots.number,
        isolation=isolation,
        limits=resources(policy.limits),
        resource_classes=_classes(policy.resource_classes),
        result_bytes=policy.limits.result_bytes,
        minimum_rows=policy.minimum_rows,
        approval=APPROVAL[policy.approval],
        release=RELEASE[policy.release],
        opening_hours=opening_hours_texts(policy),
        runs_per_day=policy.quotas.runs_per_day,
        bytes_out_per_day=policy.quotas.bytes_out_per_day,
        dataframe_report=_report(policy),
        voted_list=VOTED[policy.voted_list],
    )


def _report(policy: Policy) -> DataframeReport.ValueType:
    """What is told of dataframes; nothing where none are left."""
    if not any(rule.dataframes for rule in policy.allow):
        return DataframeReport.DATAFRAME_REPORT_UNSPECIFIED
    return REPORT[policy.dataframes.report]


def opening_hours_texts(policy: Policy) -> list[str]:
    """The opening hours, each with its time zone."""
    return [f"{text} {policy.time_zone}" for text in policy.opening_hours]


def resources(limits: PolicyLimits, resource_class: str = "") -> Resources:
    """Limits, as tasks ask for them."""
    return Resources(
        memory_bytes=limits.memory_bytes,
        cpu_millis=limits.cpu_millis,
        run_time=Duration(seconds=limits.run_time_seconds),
        resource_class=resource_class,
    )


def _classes(classes: Mapping[str, PolicyLimits]) -> list[Resources]:
    return [resources(limits, name) for name, limits in sorted(classes.items())]
