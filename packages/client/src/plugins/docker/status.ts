/** A volume as Docker shows it. */
import type { Snapshot, Volume } from "@libstorage/model";
import { usesOf } from "../../host/mount-records.js";
import type { MountRecordFile } from "../../host/mount-records.js";

export interface DockerVolume {
  readonly Name: string;
  readonly Mountpoint: string;
  readonly CreatedAt?: string;
  readonly Status: Readonly<Record<string, unknown>>;
}

/** What this host knows of the volume. */
export interface LocalState {
  readonly record: MountRecordFile;
  /** The folder to use; empty when the mount is not there. */
  readonly path: string;
  /** Whether the server has given it to others. */
  readonly isLost: boolean;
}

const WELL = new Set(["", "online", "available", "attached", "ok", "ready"]);

/** `ok`, or what is wrong with it and what can be done. */
function healthOf(volume: Volume, local: LocalState | undefined): string {
  const status = volume.status ?? "";
  const broken = volume.fields?.["broken"];
  if (!WELL.has(status)) return broken === undefined ? status : `${status}: ${broken}`;
  if (local === undefined || usesOf(local.record) === 0) return "ok";
  const { isLost } = local;
  if (local.path === "")
    return `it should be mounted at ${local.record.mountPoint} and is not; stop its containers and start them again`;
  const holders = holdersOf(volume);
  // Who this host is to the service is not asked for a list; a volume without any holder is surely lost.
  if (isLost || holders.length === 0)
    return `it is mounted on this host, but ${holders.length === 0 ? "no longer attached to it" : `attached to ${holders.join(", ")}`}; stop its containers before anything writes to it`;
  return "ok";
}

function holdersOf({ attachments = [] }: Volume): readonly string[] {
  return attachments.map(({ instanceID }) => instanceID?.id ?? "unknown");
}

/** The reference's members, section 20 of the contract, and what Docker's protocol has no place for. */
export function statusOf(
  volume: Volume,
  service: string,
  local: LocalState | undefined,
  snapshots?: readonly Snapshot[],
): Readonly<Record<string, unknown>> {
  const holders = holdersOf(volume);
  return {
    ...(holders.length > 0 && { attachedTo: holders }),
    availabilityZone: volume.availabilityZone ?? "",
    ...(volume.encrypted === true && { encrypted: true }),
    fields: volume.fields ?? null,
    health: healthOf(volume, local),
    id: volume.id,
    iops: volume.iops ?? 0,
    name: volume.name,
    server: service,
    service,
    size: volume.size ?? 0,
    ...(snapshots !== undefined && {
      snapshots: snapshots.map(({ id, name = "", startTime }) => ({
        id,
        name,
        ...(startTime !== undefined && { time: new Date(startTime * 1000).toISOString() }),
      })),
    }),
    type: volume.type,
    ...(local !== undefined && { users: [...local.record.namedUsers] }),
  };
}
