/** What a storage daemon refuses, in words that say what to do. */
import { StorageError } from "@libstorage/model";
import { QmpError } from "./qmp.js";

/** A lock that someone else has is not the daemon's fault; nor is what two exports want of one volume. */
export function explained(error: unknown): unknown {
  if (!(error instanceof QmpError)) return error;
  const { desc } = error;
  const lock = /Failed to get (?:shared )?"(\w+)" lock/.exec(desc)?.[1];
  if (lock !== undefined)
    return new StorageError(
      "failed-precondition",
      `the volume's image is open in another QEMU process, which refuses the "${lock}" lock; stop it and try again`,
      { lock },
      { cause: error },
    );
  if (/Permission conflict on node/.test(desc))
    return new StorageError(
      "failed-precondition",
      `the storage daemon cannot have this export beside those that the volume has: ${desc}; a file that may grow (fuse with growable) and NBD exclude each other`,
      {},
      { cause: error },
    );
  const written = /Enabled bitmap '([^']*)' incompatible with readonly export/.exec(desc)?.[1];
  if (written !== undefined)
    return new StorageError(
      "failed-precondition",
      `the dirty bitmap ${written} is still being written; export the volume writable, or stop it first: qemu-img bitmap --disable FILE ${written}`,
      {},
      { cause: error },
    );
  const bitmap = /Bitmap '([^']*)' (is not found|is inconsistent and cannot be used)/.exec(desc);
  if (bitmap !== null)
    return new StorageError(
      "failed-precondition",
      `the volume's dirty bitmap ${bitmap[1]} ${bitmap[2]}; name one that it has, or remove that one`,
      { bitmap: bitmap[1] },
      { cause: error },
    );
  return error;
}
