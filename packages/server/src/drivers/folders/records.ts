/**
 * The text of a record: one line of JSON, a Volume or Snapshot of the API (section 8 of the contract) as
 * the reference writes it. What the reference does not know stands in one member that its decoder skips.
 */
import * as v from "valibot";
import {
  bytesOfGiB,
  gibOfBytes,
  MAX_SIZE_GIB,
  Snapshot,
  StorageError,
  Volume,
} from "@libstorage/model";
import type { Fields, VolumeAttachment } from "@libstorage/model";
import type { AttachmentRecord, SnapshotRecord, Source, VolumeRecord } from "../../core/driver.js";

/** Larger than any honest record; what is larger is neither written nor read. */
export const MAX_RECORD_BYTES = 1024 * 1024;

/** @throws {StorageError} `resource-exhausted` for a text that could not be read again */
function readable(text: string): string {
  const bytes = Buffer.byteLength(text);
  if (bytes <= MAX_RECORD_BYTES) return text;
  throw new StorageError(
    "resource-exhausted",
    `the record would have ${bytes} bytes and may have ${MAX_RECORD_BYTES}: there are too many holders or fields`,
    { bytes, limit: MAX_RECORD_BYTES },
  );
}

/** The member for what is ours. */
const OURS = "x-libstorage";

const Count = v.pipe(v.number(), v.integer(), v.minValue(0));

/** What a record says of an image: its format is stated here, and never found out from its bytes. */
export const ImageNote = v.object({
  format: v.picklist(["raw", "qcow2", "iso"]),
  /** What a disk of it has; the wire's size is in whole GiB. */
  sizeBytes: Count,
  /** The name of the image's inner snapshot that this record stands for. */
  inner: v.optional(v.string()),
  /** With LUKS, by the service's key. */
  isEncrypted: v.optional(v.boolean()),
});
export type ImageNote = v.InferOutput<typeof ImageNote>;

const VolumeExtras = v.object({
  epoch: v.optional(Count, 0),
  /** By instance id. */
  holders: v.optional(v.record(v.string(), v.object({ epoch: Count, since: Count }))),
  projectID: v.optional(Count),
  image: v.optional(ImageNote),
});

const SnapshotExtras = v.object({
  /** Whether the snapshot has a data folder; the reference's have none. */
  hasData: v.optional(v.boolean(), false),
  origin: v.optional(
    v.object({ type: v.string(), availabilityZone: v.string(), iops: v.number() }),
  ),
  image: v.optional(ImageNote),
});

const Size = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_SIZE_GIB));

const VolumeShape = v.object({
  ...Volume.entries,
  size: v.optional(Size, 0),
  [OURS]: v.optional(VolumeExtras),
});

const SnapshotShape = v.object({
  ...Snapshot.entries,
  volumeSize: v.optional(Size, 0),
  [OURS]: v.optional(SnapshotExtras),
});

/** Most volumes have none, so that they share these. */
export const NO_FIELDS: Fields = Object.freeze({});
export const NO_ATTACHMENTS: readonly AttachmentRecord[] = Object.freeze([]);

/** A volume as its record tells it, with what the driver alone needs to know. */
export interface VolumeText {
  readonly record: VolumeRecord;
  /** The project that limits its size. */
  readonly projectID: number | undefined;
  /** Of a volume that is an image. */
  readonly image?: ImageNote;
}

export interface SnapshotText {
  readonly record: SnapshotRecord;
  readonly hasData: boolean;
  readonly image?: ImageNote;
}

function parsed<S extends v.GenericSchema>(schema: S, text: string, id: string): v.InferOutput<S> {
  const result = v.safeParse(schema, JSON.parse(text));
  if (!result.success) {
    const [issue] = result.issues;
    throw new Error(`${v.getDotPath(issue) ?? "the whole"}: ${issue.message}`);
  }
  const { id: own } = result.output as { id: string };
  if (own !== id) throw new Error(`it says that its id is ${JSON.stringify(own)}`);
  return result.output;
}

function attachmentOf(
  attachment: VolumeAttachment,
  extras: v.InferOutput<typeof VolumeExtras> | undefined,
): AttachmentRecord {
  const { deviceName, mountPoint, instanceID, status, fields } = attachment;
  const holder = instanceID ?? { id: "", driver: "", service: "" };
  const holders = extras?.holders;
  const extra = holders !== undefined && Object.hasOwn(holders, holder.id) && holders[holder.id];
  return {
    deviceName,
    instanceID: holder,
    status,
    epoch: extra ? extra.epoch : 0,
    since: extra ? extra.since : 0,
    ...(mountPoint !== undefined && mountPoint !== "" && { mountPoint }),
    ...(fields !== undefined && { fields }),
  };
}

/** @throws {Error} whose message says what is wrong with the text */
export function parseVolume(text: string, id: string, source: Source): VolumeText {
  const volume = parsed(VolumeShape, text, id);
  const { attachments = [], networkName, status, fields, [OURS]: extras } = volume;
  const record = {
    id,
    name: volume.name,
    sizeBytes: extras?.image?.sizeBytes ?? bytesOfGiB(volume.size),
    type: volume.type,
    availabilityZone: volume.availabilityZone ?? "",
    iops: volume.iops ?? 0,
    encrypted: volume.encrypted ?? false,
    fields: fields ?? NO_FIELDS,
    attachments:
      attachments.length === 0
        ? NO_ATTACHMENTS
        : attachments.map((attachment) => attachmentOf(attachment, extras)),
    epoch: extras?.epoch ?? 0,
    source,
    ...(networkName !== undefined && networkName !== "" && { networkName }),
    ...(status !== undefined && status !== "" && { status }),
  };
  const image = extras?.image;
  return { record, projectID: extras?.projectID, ...(image !== undefined && { image }) };
}

/** @throws {Error} whose message says what is wrong with the text */
export function parseSnapshot(text: string, id: string, source: Source): SnapshotText {
  const snapshot = parsed(SnapshotShape, text, id);
  const { description, fields, [OURS]: extras } = snapshot;
  const hasData = extras?.hasData ?? false;
  const record = {
    id,
    name: snapshot.name ?? "",
    volumeID: snapshot.volumeID ?? "",
    sizeBytes: extras?.image?.sizeBytes ?? bytesOfGiB(snapshot.volumeSize),
    encrypted: snapshot.encrypted ?? false,
    startTime: (snapshot.startTime ?? 0) * 1000,
    status: snapshot.status ?? "",
    fields: fields ?? NO_FIELDS,
    source: hasData ? source : ({ kind: "none" } as const),
    ...(description !== undefined && description !== "" && { description }),
    ...(extras?.origin !== undefined && { origin: extras.origin }),
  };
  const image = extras?.image;
  return { record, hasData, ...(image !== undefined && { image }) };
}

/** What is empty, zero or false is left out, as the reference does. */
function unlessEmpty<T extends string | number | boolean | object>(value: T | undefined) {
  if (value === undefined || value === "" || value === 0 || value === false) return undefined;
  if (typeof value === "object" && Object.keys(value).length === 0) return undefined;
  return value;
}

function sortedFields(fields: Fields): Fields | undefined {
  const keys = Object.keys(fields).toSorted();
  if (keys.length === 0) return undefined;
  return Object.fromEntries(keys.map((key) => [key, fields[key] ?? ""]));
}

export function volumeText(
  volume: VolumeRecord,
  projectID: number | undefined,
  image?: ImageNote,
): string {
  const holders = volume.attachments
    .filter(({ epoch, since }) => epoch > 0 || since > 0)
    .map(({ instanceID, epoch, since }) => [instanceID.id, { epoch, since }] as const);
  const extras = {
    epoch: unlessEmpty(volume.epoch),
    holders: unlessEmpty(Object.fromEntries(holders)),
    projectID,
    image,
  };
  const hasExtras = Object.values(extras).some((value) => value !== undefined);
  const text = JSON.stringify({
    attachments: unlessEmpty(
      volume.attachments.map(({ deviceName, mountPoint, instanceID, status, fields }) => ({
        deviceName,
        mountPoint,
        instanceID,
        status,
        volumeID: volume.id,
        fields: fields && sortedFields(fields),
      })),
    ),
    availabilityZone: unlessEmpty(volume.availabilityZone),
    encrypted: unlessEmpty(volume.encrypted),
    iops: unlessEmpty(volume.iops),
    name: volume.name,
    networkName: unlessEmpty(volume.networkName),
    size: unlessEmpty(gibOfBytes(volume.sizeBytes)),
    status: unlessEmpty(volume.status),
    id: volume.id,
    type: volume.type,
    fields: sortedFields(volume.fields),
    [OURS]: hasExtras ? extras : undefined,
  });
  return readable(text);
}

export function snapshotText(
  snapshot: SnapshotRecord,
  hasData: boolean,
  image?: ImageNote,
): string {
  const extras = { hasData: unlessEmpty(hasData), origin: snapshot.origin, image };
  const text = JSON.stringify({
    description: unlessEmpty(snapshot.description),
    name: unlessEmpty(snapshot.name),
    encrypted: unlessEmpty(snapshot.encrypted),
    id: snapshot.id,
    startTime: unlessEmpty(Math.floor(snapshot.startTime / 1000)),
    status: unlessEmpty(snapshot.status),
    volumeID: unlessEmpty(snapshot.volumeID),
    volumeSize: unlessEmpty(gibOfBytes(snapshot.sizeBytes)),
    fields: sortedFields(snapshot.fields),
    [OURS]: hasData || snapshot.origin !== undefined ? extras : undefined,
  });
  return readable(text);
}
