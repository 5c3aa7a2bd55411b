/** The core's records as the API's objects: bytes become GiB, empty members go, keys are in wire order. */
import {
  ATTACHMENTS,
  ATTACHMENT_STATE,
  gibOfBytes,
  isSameInstance,
  isWanted,
  sorted,
} from "@libstorage/model";
import type {
  Fields,
  InstanceID,
  Snapshot,
  StorageEvent,
  Volume,
  VolumeAttachment,
} from "@libstorage/model";
import type { AttachmentRecord, SnapshotRecord, VolumeRecord } from "../../core/driver.js";
import type { JournalEntry } from "../../core/journal-entry.js";

/** The status of a volume or snapshot whose record or data cannot be used; `fields.broken` says why. */
export const BROKEN = "broken";

function fieldsOf(fields: Readonly<Record<string, string>> | undefined): { fields?: Fields } {
  if (fields === undefined || Object.keys(fields).length === 0) return {};
  return { fields: sorted(fields) };
}

function attachmentOf(volumeID: string, attachment: AttachmentRecord): VolumeAttachment {
  const { deviceName, mountPoint, instanceID, status, fields } = attachment;
  return {
    deviceName,
    ...(mountPoint !== undefined && { mountPoint }),
    instanceID,
    status,
    volumeID,
    ...fieldsOf(fields),
  };
}

/** A volume with the attachments and the state that an answer shows. */
export function volumeWith(
  record: VolumeRecord,
  attachments: readonly AttachmentRecord[],
  attachmentState?: number,
): Volume {
  const { id, broken } = record;
  const status = broken === undefined ? record.status : BROKEN;
  const size = gibOfBytes(record.sizeBytes);
  return Object.freeze({
    ...(attachments.length > 0 && { attachments: attachments.map((a) => attachmentOf(id, a)) }),
    ...(attachmentState !== undefined && { attachmentState }),
    ...(record.availabilityZone !== "" && { availabilityZone: record.availabilityZone }),
    ...(record.encrypted && { encrypted: true }),
    ...(record.iops !== 0 && { iops: record.iops }),
    name: record.name,
    ...(record.networkName !== undefined && { networkName: record.networkName }),
    ...(size !== 0 && { size }),
    ...(status !== undefined && { status }),
    id,
    type: record.type,
    ...fieldsOf(broken === undefined ? record.fields : { ...record.fields, broken }),
  });
}

const PLAIN = new WeakMap<VolumeRecord, Volume>();

/** A volume without attachments, the view of mask 0. The same object while the record is the same. */
export function plainVolume(record: VolumeRecord): Volume {
  let volume = PLAIN.get(record);
  if (volume === undefined) {
    volume = volumeWith(record, []);
    PLAIN.set(record, volume);
  }
  return volume;
}

function stateOf(attachments: readonly AttachmentRecord[], caller: InstanceID | undefined): number {
  if (attachments.length === 0) return ATTACHMENT_STATE.available;
  const isMine = attachments.some(
    ({ instanceID }) => caller !== undefined && isSameInstance(instanceID, caller),
  );
  return isMine ? ATTACHMENT_STATE.attached : ATTACHMENT_STATE.unavailable;
}

/**
 * A volume under an attachments mask (section 7 of the contract), or undefined when the mask leaves it
 * out. With "mine" only the caller's attachments count, as the reference's vfs driver does it.
 */
export function volumeUnder(
  record: VolumeRecord,
  mask: number,
  caller: InstanceID | undefined,
): Volume | undefined {
  if (mask === 0) return plainVolume(record);
  const isMine = (mask & ATTACHMENTS.mine) !== 0;
  const attachments = isMine
    ? record.attachments.filter(
        ({ instanceID }) => caller !== undefined && isSameInstance(instanceID, caller),
      )
    : record.attachments;
  const state = stateOf(attachments, caller);
  return isWanted(mask, state) ? volumeWith(record, attachments, state) : undefined;
}

const SNAPSHOTS = new WeakMap<SnapshotRecord, Snapshot>();

/** The same object while the record is the same. */
export function snapshotOf(record: SnapshotRecord): Snapshot {
  let snapshot = SNAPSHOTS.get(record);
  if (snapshot === undefined) {
    snapshot = makeSnapshot(record);
    SNAPSHOTS.set(record, snapshot);
  }
  return snapshot;
}

function makeSnapshot(record: SnapshotRecord): Snapshot {
  const { id, broken, description } = record;
  const status = broken === undefined ? record.status : BROKEN;
  const startTime = Math.floor(record.startTime / 1000);
  const volumeSize = gibOfBytes(record.sizeBytes);
  return Object.freeze({
    ...(description !== undefined && description !== "" && { description }),
    ...(record.name !== "" && { name: record.name }),
    ...(record.encrypted && { encrypted: true }),
    id,
    ...(startTime > 0 && { startTime }),
    ...(status !== "" && { status }),
    ...(record.volumeID !== "" && { volumeID: record.volumeID }),
    ...(volumeSize !== 0 && { volumeSize }),
    ...fieldsOf(broken === undefined ? record.fields : { ...record.fields, broken }),
  });
}

/** A journal entry as those who follow the event stream see it. */
export function eventOf(entry: JournalEntry): StorageEvent {
  const { seq, time, phase, operation, service, volumeID, task, who, tx, error } = entry;
  const { snapshotID, exportID } = entry;
  return {
    id: seq,
    time,
    phase,
    operation,
    service,
    ...(volumeID !== undefined && { volumeID }),
    ...(snapshotID !== undefined && { snapshotID }),
    ...(exportID !== undefined && { exportID }),
    task,
    who,
    tx,
    ...(error !== undefined && { error: error.message }),
  };
}
