/** What the record of a hold says of an NBD export. No secrets. */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { Hold } from "../../core/exporter.js";

const NbdFields = v.object({
  /** `HOST:PORT`, over TCP. */
  address: v.optional(v.string()),
  /** The path of its socket, over Unix. */
  socket: v.optional(v.string()),
  /** The export's name, by which it is known everywhere: of this hold, and never of another one. */
  export: v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{1,220}$/)),
  tls: v.picklist(["required", "none"]),
  access: v.picklist(["rw", "ro"]),
  /** Names and addresses of the holder's host, by which it is known. */
  clients: v.optional(v.string(), ""),
});
export type NbdFields = v.InferOutput<typeof NbdFields>;

/** @throws {StorageError} `data-loss` for a record that was changed by hand */
export function fieldsOf({ volume, attachment }: Hold): NbdFields {
  const parsed = v.safeParse(NbdFields, attachment.fields);
  if (parsed.success) return parsed.output;
  throw new StorageError(
    "data-loss",
    `the record of volume ${volume.id} does not say how ${attachment.instanceID.id} reaches it; detach it there with force and attach it again`,
    { volumeID: volume.id },
  );
}
