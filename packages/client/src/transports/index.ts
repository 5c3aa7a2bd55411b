/** The table of transports of block devices: a line for each exporter that this client knows. */
import { StorageError } from "@libstorage/model";
import type { Attached, ExecutorContext } from "../executor/executor.js";
import { IscsiTransport } from "./iscsi/index.js";
import { localTransport } from "./local.js";
import { loopTransport } from "./loop.js";
import { NbdTransport } from "./nbd/index.js";
import type { BlockTransport } from "./transport.js";

const TRANSPORTS: Readonly<Record<string, (context: ExecutorContext) => BlockTransport>> = {
  "": localTransport,
  "iscsi-lio": (context) => new IscsiTransport(context),
  "iscsi-tgt": (context) => new IscsiTransport(context),
  nbd: (context) => new NbdTransport(context),
};

/** Without an exporter the server is on this host, and says whether the volume is an image file there. */
function nameOf({ exporter, format }: Attached["fields"]): string | undefined {
  return exporter ?? (format === undefined ? "" : undefined);
}

/** @throws {StorageError} `unimplemented` for an exporter that this client does not know */
export function transportOf(
  context: ExecutorContext,
  { volumeID, fields }: Attached,
): BlockTransport {
  const name = nameOf(fields);
  if (name === undefined) return loopTransport(context);
  const open = Object.hasOwn(TRANSPORTS, name) ? TRANSPORTS[name] : undefined;
  if (open !== undefined) return open(context);
  const known = Object.keys(TRANSPORTS).filter((one) => one !== "");
  throw new StorageError(
    "unimplemented",
    `volume ${volumeID} comes through ${name}, which this client cannot use for block devices (it knows ${known.join(", ")}); use a client of the server's version`,
    { volumeID, exporter: name },
  );
}
