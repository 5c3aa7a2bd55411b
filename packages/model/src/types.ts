/**
 * The objects of the libStorage API, section 8 of its contract, under their Go names. Members stand in
 * wire order. Optional members are left out when empty, zero or false.
 */
import * as v from "valibot";

/** Keys sorted when written. */
export const Fields = v.record(v.string(), v.string());
export type Fields = v.InferOutput<typeof Fields>;

/** Any JSON; a driver sees the top-level keys in lower case. */
export const Opts = v.pipe(
  v.unknown(),
  // The schema of records takes a list for an empty one.
  v.check((value) => !Array.isArray(value), "must be of type object"),
  v.record(v.string(), v.unknown()),
);
export type Opts = v.InferOutput<typeof Opts>;

export const InstanceID = v.object({
  id: v.string(),
  driver: v.string(),
  service: v.string(),
  fields: v.optional(Fields),
  metadata: v.optional(v.unknown()),
});
/** Names a client host to a storage platform. `service` is empty when it holds for every service of the driver. */
export type InstanceID = v.InferOutput<typeof InstanceID>;

export const Instance = v.object({
  instanceID: InstanceID,
  name: v.optional(v.string()),
  providerName: v.string(),
  region: v.optional(v.string()),
  fields: v.optional(Fields),
});
export type Instance = v.InferOutput<typeof Instance>;

export const VolumeAttachment = v.object({
  deviceName: v.string(),
  mountPoint: v.optional(v.string()),
  instanceID: v.nullable(InstanceID),
  status: v.string(),
  volumeID: v.string(),
  fields: v.optional(Fields),
});
export type VolumeAttachment = v.InferOutput<typeof VolumeAttachment>;

export const Volume = v.object({
  attachments: v.optional(v.array(VolumeAttachment)),
  /** 1 unknown, 2 attached to the caller, 3 available, 4 attached elsewhere. */
  attachmentState: v.optional(v.pipe(v.number(), v.integer())),
  availabilityZone: v.optional(v.string()),
  encrypted: v.optional(v.boolean()),
  iops: v.optional(v.pipe(v.number(), v.integer())),
  name: v.string(),
  networkName: v.optional(v.string()),
  /** GiB; left out when the volume has no limit. */
  size: v.optional(v.pipe(v.number(), v.integer())),
  status: v.optional(v.string()),
  id: v.string(),
  type: v.string(),
  fields: v.optional(Fields),
});
export type Volume = v.InferOutput<typeof Volume>;

export const Snapshot = v.object({
  description: v.optional(v.string()),
  name: v.optional(v.string()),
  encrypted: v.optional(v.boolean()),
  id: v.string(),
  /** Unix seconds. */
  startTime: v.optional(v.pipe(v.number(), v.integer())),
  status: v.optional(v.string()),
  volumeID: v.optional(v.string()),
  /** GiB. */
  volumeSize: v.optional(v.pipe(v.number(), v.integer())),
  fields: v.optional(Fields),
});
export type Snapshot = v.InferOutput<typeof Snapshot>;

export const DriverType = v.picklist(["block", "nas", "object"]);
export type DriverType = v.InferOutput<typeof DriverType>;

export const NextDeviceInfo = v.object({
  ignore: v.boolean(),
  prefix: v.string(),
  pattern: v.string(),
});
export type NextDeviceInfo = v.InferOutput<typeof NextDeviceInfo>;

export const DriverInfo = v.object({
  name: v.string(),
  type: DriverType,
  nextDevice: v.optional(NextDeviceInfo),
});
export type DriverInfo = v.InferOutput<typeof DriverInfo>;

/** Bytes that new volumes may take, and all there are. */
export const Capacity = v.object({ freeBytes: v.number(), totalBytes: v.number() });
export type Capacity = v.InferOutput<typeof Capacity>;

/**
 * What a service may be able to do besides making, attaching and removing volumes. `expandOnline`: also while
 * a volume is attached.
 */
export const ABILITIES = [
  "copy",
  "expand",
  "expandOnline",
  "snapshot",
  "snapshotCopy",
  "revert",
  "capacity",
  "content",
  "changes",
] as const;
export type AbilityName = (typeof ABILITIES)[number];

/** What of a volume may be changed while it is in use; a driver says which of these it can. */
export const MUTABLE = ["name", "type", "iops", "fields"] as const;
export type MutableName = (typeof MUTABLE)[number];

export const ServiceInfo = v.object({
  name: v.string(),
  instance: v.optional(Instance),
  driver: DriverInfo,
  /** When they were asked for. Of `ABILITIES`; a later server may know more words. Not in the reference. */
  abilities: v.optional(v.array(v.string())),
  /** With the abilities: what `volumeUpdate` can change. Of `MUTABLE`. */
  mutable: v.optional(v.array(v.string())),
  /** With the abilities: whether the volumes can be used on the server's own host only. */
  isHostBound: v.optional(v.boolean()),
  /** With the abilities: how content is written as a stream. Not in the reference. */
  contentFormats: v.optional(v.array(v.string())),
  /** When they were asked for: ids of contents that increments can build on. Not in the reference. */
  contents: v.optional(v.array(v.string())),
  /** When it was asked for, and the driver can tell. Not in the reference. */
  capacity: v.optional(Capacity),
  /** How other hosts get the volumes: they then send `HostFacts` with their id. Not in the reference. */
  exporter: v.optional(v.string()),
  /** Whether volumes have several holders unless they say otherwise. Not in the reference. */
  shareable: v.optional(v.boolean()),
});
export type ServiceInfo = v.InferOutput<typeof ServiceInfo>;

/** How far a long operation is. Not in the reference; left out when an operation has nothing to count. */
export const Progress = v.object({ done: v.number(), total: v.number(), unit: v.string() });
export type Progress = v.InferOutput<typeof Progress>;

export const TaskState = v.picklist(["", "queued", "running", "success", "error"]);
export type TaskState = v.InferOutput<typeof TaskState>;

export const Task = v.object({
  id: v.pipe(v.number(), v.integer()),
  user: v.optional(v.string()),
  /** Unix seconds, as are the other times. */
  completeTime: v.optional(v.pipe(v.number(), v.integer())),
  queueTime: v.pipe(v.number(), v.integer()),
  startTime: v.optional(v.pipe(v.number(), v.integer())),
  state: TaskState,
  /** What the synchronous call would have answered. */
  result: v.optional(v.unknown()),
  error: v.optional(v.unknown()),
  /** The exact code of the error. Not in the reference. */
  errorCode: v.optional(v.string()),
  /** Name of the operation, as in the route table. Not in the reference. */
  operation: v.optional(v.string()),
  progress: v.optional(Progress),
});
export type Task = v.InferOutput<typeof Task>;

export const ErrorBody = v.object({
  message: v.string(),
  status: v.pipe(v.number(), v.integer()),
  error: v.optional(v.unknown()),
});
export type ErrorBody = v.InferOutput<typeof ErrorBody>;

export const ExecutorInfo = v.object({
  name: v.string(),
  md5checksum: v.string(),
  size: v.pipe(v.number(), v.integer()),
  lastModified: v.pipe(v.number(), v.integer()),
});
export type ExecutorInfo = v.InferOutput<typeof ExecutorInfo>;

export const VolumeMap = v.record(v.string(), Volume);
export type VolumeMap = v.InferOutput<typeof VolumeMap>;
/** A connection through an export that exists now. */
export const ExportSession = v.object({
  /** As the connection names itself: an initiator's name, or an address. */
  peer: v.string(),
  address: v.optional(v.string()),
  state: v.string(),
});
export type ExportSession = v.InferOutput<typeof ExportSession>;

/** How another host reaches a volume, and whether it is connected. Not in the reference. */
export const Export = v.object({
  service: v.string(),
  volumeID: v.string(),
  /** The exporter through which it goes. */
  exporter: v.string(),
  instanceID: InstanceID,
  deviceName: v.string(),
  /** What the holder's executor is told: addresses, names and numbers, no secrets. */
  fields: Fields,
  sessions: v.array(ExportSession),
  /** Of one that was asked for by `exportAdd`; without it the export serves a host that has attached. */
  id: v.optional(v.string()),
  writable: v.optional(v.boolean()),
  /** `open`; `hidden`: no new clients; `shutdown`: no new requests either. The last two go with their last user. */
  state: v.optional(v.picklist(["open", "hidden", "shutdown"])),
  /** As they were asked for, or changed since. */
  options: v.optional(v.record(v.string(), v.unknown())),
});
export type Export = v.InferOutput<typeof Export>;

export const ServiceExportMap = v.record(v.string(), v.array(Export));
export type ServiceExportMap = v.InferOutput<typeof ServiceExportMap>;

export const ServiceVolumeMap = v.record(v.string(), VolumeMap);
export type ServiceVolumeMap = v.InferOutput<typeof ServiceVolumeMap>;
export const SnapshotMap = v.record(v.string(), Snapshot);
export type SnapshotMap = v.InferOutput<typeof SnapshotMap>;
export const ServiceSnapshotMap = v.record(v.string(), SnapshotMap);
export type ServiceSnapshotMap = v.InferOutput<typeof ServiceSnapshotMap>;
export const ServicesMap = v.record(v.string(), ServiceInfo);
export type ServicesMap = v.InferOutput<typeof ServicesMap>;
export const TaskMap = v.record(v.string(), Task);
export type TaskMap = v.InferOutput<typeof TaskMap>;
export const ExecutorsMap = v.record(v.string(), ExecutorInfo);
export type ExecutorsMap = v.InferOutput<typeof ExecutorsMap>;

/** What a look at the structure of an image found. Not in the reference. */
export const ImageCheck = v.object({
  status: v.picklist(["clean", "leaks", "corrupt", "unsupported"]),
  corruptions: v.number(),
  leaks: v.number(),
  fixed: v.number(),
});
export type ImageCheck = v.InferOutput<typeof ImageCheck>;

/** What a file would take for the content of an image: now, and once all of it has been written. */
export const ImageSize = v.object({ requiredBytes: v.number(), fullBytes: v.number() });
export type ImageSize = v.InferOutput<typeof ImageSize>;

export const VolumeAttachResponse = v.object({ volume: Volume, attachToken: v.string() });
export type VolumeAttachResponse = v.InferOutput<typeof VolumeAttachResponse>;

/** One event of `GET /events`: a journal entry as the outside may see it. `id` is its sequence number. */
export const StorageEvent = v.object({
  id: v.pipe(v.number(), v.integer()),
  /** Milliseconds since 1970. */
  time: v.number(),
  phase: v.string(),
  operation: v.string(),
  service: v.optional(v.string()),
  volumeID: v.optional(v.string()),
  snapshotID: v.optional(v.string()),
  exportID: v.optional(v.string()),
  task: v.optional(v.number()),
  who: v.optional(v.string()),
  tx: v.optional(v.string()),
  error: v.optional(v.string()),
});
export type StorageEvent = v.InferOutput<typeof StorageEvent>;

export const CertificateHealth = v.object({
  file: v.string(),
  subject: v.string(),
  notAfter: v.string(),
  daysLeft: v.number(),
});
export type CertificateHealth = v.InferOutput<typeof CertificateHealth>;

export const Health = v.object({
  status: v.picklist(["ok", "warning", "failing"]),
  services: v.record(
    v.string(),
    v.object({
      driver: v.string(),
      volumes: v.number(),
      snapshots: v.number(),
      broken: v.number(),
      ready: v.boolean(),
      error: v.optional(v.string()),
    }),
  ),
  warnings: v.array(v.string()),
  certificates: v.optional(v.array(CertificateHealth)),
});
export type Health = v.InferOutput<typeof Health>;
