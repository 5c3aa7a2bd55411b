/** `POST /qmp`: the body is what a QMP client says, and the answer what it is told, while both come. */
import { StorageError } from "@libstorage/model";
import type { Caller } from "./auth.js";
import { peerOf } from "./headers.js";
import type { Exchange } from "./parts.js";

/** @throws {StorageError} `unimplemented` where QMP is not configured */
export async function serveQmp(
  { req, res, parts, headers }: Exchange,
  { subject }: Caller,
): Promise<void> {
  if (parts.talkQmp === undefined)
    throw new StorageError(
      "unimplemented",
      "this server does not speak QMP; set libstorage.server.qmp.socket",
    );
  headers.push("Content-Type", "application/json", "Cache-Control", "no-store");
  res.writeHead(200, headers);
  res.flushHeaders();
  await parts.talkQmp(req, res, subject ?? peerOf(req));
  res.end();
}
