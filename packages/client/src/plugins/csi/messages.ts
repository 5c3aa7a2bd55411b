/**
 * Requests and answers as the loader makes them of `proto/csi.proto`: members in camel case, 64-bit
 * numbers as numbers, values of enumerations by name, messages that were not sent as null.
 */
import type { AccessMode } from "./access-modes.js";

export type TextMap = Readonly<Record<string, string>>;

export interface Mount {
  readonly fsType: string;
  /** May hold secrets. */
  readonly mountFlags: readonly string[];
  readonly volumeMountGroup: string;
}

export interface VolumeCapability {
  readonly accessType?: "block" | "mount";
  readonly block?: object | null;
  readonly mount?: Mount | null;
  readonly accessMode: { readonly mode: AccessMode } | null;
}

export interface CapacityRange {
  readonly requiredBytes: number;
  readonly limitBytes: number;
}

export interface Topology {
  readonly segments: TextMap;
}

export interface ContentSource {
  readonly type?: "snapshot" | "volume";
  readonly snapshot?: { readonly snapshotId: string } | null;
  readonly volume?: { readonly volumeId: string } | null;
}

export interface Volume {
  readonly volumeId: string;
  readonly capacityBytes: number;
  readonly volumeContext?: TextMap;
  readonly contentSource?: ContentSource;
  readonly accessibleTopology?: readonly Topology[];
}

export interface Timestamp {
  readonly seconds: number;
  readonly nanos: number;
}

export interface Snapshot {
  readonly snapshotId: string;
  readonly sourceVolumeId: string;
  readonly sizeBytes: number;
  readonly creationTime: Timestamp;
  readonly readyToUse: boolean;
  readonly groupSnapshotId?: string;
}

export interface VolumeCondition {
  readonly abnormal: boolean;
  readonly message: string;
}

export interface VolumeStatus {
  readonly publishedNodeIds: readonly string[];
  readonly volumeCondition: VolumeCondition;
}

export interface GroupSnapshot {
  readonly groupSnapshotId: string;
  readonly snapshots: readonly Snapshot[];
  readonly creationTime: Timestamp;
  readonly readyToUse: boolean;
}

export type Empty = Readonly<Record<string, never>>;
type Secrets = { readonly secrets: TextMap };
type ByVolume = { readonly volumeId: string };
type Rpc = { readonly rpc: { readonly type: string } };
type Capabilities = { readonly capabilities: readonly Rpc[] };

interface PublishBase extends ByVolume, Secrets {
  readonly volumeCapability: VolumeCapability | null;
  readonly volumeContext: TextMap;
}

export interface NodeStageRequest extends PublishBase {
  readonly publishContext: TextMap;
  readonly stagingTargetPath: string;
}

export interface NodePublishRequest extends NodeStageRequest {
  readonly targetPath: string;
  readonly readonly: boolean;
}

export interface CreateVolumeRequest extends Secrets {
  readonly name: string;
  readonly capacityRange: CapacityRange | null;
  readonly volumeCapabilities: readonly VolumeCapability[];
  readonly parameters: TextMap;
  readonly volumeContentSource: ContentSource | null;
  readonly accessibilityRequirements: {
    readonly requisite: readonly Topology[];
    readonly preferred: readonly Topology[];
  } | null;
  readonly mutableParameters: TextMap;
}

export interface PageRequest {
  readonly maxEntries: number;
  readonly startingToken: string;
}

type GroupRequest = Secrets & {
  readonly groupSnapshotId: string;
  readonly snapshotIds: readonly string[];
};

export interface BlockMetadata {
  readonly blockMetadataType: "FIXED_LENGTH" | "VARIABLE_LENGTH";
  readonly volumeCapacityBytes: number;
  readonly blockMetadata: readonly { readonly byteOffset: number; readonly sizeBytes: number }[];
}

/** Every call that has one answer: what it gets and what it gives. */
export interface UnaryCalls {
  GetPluginInfo: [Empty, { name: string; vendorVersion: string; manifest: TextMap }];
  GetPluginCapabilities: [
    Empty,
    {
      capabilities: readonly (
        | { readonly service: { readonly type: string } }
        | { readonly volumeExpansion: { readonly type: string } }
      )[];
    },
  ];
  Probe: [Empty, { ready: { value: boolean } }];

  CreateVolume: [CreateVolumeRequest, { volume: Volume }];
  DeleteVolume: [ByVolume & Secrets, Empty];
  ControllerPublishVolume: [
    PublishBase & { readonly nodeId: string; readonly readonly: boolean },
    { publishContext: TextMap },
  ];
  ControllerUnpublishVolume: [ByVolume & Secrets & { readonly nodeId: string }, Empty];
  ValidateVolumeCapabilities: [
    ByVolume &
      Secrets & {
        readonly volumeContext: TextMap;
        readonly volumeCapabilities: readonly VolumeCapability[];
        readonly parameters: TextMap;
        readonly mutableParameters: TextMap;
      },
    {
      confirmed?: {
        volumeContext: TextMap;
        volumeCapabilities: readonly VolumeCapability[];
        parameters: TextMap;
        mutableParameters: TextMap;
      };
      message: string;
    },
  ];
  ListVolumes: [
    PageRequest,
    { entries: readonly { volume: Volume; status: VolumeStatus }[]; nextToken: string },
  ];
  GetCapacity: [
    {
      readonly volumeCapabilities: readonly VolumeCapability[];
      readonly parameters: TextMap;
      readonly accessibleTopology: Topology | null;
    },
    {
      availableCapacity: number;
      maximumVolumeSize?: { value: number };
      minimumVolumeSize?: { value: number };
    },
  ];
  ControllerGetCapabilities: [Empty, Capabilities];
  CreateSnapshot: [
    Secrets & {
      readonly sourceVolumeId: string;
      readonly name: string;
      readonly parameters: TextMap;
    },
    { snapshot: Snapshot },
  ];
  DeleteSnapshot: [Secrets & { readonly snapshotId: string }, Empty];
  ListSnapshots: [
    PageRequest & Secrets & { readonly sourceVolumeId: string; readonly snapshotId: string },
    { entries: readonly { snapshot: Snapshot }[]; nextToken: string },
  ];
  GetSnapshot: [Secrets & { readonly snapshotId: string }, { snapshot: Snapshot }];
  ControllerExpandVolume: [
    ByVolume &
      Secrets & {
        readonly capacityRange: CapacityRange | null;
        readonly volumeCapability: VolumeCapability | null;
      },
    { capacityBytes: number; nodeExpansionRequired: boolean },
  ];
  ControllerGetVolume: [ByVolume, { volume: Volume; status: VolumeStatus }];
  ControllerModifyVolume: [ByVolume & Secrets & { readonly mutableParameters: TextMap }, Empty];

  GroupControllerGetCapabilities: [Empty, Capabilities];
  CreateVolumeGroupSnapshot: [
    Secrets & {
      readonly name: string;
      readonly sourceVolumeIds: readonly string[];
      readonly parameters: TextMap;
    },
    { groupSnapshot: GroupSnapshot },
  ];
  DeleteVolumeGroupSnapshot: [GroupRequest, Empty];
  GetVolumeGroupSnapshot: [GroupRequest, { groupSnapshot: GroupSnapshot }];

  NodeStageVolume: [NodeStageRequest, Empty];
  NodeUnstageVolume: [ByVolume & { readonly stagingTargetPath: string }, Empty];
  NodePublishVolume: [NodePublishRequest, Empty];
  NodeUnpublishVolume: [ByVolume & { readonly targetPath: string }, Empty];
  NodeGetVolumeStats: [
    ByVolume & { readonly volumePath: string; readonly stagingTargetPath: string },
    {
      usage: readonly {
        unit: "BYTES" | "INODES";
        total: number;
        used?: number;
        available?: number;
      }[];
      volumeCondition: VolumeCondition;
    },
  ];
  NodeExpandVolume: [
    ByVolume &
      Secrets & {
        readonly volumePath: string;
        readonly capacityRange: CapacityRange | null;
        readonly stagingTargetPath: string;
        readonly volumeCapability: VolumeCapability | null;
      },
    { capacityBytes: number },
  ];
  NodeGetCapabilities: [Empty, Capabilities];
  NodeGetInfo: [
    Empty,
    { nodeId: string; maxVolumesPerNode: number; accessibleTopology?: Topology },
  ];
}

/** Every call that answers a stream. */
export interface StreamCalls {
  GetMetadataAllocated: [
    Secrets & {
      readonly snapshotId: string;
      readonly startingOffset: number;
      readonly maxResults: number;
    },
    BlockMetadata,
  ];
  GetMetadataDelta: [
    Secrets & {
      readonly baseSnapshotId: string;
      readonly targetSnapshotId: string;
      readonly startingOffset: number;
      readonly maxResults: number;
    },
    BlockMetadata,
  ];
}

export type UnaryName = keyof UnaryCalls;
export type StreamName = keyof StreamCalls;
export type CallName = UnaryName | StreamName;

export type UnaryHandler<Name extends UnaryName> = (
  request: UnaryCalls[Name][0],
  signal: AbortSignal,
) => Promise<UnaryCalls[Name][1]>;

export type StreamHandler<Name extends StreamName> = (
  request: StreamCalls[Name][0],
  signal: AbortSignal,
) => AsyncIterable<StreamCalls[Name][1]>;

/** What one part of the plugin serves; a call without a handler is answered UNIMPLEMENTED. */
export type Handlers = { readonly [Name in UnaryName]?: UnaryHandler<Name> } & {
  readonly [Name in StreamName]?: StreamHandler<Name>;
};
