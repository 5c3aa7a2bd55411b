/** Requests to the Node service, as orchestrators make them. */
import type { World } from "./world.js";

interface NodeRequests {
  readonly stageRequest: (volumeId: string, stagingTargetPath: string, more?: object) => object;
  readonly publishRequest: (
    staged: { readonly volumeId: string; readonly staging: string },
    targetPath: string,
    more?: object,
  ) => object;
  /** A volume that this node may stage. @returns its id */
  readonly ready: (capability?: object) => Promise<string>;
}

export function nodeRequests(world: () => World): NodeRequests {
  const stageRequest = (volumeId: string, stagingTargetPath: string, more = {}): object => ({
    volumeId,
    stagingTargetPath,
    volumeCapability: world().cap(),
    ...more,
  });
  return {
    stageRequest,
    publishRequest: ({ volumeId, staging }, targetPath, more = {}) => ({
      ...stageRequest(volumeId, staging),
      targetPath,
      ...more,
    }),
    async ready(capability = world().cap()) {
      const { volumeId } = await world().create({ volumeCapabilities: [capability] });
      await world().publishTo(volumeId, await world().nodeID(), { volumeCapability: capability });
      return volumeId;
    },
  };
}
