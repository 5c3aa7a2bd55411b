/** Refusals that several operations share. */
import { StorageError } from "@libstorage/model";
import type { Fields } from "@libstorage/model";

/** The record, unless it is broken. @throws {StorageError} `failed-precondition` */
export function usable<R extends { readonly id: string; readonly broken?: string }>(record: R): R {
  if (record.broken === undefined) return record;
  throw new StorageError(
    "failed-precondition",
    `${record.id} cannot be used: ${record.broken}; repair it, or remove it with force`,
    { id: record.id, broken: record.broken },
  );
}

/** Enough for any labels; a record with it stays far below what drivers read again. */
const MAX_FIELDS_BYTES = 64 * 1024;

/** The fields, unless they are too long in all. @throws {StorageError} `invalid-argument` */
export function bounded(fields: Fields): Fields {
  const bytes = Buffer.byteLength(JSON.stringify(fields));
  if (bytes <= MAX_FIELDS_BYTES) return fields;
  throw new StorageError(
    "invalid-argument",
    `the fields (opts) have ${bytes} bytes in all, and may have ${MAX_FIELDS_BYTES}; keep larger things in the volume itself`,
    { bytes, limit: MAX_FIELDS_BYTES },
  );
}

export function unable(what: string): StorageError {
  return new StorageError("unimplemented", `the driver of this service cannot ${what}`);
}
