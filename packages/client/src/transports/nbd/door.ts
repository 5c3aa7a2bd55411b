/** How an NBD export is reached, as the attachment says, and how this host shows who it is. */
import { access } from "node:fs/promises";

import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { ScopedConfig } from "@libstorage/model";
import type { Attached } from "../../executor/executor.js";

const Fields = v.object({
  address: v.pipe(v.string(), v.regex(/^(?:\[[\da-fA-F:.]+\]|[\w.-]+):\d{1,5}$/)),
  export: v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{1,220}$/)),
  tls: v.picklist(["required", "none"]),
  access: v.picklist(["rw", "ro"]),
});

export interface NbdDoor {
  readonly host: string;
  readonly port: string;
  readonly export: string;
  readonly hasTls: boolean;
  readonly isReadOnly: boolean;
  /** The link below /dev/disk/by-id that this client makes. */
  readonly link: string;
}

const LINK = /^\/dev\/disk\/by-id\/nbd-[\w.-]+$/;

/** @throws {StorageError} `failed-precondition` for what the nbd exporter never says */
export function nbdDoorOf({ volumeID, device, fields }: Attached): NbdDoor {
  const result = v.safeParse(Fields, fields);
  if (
    !result.success ||
    device !== `/dev/disk/by-id/nbd-${result.output.export}` ||
    !LINK.test(device)
  )
    throw new StorageError(
      "failed-precondition",
      `the attachment of volume ${volumeID} cannot be used: its NBD address, export or device is none; look at it with "libstorage volume inspect ${volumeID}"`,
      { volumeID, device },
    );
  const { address, tls, access: how, export: name } = result.output;
  const at = address.lastIndexOf(":");
  return {
    host: address.slice(0, at).replace(/^\[(.*)\]$/, "$1"),
    port: address.slice(at + 1),
    export: name,
    hasTls: tls === "required",
    isReadOnly: how === "ro",
    link: device,
  };
}

/** The files of this host's certificate, under the names that QEMU looks for. */
export interface Credentials {
  readonly "ca-cert.pem": string;
  readonly "client-cert.pem": string;
  readonly "client-key.pem": string;
}

const KEYS = {
  "ca-cert.pem": ["nbd.trustedCertsFile", "tls.trustedCertsFile"],
  "client-cert.pem": ["nbd.certFile", "tls.certFile"],
  "client-key.pem": ["nbd.keyFile", "tls.keyFile"],
} as const;

/** @throws {StorageError} `failed-precondition` when TLS is needed and a file is not there */
export async function credentialsFor(
  config: ScopedConfig,
  door: NbdDoor,
): Promise<Credentials | undefined> {
  if (!door.hasTls) return undefined;
  const found: Record<string, string> = {};
  for (const [name, keys] of Object.entries(KEYS)) {
    const file = keys.map((key) => config.find(key)?.value).find((one) => typeof one === "string");
    if (typeof file !== "string" || file === "")
      throw new StorageError(
        "failed-precondition",
        `the NBD server ${door.host}:${door.port} wants TLS with a certificate of this host; set ${keys.join(" or ")} in this host's configuration`,
        { keys: [...keys] },
      );
    await access(file).catch((error: NodeJS.ErrnoException) => {
      throw new StorageError(
        "failed-precondition",
        `${file} (${keys[0]}), which NBD needs, cannot be read: ${error.code}`,
        { file },
      );
    });
    found[name] = file;
  }
  return found as unknown as Credentials;
}
