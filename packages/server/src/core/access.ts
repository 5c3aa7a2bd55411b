/** Who holds a volume. Exclusive by default: one writer, unless the volume is shareable. */
import { StorageError, isSameInstance } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import type { AttachmentRecord, VolumeRecord } from "./driver.js";
import { doorOf, isReader } from "./exporter.js";

/** The field of a volume that lets several instances hold it at once. */
export const SHAREABLE = "shareable";

/** What the volume's own field says counts; without one, the service's setting. */
export function isShareable(volume: VolumeRecord, byService: boolean): boolean {
  const own = volume.fields[SHAREABLE];
  return own === undefined ? byService : own === "true" || own === "";
}

/** The attachment through which an instance holds a volume. */
export function heldBy(volume: VolumeRecord, instance: InstanceID): AttachmentRecord | undefined {
  return volume.attachments.find((attachment) => isSameInstance(attachment.instanceID, instance));
}

/** How an instance gets a volume: it has it already, or after these others were cut off. */
export type Grant =
  | { readonly kind: "held"; readonly attachment: AttachmentRecord }
  | { readonly kind: "grant"; readonly cut: readonly AttachmentRecord[] };

/**
 * Decides an attach request.
 * @throws {StorageError} `failed-precondition`, naming the holder, when another instance has the volume
 * and neither `force` nor sharing lets this one in
 */
export function decideAttach(
  volume: VolumeRecord,
  to: InstanceID,
  force: boolean,
  shareable: boolean,
): Grant {
  const own = heldBy(volume, to);
  if (own !== undefined) return { kind: "held", attachment: own };
  if (shareable || volume.attachments.length === 0) return { kind: "grant", cut: [] };
  if (!force)
    throw heldByOther(
      volume,
      "attach",
      "detach it there, or attach with force to cut that holder off",
    );
  return { kind: "grant", cut: volume.attachments };
}

/**
 * Decides whether a door may be opened: one writer, or any number of readers, unless it is shareable.
 * @throws {StorageError} `failed-precondition`, naming the holder
 */
export function decideDoor(volume: VolumeRecord, isWritable: boolean, shareable: boolean): void {
  const { attachments } = volume;
  const inTheWay = isWritable ? attachments : attachments.filter((one) => !isReader(one));
  if (shareable || inTheWay.length === 0) return;
  throw heldByOther(
    { ...volume, attachments: inTheWay },
    isWritable ? "export for writing" : "export",
    "detach it there or remove that export, or make the volume shareable",
  );
}

/** A refusal that names who holds the volume, since when, and the next step. */
export function heldByOther(volume: VolumeRecord, wanted: string, nextStep: string): StorageError {
  const [holder] = volume.attachments;
  const others = volume.attachments.length - 1;
  const since =
    holder === undefined || holder.since === 0
      ? ""
      : ` since ${new Date(holder.since).toISOString()}`;
  const more = others > 0 ? ` and ${others} more` : "";
  const door = holder === undefined ? undefined : doorOf(holder);
  const how =
    door === undefined ? `attached to ${holder?.instanceID.id}` : `exported as ${door.id}`;
  return new StorageError(
    "failed-precondition",
    `cannot ${wanted} volume ${volume.id} (${volume.name}): it is ${how}${since}${more}; ${nextStep}`,
    {
      volumeID: volume.id,
      holder: holder?.instanceID.id,
      holders: volume.attachments.map(({ instanceID }) => instanceID.id),
      epoch: volume.epoch,
    },
  );
}
