/**
 * What the plugin advertises: only what the service behind it can do. Nothing here is assumed of a driver;
 * all of it follows from what the server says of the service.
 */
import type { AbilityName, ServiceInfo } from "@libstorage/model";
import { allowedBy, isKnownMode } from "./access-modes.js";
import type { KnownMode } from "./access-modes.js";
import type { VolumeCapability } from "./messages.js";
import { CsiError, invalid } from "./status.js";

export function can(info: ServiceInfo, ability: AbilityName): boolean {
  return info.abilities?.includes(ability) === true;
}

/** What the service can change of a volume, of what parameters can say. */
export function mutableIn({ mutable = [] }: ServiceInfo): readonly string[] {
  return mutable.filter((name) => name === "type" || name === "iops" || name === "fields");
}

/** Volumes are devices that get a file system of their own, or can be used without one. */
export function isBlock(info: ServiceInfo): boolean {
  return info.driver.type === "block";
}

/** All names that the plugin may advertise. */
export const CAPABILITIES = [
  "CONTROLLER_SERVICE",
  "VOLUME_ACCESSIBILITY_CONSTRAINTS",
  "GROUP_CONTROLLER_SERVICE",
  "SNAPSHOT_METADATA_SERVICE",
  "CREATE_DELETE_VOLUME",
  "PUBLISH_UNPUBLISH_VOLUME",
  "LIST_VOLUMES",
  "GET_CAPACITY",
  "CREATE_DELETE_SNAPSHOT",
  "LIST_SNAPSHOTS",
  "CLONE_VOLUME",
  "PUBLISH_READONLY",
  "EXPAND_VOLUME",
  "LIST_VOLUMES_PUBLISHED_NODES",
  "VOLUME_CONDITION",
  "GET_VOLUME",
  "SINGLE_NODE_MULTI_WRITER",
  "GET_SNAPSHOT",
  "MODIFY_VOLUME",
  "STAGE_UNSTAGE_VOLUME",
  "GET_VOLUME_STATS",
  "VOLUME_MOUNT_GROUP",
  "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
] as const;
export type CapabilityName = (typeof CAPABILITIES)[number];

type Listed = { readonly rpc: { readonly type: string } };

function listed(
  names: readonly (CapabilityName | false)[],
  hidden: ReadonlySet<CapabilityName>,
): Listed[] {
  return names
    .filter((name) => name !== false)
    .filter((name) => !hidden.has(name))
    .map((type) => ({ rpc: { type } }));
}

/** What is not to be named, though it can be done. */
interface Hiding {
  readonly hidden: ReadonlySet<CapabilityName>;
}

export function controllerCapabilities(info: ServiceInfo, { hidden }: Hiding): Listed[] {
  const snapshots = can(info, "snapshot");
  return listed(
    [
      "CREATE_DELETE_VOLUME",
      "PUBLISH_UNPUBLISH_VOLUME",
      "LIST_VOLUMES",
      can(info, "capacity") && "GET_CAPACITY",
      snapshots && "CREATE_DELETE_SNAPSHOT",
      snapshots && "LIST_SNAPSHOTS",
      can(info, "copy") && "CLONE_VOLUME",
      "PUBLISH_READONLY",
      can(info, "expand") && "EXPAND_VOLUME",
      "LIST_VOLUMES_PUBLISHED_NODES",
      "VOLUME_CONDITION",
      "GET_VOLUME",
      "SINGLE_NODE_MULTI_WRITER",
      snapshots && "GET_SNAPSHOT",
      mutableIn(info).length > 0 && "MODIFY_VOLUME",
    ],
    hidden,
  );
}

export function nodeCapabilities(info: ServiceInfo, { hidden }: Hiding): Listed[] {
  return listed(
    [
      "STAGE_UNSTAGE_VOLUME",
      "GET_VOLUME_STATS",
      // A folder grows where it lies.
      can(info, "expand") && isBlock(info) && "EXPAND_VOLUME",
      "VOLUME_CONDITION",
      "SINGLE_NODE_MULTI_WRITER",
      "VOLUME_MOUNT_GROUP",
    ],
    hidden,
  );
}

export function groupCapabilities(info: ServiceInfo, { hidden }: Hiding): Listed[] {
  return listed([can(info, "snapshot") && "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"], hidden);
}

/** `OFFLINE`: a volume grows only while it is published to no node. */
export function expansionOf(info: ServiceInfo): "ONLINE" | "OFFLINE" {
  return can(info, "expandOnline") ? "ONLINE" : "OFFLINE";
}

export interface PluginAbilities {
  readonly hasTopology: boolean;
  /** Whether the service tells which blocks of a snapshot have data. */
  readonly hasSnapshotMetadata: boolean;
}

export function pluginCapabilities(
  info: ServiceInfo,
  { hidden }: Hiding,
  { hasTopology, hasSnapshotMetadata }: PluginAbilities,
): ({ readonly service: { type: string } } | { readonly volumeExpansion: { type: string } })[] {
  const services: readonly (CapabilityName | false)[] = [
    "CONTROLLER_SERVICE",
    hasTopology && "VOLUME_ACCESSIBILITY_CONSTRAINTS",
    can(info, "snapshot") && "GROUP_CONTROLLER_SERVICE",
    hasSnapshotMetadata && "SNAPSHOT_METADATA_SERVICE",
  ];
  return [
    ...services
      .filter((type) => type !== false)
      .filter((type) => !hidden.has(type))
      .map((type) => ({ service: { type } })),
    ...(can(info, "expand") ? [{ volumeExpansion: { type: expansionOf(info) } }] : []),
  ];
}

// ---- capabilities of a volume

const FS_TYPE = /^[a-z0-9][a-z0-9_.-]{0,31}$/i;
const GROUP = /^\d{1,10}$/;
const MAX_FLAGS_BYTES = 4096;
/** What an option of mount(8) is made of. */
const FLAG = /^[\w=.:/@%+-]+$/;

/** A capability that names its access type and a mode that this plugin knows. */
export interface CheckedCapability {
  readonly access: "block" | "mount";
  readonly mode: KnownMode;
  /** Empty: none was named. */
  readonly fsType: string;
  readonly mountFlags: readonly string[];
  /** A number; undefined: none was named. */
  readonly group?: number;
}

/** @throws {CsiError} INVALID_ARGUMENT for a capability that is none, without quoting its mount flags */
export function checkCapability(capability: VolumeCapability | null): CheckedCapability {
  if (capability === null) throw invalid("volume_capability is missing");
  const { accessType, accessMode, mount } = capability;
  if (accessType === undefined) throw invalid("volume_capability: access_type is missing");
  const mode = accessMode?.mode ?? "UNKNOWN";
  if (mode === "UNKNOWN") throw invalid("volume_capability: access_mode is missing");
  if (!isKnownMode(mode)) throw invalid(`volume_capability: access mode ${mode} is not known`);
  const { fsType = "", mountFlags = [], volumeMountGroup = "" } = mount ?? {};
  if (fsType !== "" && !FS_TYPE.test(fsType)) throw invalid("fs_type is no name of a file system");
  if (mountFlags.some((flag) => !flag.split(",").every((one) => FLAG.test(one))))
    throw invalid("mount_flags: one of them is no option of mount(8)");
  if (mountFlags.reduce((sum, flag) => sum + Buffer.byteLength(flag), 0) > MAX_FLAGS_BYTES)
    throw invalid(`mount_flags have more than ${MAX_FLAGS_BYTES} bytes`);
  if (volumeMountGroup !== "" && !GROUP.test(volumeMountGroup))
    throw invalid("volume_mount_group is no number of a group");
  return {
    access: accessType,
    mode,
    fsType,
    mountFlags,
    ...(volumeMountGroup !== "" && { group: Number(volumeMountGroup) }),
  };
}

/** @throws {CsiError} INVALID_ARGUMENT */
export function checkCapabilities(
  capabilities: readonly VolumeCapability[],
): readonly CheckedCapability[] {
  if (capabilities.length === 0) throw invalid("volume_capabilities are missing");
  return capabilities.map(checkCapability);
}

/** What this client makes on volumes that are devices. */
const FILE_SYSTEMS: readonly string[] = ["ext4", "ext3", "xfs", "btrfs"];

/** Why the service's volumes cannot have a capability, or undefined. */
export function unsupported(
  info: ServiceInfo,
  { access, mode, fsType }: CheckedCapability,
): string | undefined {
  const { manyNodes, writers } = allowedBy(mode);
  if (!isBlock(info))
    // A file system's type says nothing of a folder.
    return access === "mount"
      ? undefined
      : `volumes of service ${info.name} are folders (driver ${info.driver.name}), not block devices: use access type mount`;
  if (access === "block") return undefined;
  if (fsType !== "" && !FILE_SYSTEMS.includes(fsType))
    return `"${fsType}" is no file system for volumes: there are ${FILE_SYSTEMS.join(", ")}`;
  if (manyNodes && writers !== "none")
    return `${mode} with a file system would destroy it: volumes of service ${info.name} are devices, and ${FILE_SYSTEMS.join(", ")} have one user; use access type block, or MULTI_NODE_READER_ONLY`;
  return undefined;
}

/** @throws {CsiError} with `status` when the service cannot do it */
export function requireSupport(
  info: ServiceInfo,
  capabilities: readonly CheckedCapability[],
  status: "INVALID_ARGUMENT" | "FAILED_PRECONDITION",
): void {
  for (const capability of capabilities) {
    const why = unsupported(info, capability);
    if (why !== undefined) throw new CsiError(status, why);
  }
}

/** Whether any of the capabilities lets several nodes in at once. */
export function needsManyNodes(capabilities: readonly CheckedCapability[]): boolean {
  return capabilities.some(({ mode }) => allowedBy(mode).manyNodes);
}

/** Whether a use in this mode writes. */
export function writes(mode: KnownMode, readonly: boolean): boolean {
  return !readonly && allowedBy(mode).writers !== "none";
}
