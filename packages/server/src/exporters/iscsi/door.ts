/** What a holder is told, as the fields of its attachment: the contract with the client's executor. No secrets. */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { exporterOf } from "../../core/exporter.js";
import type { Door, Hold, NotRestored } from "../../core/exporter.js";
import type { VolumeRecord } from "../../core/driver.js";
import { CHAP_MODES } from "./chap.js";
import type { ChapMode } from "./chap.js";
import { wwnOf } from "./names.js";
import { formatPortal, parsePortal } from "./portals.js";
import type { Portal } from "./portals.js";

export interface IscsiDoor {
  readonly iqn: string;
  /**
   * Never 0: where a LUN 0 was unmapped while its session lives on, the kernel's target answers reads of its
   * start with zeros, so that a full disk looks blank.
   */
  readonly lun: number;
  readonly portals: readonly Portal[];
  /** Who is let in. */
  readonly initiator: string;
  /** The serial number in the SCSI inquiry, page 0x80. */
  readonly serial: string;
  /** What `scsi_id` and multipath call the device. */
  readonly wwid: string;
  readonly chap: ChapMode;
  readonly iser: boolean;
}

/** What an initiator's udev calls the device and `scsi_id` answers for it. */
export function deviceNames(serial: string): {
  readonly deviceName: string;
  readonly wwid: string;
} {
  const wwn = wwnOf(serial);
  return { deviceName: `/dev/disk/by-id/wwn-0x${wwn}`, wwid: `3${wwn}` };
}

export function doorFields(door: IscsiDoor): Door["fields"] {
  const { iqn, lun, portals, initiator, serial, wwid, chap, iser } = door;
  return {
    portals: portals.map(formatPortal).join(","),
    iqn,
    lun: String(lun),
    initiator,
    serial,
    wwid,
    chap,
    ...(iser && { iser: "true" }),
  };
}

const portals = v.pipe(
  v.string(),
  v.transform((text) => text.split(",").flatMap((one) => parsePortal(one) ?? [])),
  v.minLength(1),
);

const DoorFields = v.object({
  portals,
  // Both become folders of the kernel's, and arguments.
  iqn: v.pipe(v.string(), v.regex(/^iqn\.[a-z\d.:-]{1,219}$/)),
  initiator: v.pipe(v.string(), v.regex(/^(?:iqn|eui|naa)\.[a-z\d.:_-]{1,219}$/)),
  lun: v.pipe(
    v.string(),
    v.regex(/^\d{1,5}$/),
    v.transform(Number),
    v.minValue(1),
    v.maxValue(16_383),
  ),
  serial: v.pipe(v.string(), v.regex(/^[\da-f]{32}$/)),
  wwid: v.string(),
  chap: v.picklist(CHAP_MODES),
  iser: v.optional(
    v.pipe(
      v.string(),
      v.transform((text) => text === "true"),
    ),
    "false",
  ),
});

/** @throws {StorageError} `data-loss` when the record was damaged or edited */
export function doorOf({ volume, attachment }: Hold): IscsiDoor {
  const result = v.safeParse(DoorFields, attachment.fields ?? {});
  if (result.success) return result.output;
  const wrong = result.issues.map((issue) => v.getDotPath(issue)).join(", ");
  throw new StorageError(
    "data-loss",
    `the record of volume ${volume.id} does not say how ${attachment.instanceID.id} reaches it: ${wrong} is missing or wrong; put the record right`,
    { volumeID: volume.id, instanceID: attachment.instanceID.id },
  );
}

/** The holds of a volume that came through an exporter and can be read. */
export function holdsThrough(exporter: string, volume: VolumeRecord): readonly IscsiHold[] {
  return volume.attachments
    .filter((attachment) => exporterOf(attachment) === exporter)
    .flatMap((attachment) => {
      try {
        return [{ volume, attachment, door: doorOf({ volume, attachment }) }];
      } catch {
        return [];
      }
    });
}

/** A hold with its door. */
export interface IscsiHold extends Hold {
  readonly door: IscsiDoor;
}

/** Those that can be read, and those that cannot, with why. */
export function readHolds(holds: readonly Hold[]): {
  readonly known: readonly IscsiHold[];
  readonly failed: readonly NotRestored[];
} {
  const known: IscsiHold[] = [];
  const failed: NotRestored[] = [];
  for (const hold of holds) {
    try {
      known.push(readHold(hold));
    } catch (error) {
      failed.push({ hold, error });
    }
  }
  return { known, failed };
}

/** Undefined when the record does not say how. */
export function readableHold(hold: Hold): IscsiHold | undefined {
  return readHolds([hold]).known[0];
}

export function readHold(hold: Hold): IscsiHold {
  return { ...hold, door: doorOf(hold) };
}
