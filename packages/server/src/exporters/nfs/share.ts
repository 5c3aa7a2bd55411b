/**
 * What one holder is given: a mount of the volume's folder that is for this hold alone. Each hold has a path and an
 * identity of its own, made of service, volume and epoch. So they are the same after every restart, while handles of
 * an earlier hold fit nothing that comes after it, be it the same host or another one with the same address. And
 * the mount is the proof of a cut: the kernel does not let it go while any request or open file uses it.
 */
import { createHash } from "node:crypto";
import { StorageError } from "@libstorage/model";
import type { Hold } from "../../core/exporter.js";

export interface Client {
  readonly address: string;
  readonly isReadOnly: boolean;
}

export interface Share {
  readonly volumeID: string;
  readonly holder: string;
  /** The volume's folder. */
  readonly source: string;
  /** Where that is mounted for this holder; what is exported. */
  readonly path: string;
  /** The identity in NFS handles. */
  readonly fsid: string;
  readonly clients: readonly Client[];
  /** Whether its host was told to use NFS 3. */
  readonly isVersion3: boolean;
  /** The number in nfs-ganesha's handles; only for it. */
  readonly number?: number;
}

/** The holder is told these. */
export const FIELDS = {
  version: "version",
  options: "options",
  clients: "clients",
  access: "access",
  served: "served",
  number: "number",
} as const;

/** A UUID (RFC 9562, version 8) of a hold. */
export function fsidOf(service: string, volumeID: string, epoch: number): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([service, volumeID, epoch]))
    .digest();
  hash[6] = ((hash[6] ?? 0) & 0x0f) | 0x80;
  hash[8] = ((hash[8] ?? 0) & 0x3f) | 0x80;
  const hex = hash.toString("hex");
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20, 32),
  ].join("-");
}

const PLAIN_NAME = /^[\w+-][\w.+-]*$/;

/** @throws {StorageError} for an id that could be taken for more than one name */
export function pathOf(folder: string, volumeID: string, epoch: number): string {
  if (PLAIN_NAME.test(volumeID)) return `${folder}/${volumeID}/${epoch}`;
  throw new StorageError(
    "failed-precondition",
    `volume ${volumeID} cannot be exported: its id has other characters than letters, digits, ".", "_", "+" and "-"`,
    { volumeID },
  );
}

/** The share that a hold's record names. @throws {StorageError} `failed-precondition` when it names none */
export function shareOf({ volume, attachment }: Hold, service: string): Share {
  const { fields = {}, epoch, instanceID, deviceName } = attachment;
  const clients = (fields[FIELDS.clients] ?? "").split(",").filter((text) => text !== "");
  const { source, id } = volume;
  // As it was exported, whatever the configuration says now.
  const path = /:(\/[^:]+)$/.exec(deviceName)?.[1];
  if (source.kind !== "directory" || path === undefined || clients.length === 0)
    throw new StorageError(
      "failed-precondition",
      `the record of volume ${id} does not say how ${instanceID.id} gets it (HOST:PATH and addresses): ${deviceName}; repair the record`,
      { volumeID: id, instanceID: instanceID.id },
    );
  const isReadOnly = fields[FIELDS.access] === "ro";
  const number = Number(fields[FIELDS.number] ?? Number.NaN);
  return {
    volumeID: id,
    holder: instanceID.id,
    source: source.path,
    path,
    fsid: fsidOf(service, id, epoch),
    clients: clients.map((address) => ({ address, isReadOnly })),
    isVersion3: fields[FIELDS.version] === "3",
    ...(Number.isInteger(number) && { number }),
  };
}
