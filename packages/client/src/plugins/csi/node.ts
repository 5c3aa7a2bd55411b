/** The Node service. */
import type { Handlers } from "./messages.js";
import type { NodeContext } from "./node-context.js";
import { expandOnNode, nodeGetCapabilities, nodeInfo, volumeStats } from "./node-info.js";
import { publishVolume, unpublishVolume } from "./node-publish.js";
import { stageVolume, unstageVolume } from "./node-stage.js";

export function node(context: NodeContext): Handlers {
  return {
    NodeStageVolume: stageVolume(context),
    NodeUnstageVolume: unstageVolume(context),
    NodePublishVolume: publishVolume(context),
    NodeUnpublishVolume: unpublishVolume(context),
    NodeGetVolumeStats: volumeStats(context),
    NodeExpandVolume: expandOnNode(context),
    NodeGetCapabilities: nodeGetCapabilities(context),
    NodeGetInfo: nodeInfo(context),
  };
}
