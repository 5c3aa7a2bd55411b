/** The CSI plugin, for `libstorage plugin csi` and its tests. */
export { openCsiPlugin } from "./csi-plugin.js";
export type { CsiPlugin, CsiPluginOptions } from "./csi-plugin.js";
export { CAPABILITIES } from "./capabilities.js";
export { DRIVER_NAME } from "./settings.js";
export { loadServices, SERVICES, SPEC_VERSION } from "./proto.js";
export type { SnapshotBlocks, SnapshotMap } from "./snapshot-metadata.js";
export { formatNodeID, parseNodeID } from "./node-id.js";
export { openCsiModule } from "./serve.js";
