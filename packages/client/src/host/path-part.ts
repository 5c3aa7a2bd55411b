/** Names of volumes, services and targets as parts of a path. */
import { StorageError } from "@libstorage/model";

/** A name as one part of a path, whatever is in it. */
export function pathPart(text: string): string {
  const escaped = encodeURIComponent(text).replaceAll("*", "%2A");
  // File names end at 255 bytes; the dots alone would lead elsewhere.
  const plain = /^\.+$/.test(escaped) ? escaped.replaceAll(".", "%2E") : escaped;
  if (plain === "" || plain.length > 240)
    throw new StorageError("invalid-argument", `"${text}" cannot be the name of a file`, { text });
  return plain;
}
