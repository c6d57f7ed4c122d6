"""Room of the cluster that a team holds although it is gone."""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group


def give_back() -> None:
    """Remove each placement group of this driver whose maker, an actor, is dead.

    Ray keeps such a group until the driver ends, too (2.60). Ray Train's own cleaner asks the dashboard whether the
    maker lives; our ray has none, and the cleaner itself may have been killed. Nothing public tells the maker.
    """
    if ray.util.client.ray.is_connected():
        return  # a remote driver can't see the tables
    # private, so here alone: an apply without teams does not need them
    from ray._private import state  # noqa: PLC0415
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # noqa: PLC0415

    job = ray.get_runtime_context().get_job_id()
    for row in state.state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(row)
        gone = group.state == PlacementGroupTableData.REMOVED
        if group.creator_job_id.hex() == job and group.creator_actor_dead and group.creator_actor_id and not gone:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
