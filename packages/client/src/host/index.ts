/** `@libstorage/client/host`: volumes on this host, over any `VolumeService`. */
export * from "./host-volumes.js";
export * from "./host-service.js";
export * from "./mount-requests.js";
export type { LocalMounts } from "./local-mounts.js";
export type { MountRecordFile } from "./mount-records.js";
export type { HostIdentity } from "./identity.js";
export type { OperationSettings } from "./operation-settings.js";
export type { CreateOptions } from "./create-request.js";
export { findNamed } from "./volume-names.js";
export * from "../executor/executor.js";
export { EXECUTORS, openExecutor } from "../executor/index.js";
export { CommandError, runCommand } from "../executor/exec.js";
export type { Exec, ExecResult } from "../executor/exec.js";
export { parseMountTable, readMountTable } from "../executor/mount-table.js";
export { waitForDevice } from "../executor/wait.js";
export * from "../settings.js";
