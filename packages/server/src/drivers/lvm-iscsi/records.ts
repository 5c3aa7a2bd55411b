/** What a record in the tags says, and how it becomes the core's. Sizes come from LVM where they can. */
import type { InstanceID } from "@libstorage/model";
import * as v from "valibot";
import type { AttachmentRecord, SnapshotRecord, Source, VolumeRecord } from "../../core/driver.js";
import type { LvRow } from "./reports.js";
import { recordIn, tagsOf } from "./tags.js";

const Count = v.pipe(v.number(), v.integer(), v.minValue(0));
const Fields = v.record(v.string(), v.string());

const Holder = v.object({
  instanceID: v.object({
    id: v.string(),
    driver: v.string(),
    service: v.string(),
    fields: v.optional(Fields),
    metadata: v.optional(v.unknown()),
  }),
  deviceName: v.string(),
  mountPoint: v.optional(v.string()),
  status: v.string(),
  fields: v.optional(Fields),
  epoch: Count,
  since: v.number(),
});

const Volume = v.object({
  id: v.string(),
  name: v.string(),
  type: v.optional(v.string(), ""),
  availabilityZone: v.optional(v.string(), ""),
  iops: v.optional(Count, 0),
  encrypted: v.optional(v.boolean(), false),
  networkName: v.optional(v.string()),
  status: v.optional(v.string()),
  fields: v.optional(Fields, {}),
  epoch: v.optional(Count, 0),
  holders: v.optional(v.array(Holder), []),
});

const Snapshot = v.object({
  id: v.string(),
  name: v.string(),
  volumeID: v.string(),
  sizeBytes: Count,
  description: v.optional(v.string()),
  encrypted: v.optional(v.boolean(), false),
  startTime: v.number(),
  status: v.string(),
  fields: v.optional(Fields, {}),
  origin: v.optional(
    v.object({ type: v.string(), availabilityZone: v.string(), iops: v.number() }),
  ),
});

/** What is empty, zero or false takes no room. */
function unlessEmpty<T>(value: T): T | undefined {
  if (value === "" || value === 0 || value === false) return undefined;
  if (typeof value === "object" && value !== null && Object.keys(value).length === 0)
    return undefined;
  return value;
}

export function volumeTags(volume: VolumeRecord): string[] {
  const { id, name, type, availabilityZone, iops, encrypted, networkName } = volume;
  const { status, fields, epoch, attachments } = volume;
  return tagsOf("vol", {
    id,
    name,
    type: unlessEmpty(type),
    availabilityZone: unlessEmpty(availabilityZone),
    iops: unlessEmpty(iops),
    encrypted: unlessEmpty(encrypted),
    networkName,
    status,
    fields: unlessEmpty(fields),
    epoch: unlessEmpty(epoch),
    holders: unlessEmpty(attachments),
  });
}

export function snapshotTags(snapshot: SnapshotRecord): string[] {
  const { id, name, volumeID, sizeBytes, description, encrypted } = snapshot;
  const { startTime, status, fields, origin } = snapshot;
  return tagsOf("snap", {
    id,
    name,
    volumeID,
    sizeBytes,
    description,
    encrypted: unlessEmpty(encrypted),
    startTime,
    status,
    fields: unlessEmpty(fields),
    origin,
  });
}

/** @throws {Error} whose message says what is wrong */
function parsed<S extends v.GenericSchema>(
  schema: S,
  { name, tags }: LvRow,
  kind: "vol" | "snap",
): v.InferOutput<S> {
  const json = recordIn(tags, kind);
  if (json === undefined) throw new Error("it has no tags of libStorage");
  const result = v.safeParse(schema, json);
  if (!result.success) {
    const [issue] = result.issues;
    throw new Error(`its record, ${v.getDotPath(issue) ?? "the whole"}: ${issue.message}`);
  }
  const { id } = result.output as { id: string };
  if (id !== name) throw new Error(`its record is that of ${id}; was it renamed? (lvrename)`);
  return result.output;
}

function healthOf({ health, isSnapshotInvalid }: LvRow): string | undefined {
  if (isSnapshotInvalid) return "the snapshot has overflowed its space, and its data is lost";
  if (health.includes("partial")) return "a disk of the volume group is missing";
  if (health.includes("failed")) return `LVM says that it has failed (${health})`;
  return undefined;
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** @param path of the device that the volume has while it is active */
export function volumeIn(row: LvRow, path: string): VolumeRecord {
  const source: Source = { kind: "block", path };
  const { name: id, sizeBytes } = row;
  try {
    const { holders, id: _id, networkName, status, ...rest } = parsed(Volume, row, "vol");
    const health = healthOf(row);
    return {
      id,
      sizeBytes,
      ...rest,
      attachments: holders.map(attachmentOf),
      source,
      ...(networkName !== undefined && { networkName }),
      ...(status !== undefined && { status }),
      ...(health !== undefined && { broken: health }),
    };
  } catch (error) {
    return {
      id,
      name: "",
      sizeBytes,
      type: "",
      availabilityZone: "",
      iops: 0,
      encrypted: false,
      fields: {},
      attachments: [],
      epoch: 0,
      source,
      broken: wordsOf(error),
    };
  }
}

function attachmentOf({
  mountPoint,
  fields,
  instanceID,
  ...rest
}: v.InferOutput<typeof Holder>): AttachmentRecord {
  const { fields: idFields, metadata, ...id } = instanceID;
  const holder: InstanceID = {
    ...id,
    ...(idFields !== undefined && { fields: idFields }),
    ...(metadata !== undefined && { metadata }),
  };
  return {
    instanceID: holder,
    ...rest,
    ...(mountPoint !== undefined && { mountPoint }),
    ...(fields !== undefined && { fields }),
  };
}

export function snapshotIn(row: LvRow, volumeID: string): SnapshotRecord {
  const id = row.name;
  try {
    const { description, origin, ...rest } = parsed(Snapshot, row, "snap");
    const health = healthOf(row);
    return {
      ...rest,
      source: { kind: "none" },
      ...(description !== undefined && { description }),
      ...(origin !== undefined && { origin }),
      ...(health !== undefined && { broken: health }),
    };
  } catch (error) {
    return {
      id,
      name: "",
      volumeID,
      sizeBytes: row.sizeBytes,
      encrypted: false,
      startTime: 0,
      status: "",
      fields: {},
      source: { kind: "none" },
      broken: wordsOf(error),
    };
  }
}
