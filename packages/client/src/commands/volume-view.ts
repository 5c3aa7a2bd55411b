/** Volumes and snapshots as people read them. */
import { ATTACHMENT_STATE, bytesOfGiB, formatSize } from "@libstorage/model";
import type { Snapshot, Volume } from "@libstorage/model";

/** What the state means to the one who asks. */
export function stateOf({ attachmentState, attachments = [], status }: Volume): string {
  if (status !== undefined && /broken|error/i.test(status)) return status;
  if (attachmentState === ATTACHMENT_STATE.attached) return "attached";
  if (attachmentState === ATTACHMENT_STATE.available) return "available";
  return attachmentState === ATTACHMENT_STATE.unavailable || attachments.length > 0
    ? "in use"
    : "-";
}

export function sizeOf(gib: number | undefined): string {
  return gib === undefined || gib === 0 ? "-" : formatSize(bytesOfGiB(gib));
}

export function holderOf({ attachments = [] }: Volume): string {
  const ids = attachments.map(({ instanceID }) => instanceID?.id ?? "?");
  return ids.length === 0 ? "-" : ids.join(",");
}

export const VOLUME_HEAD = ["ID", "NAME", "SIZE", "STATE", "SERVICE", "HOLDER"] as const;

export function volumeRow(service: string, volume: Volume): string[] {
  const { id, name, size } = volume;
  return [id, name, sizeOf(size), stateOf(volume), service, holderOf(volume)];
}

export const SNAPSHOT_HEAD = ["ID", "NAME", "VOLUME", "SIZE", "CREATED", "SERVICE"] as const;

export function timeOf(seconds: number | undefined): string {
  return seconds === undefined || seconds === 0
    ? "-"
    : new Date(seconds * 1000).toISOString().replace(/\.\d+/, "");
}

export function snapshotRow(service: string, snapshot: Snapshot): string[] {
  const { id, name = "", volumeID = "-", volumeSize, startTime } = snapshot;
  return [id, name, volumeID, sizeOf(volumeSize), timeOf(startTime), service];
}

/** A row for each thing that is known, for `inspect`. */
export function details(rows: readonly (readonly [string, string | undefined])[]): string[][] {
  return rows
    .filter(([, value]) => value !== undefined && value !== "" && value !== "-")
    .map(([name, value]) => [`${name}:`, value ?? ""]);
}
