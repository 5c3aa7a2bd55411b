/**
 * The early model: the field names with which libStorage was first published (section 2 of the
 * contract), as a second view of the same objects. `GET …?model=early` answers it.
 */
import type {
  Instance,
  InstanceID,
  ServiceInfo,
  Snapshot,
  Volume,
  VolumeAttachment,
} from "./types.js";

export interface EarlyInstanceID {
  id: string;
  metadata: unknown;
}

export interface EarlyVolumeAttachment {
  deviceName: string;
  instanceID: EarlyInstanceID | null;
  status: string;
  volumeID: string;
}

export interface EarlyVolume {
  attachments: EarlyVolumeAttachment[];
  availabilityZone: string;
  iops: number;
  name: string;
  networkName: string;
  /** GB, as text. */
  size: string;
  status: string;
  volumeID: string;
  volumeType: string;
}

export interface EarlySnapshot {
  description: string;
  name: string;
  snapshotID: string;
  /** RFC 3339. */
  startTime: string;
  status: string;
  volumeID: string;
  /** GB, as text. */
  volumeSize: string;
}

export interface EarlyInstance {
  instanceID: EarlyInstanceID;
  name: string;
  providerName: string;
  region: string;
}

export function earlyInstanceID({ id, metadata }: InstanceID): EarlyInstanceID {
  return { id, metadata: metadata ?? null };
}

function earlyAttachment(attachment: VolumeAttachment): EarlyVolumeAttachment {
  const { deviceName, instanceID, status, volumeID } = attachment;
  return {
    deviceName,
    instanceID: instanceID === null ? null : earlyInstanceID(instanceID),
    status,
    volumeID,
  };
}

export function earlyVolume(volume: Volume): EarlyVolume {
  return {
    attachments: (volume.attachments ?? []).map(earlyAttachment),
    availabilityZone: volume.availabilityZone ?? "",
    iops: volume.iops ?? 0,
    name: volume.name,
    networkName: volume.networkName ?? "",
    size: String(volume.size ?? 0),
    status: volume.status ?? "",
    volumeID: volume.id,
    volumeType: volume.type,
  };
}

export function earlySnapshot(snapshot: Snapshot): EarlySnapshot {
  const { startTime } = snapshot;
  return {
    description: snapshot.description ?? "",
    name: snapshot.name ?? "",
    snapshotID: snapshot.id,
    startTime: startTime === undefined ? "" : new Date(startTime * 1000).toISOString(),
    status: snapshot.status ?? "",
    volumeID: snapshot.volumeID ?? "",
    volumeSize: String(snapshot.volumeSize ?? 0),
  };
}

export function earlyInstance(instance: Instance): EarlyInstance {
  return {
    instanceID: earlyInstanceID(instance.instanceID),
    name: instance.name ?? "",
    providerName: instance.providerName,
    region: instance.region ?? "",
  };
}

export function earlyService(service: ServiceInfo): Omit<ServiceInfo, "instance"> & {
  instance?: EarlyInstance;
} {
  const { instance, ...rest } = service;
  return instance === undefined ? rest : { ...rest, instance: earlyInstance(instance) };
}
