/** What an attachment says of an iSCSI volume, checked before any of it becomes an argument or a path. */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { Attached } from "../../executor/executor.js";

export interface Portal {
  /** Without brackets. */
  readonly address: string;
  readonly port: number;
}

export interface IscsiDoor {
  /** The link below /dev/disk/by-id. */
  readonly link: string;
  readonly iqn: string;
  readonly portals: readonly Portal[];
  readonly lun: number;
  /** As scsi_id(8) prints it for page 0x83, in lower case. */
  readonly wwid?: string;
  readonly serial?: string;
  readonly chap: "none" | "one-way" | "mutual";
  readonly isIser: boolean;
}

const PORTAL =
  /^(?:(?<v4>[\d.]+)|\[(?<v6>[\da-fA-F:.]+)\]|(?<name>[A-Za-z\d][A-Za-z\d.-]*)):(?<port>\d{1,5})$/;

function portalOf(text: string): Portal | undefined {
  const groups = PORTAL.exec(text)?.groups;
  if (groups === undefined) return undefined;
  const address = groups["v4"] ?? groups["v6"] ?? groups["name"] ?? "";
  const port = Number(groups["port"]);
  return port > 0 && port < 65536 ? { address: address.toLowerCase(), port } : undefined;
}

export function portalText({ address, port }: Portal): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

const Fields = v.object({
  iqn: v.pipe(v.string(), v.regex(/^(?:iqn|eui|naa)\.[\w.:-]{1,219}$/i)),
  portals: v.pipe(
    v.string(),
    v.transform((text) => text.split(",").map(portalOf)),
    v.check((portals) => portals.every((one) => one !== undefined), "must be ADDRESS:PORT,…"),
    v.transform((portals) => portals.filter((one) => one !== undefined)),
  ),
  lun: v.pipe(v.string(), v.regex(/^\d{1,5}$/), v.transform(Number), v.maxValue(16383)),
  wwid: v.optional(v.pipe(v.string(), v.regex(/^[\x21-\x7e]{2,200}$/), v.toLowerCase())),
  serial: v.optional(v.pipe(v.string(), v.regex(/^[\x20-\x7e]{1,252}$/))),
  chap: v.optional(v.picklist(["none", "one-way", "mutual"]), "none"),
  iser: v.optional(v.picklist(["true", "false"]), "false"),
});

const LINK = /^\/dev\/disk\/by-id\/[\w.:=@+-]+$/;

/** @throws {StorageError} `failed-precondition` for what no exporter of this project says */
export function iscsiDoorOf({ volumeID, device, fields }: Attached): IscsiDoor {
  const result = v.safeParse(Fields, fields);
  const problem = !LINK.test(device)
    ? `its device "${device}" is no link below /dev/disk/by-id`
    : !result.success
      ? result.issues.map((one) => `${v.getDotPath(one) ?? ""}: ${one.message}`).join("; ")
      : result.output.wwid === undefined && result.output.serial === undefined
        ? "it names neither wwid nor serial, by which the device could be recognised"
        : undefined;
  if (problem !== undefined || !result.success)
    throw new StorageError(
      "failed-precondition",
      `the attachment of volume ${volumeID} cannot be used: ${problem}; look at it with "libstorage volume inspect ${volumeID}"`,
      { volumeID, device },
    );
  const { wwid, serial, iser, ...rest } = result.output;
  return {
    ...rest,
    link: device,
    isIser: iser === "true",
    ...(wwid !== undefined && { wwid }),
    ...(serial !== undefined && { serial }),
  };
}
